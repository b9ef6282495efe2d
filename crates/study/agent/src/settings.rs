//! Settings that are changed while a program runs: the collector passes a wish on, the program says what is in force.

use recording::spec::Level;
use recording::wire::Message;
use units::{Clock, MonotonicClock, Nanos};

/// Somebody wants a setting of this program changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    pub(crate) id: u32,
    /// Name of the setting.
    pub name: String,
    /// Wanted value.
    pub value: Level,
}

impl Wish {
    /// The answer: it was changed just now, and this is in force.
    pub(crate) fn applied(&self, in_force: Level) -> Message {
        self.answer(Some(in_force), "")
    }

    /// The answer: nothing was changed, and why.
    pub(crate) fn refused(&self, why: &str) -> Message {
        self.answer(None, why)
    }

    fn answer(&self, in_force: Option<Level>, error: &str) -> Message {
        let Nanos(t_ns) = MonotonicClock.now();
        Message::Applied { t_ns, id: self.id, name: self.name.clone(), in_force, error: error.into() }
    }
}
