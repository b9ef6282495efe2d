//! Rows of samplers, by table, until they are handed on together.

use std::collections::{BTreeMap, HashMap};

use probe::{Table, Value};
use recording::wire::{Message, Ready};
use units::{Clock, MonotonicClock, Nanos};

use crate::outbox::Outbox;
use crate::sampler::Rows;

/// Most words of one table that are gathered before they are handed on whatever the time: 1 MiB.
const MAX_WORDS: usize = 128 * 1024;
/// Most facts; a machine with more disks than that is described well enough.
const MAX_FACTS: usize = 4096;

/// See the module.
#[derive(Default)]
pub(crate) struct Gather {
    tables: Vec<(Table, Vec<u64>)>,
    by_name: HashMap<String, usize>,
    /// Where the next row goes if tables come in the order of before, as they mostly do.
    expected: usize,
    messages: Vec<Message>,
    facts: BTreeMap<String, String>,
    /// Facts that are not said yet.
    news: BTreeMap<String, String>,
    full: bool,
}

impl Gather {
    /// True when it should not wait any longer.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Says all facts again: a new record does not know them.
    pub(crate) fn begin(&mut self) {
        self.news = self.facts.clone();
        self.messages.clear();
        self.tables.iter_mut().for_each(|(_, words)| words.clear());
        self.full = false;
    }

    /// Hands everything on.
    pub(crate) fn hand_on(&mut self, outbox: &mut Outbox) {
        self.full = false;
        if !self.news.is_empty() {
            let facts = std::mem::take(&mut self.news);
            outbox.message(&Message::Ready(Ready { facts, ..Ready::default() }));
        }
        for message in self.messages.drain(..) {
            outbox.message(&message);
        }
        for (table, words) in self.tables.iter_mut().filter(|(_, words)| !words.is_empty()) {
            match outbox.table(table) {
                Some(index) => outbox.rows(index, words),
                None => {
                    let rows = words.len() / (table.columns.len() + 1);
                    outbox.lost(&table.name, rows as u64);
                }
            }
            words.clear();
        }
    }

    fn place(&mut self, table: &Table) -> Option<usize> {
        let known = match self.tables.get(self.expected) {
            Some((next, _)) if next.name == table.name => Some(&self.expected),
            _ => self.by_name.get(&table.name),
        };
        if let Some(at) = known {
            return (self.tables[*at].0.columns.len() == table.columns.len()).then_some(*at);
        }
        if let Err(error) = table.check() {
            tracing::warn!("a sampler's table is left out: {error}");
            return None;
        }
        self.by_name.insert(table.name.clone(), self.tables.len());
        self.tables.push((table.clone(), Vec::new()));
        Some(self.tables.len() - 1)
    }
}

impl Rows for Gather {
    fn row(&mut self, table: &Table, at: Nanos, values: &[Value]) {
        debug_assert_eq!(values.len(), table.columns.len(), "a row of table {}", table.name);
        let Some(place) = self.place(table) else { return };
        self.expected = if place + 1 < self.tables.len() { place + 1 } else { 0 };
        let words = &mut self.tables[place].1;
        words.push(at.0 as u64);
        words.extend((0..table.columns.len()).map(|i| values.get(i).map_or(0, |v| v.to_bits())));
        self.full |= words.len() > MAX_WORDS;
    }

    fn mark(&mut self, kind: &str, text: &str) {
        let Nanos(t_ns) = MonotonicClock.now();
        self.messages.push(Message::Marker { t_ns, kind: kind.into(), text: text.into() });
    }

    fn fact(&mut self, name: &str, value: &str) {
        if self.facts.get(name).is_some_and(|v| v == value) || self.facts.len() >= MAX_FACTS {
            return;
        }
        self.facts.insert(name.into(), value.into());
        self.news.insert(name.into(), value.into());
    }
}
