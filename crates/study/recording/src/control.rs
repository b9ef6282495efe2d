//! What a third party may want of a record under way: add a person's remark, or change a setting of a program.
//!
//! It speaks to the collector's socket ([`note`], [`set`]); the collector passes a setting on to the panel's program and
//! answers when that has said what is in force. Both the wish and its outcome become markers of the record.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::address::{Address, Stream};
use crate::collector::AGENT;
use crate::facts::PanelFacts;
use crate::receive::{Context, is_pause};
use crate::sources::locked;
use crate::spec::{Level, Panel};
use crate::wire::{Decoder, Message, PREAMBLE, PROTOCOL};

/// How long a program may take to change a setting: an encoder is started anew.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the collector may take to answer beyond that.
const ANSWER: Duration = Duration::from_secs(2);

/// A wish that was not fulfilled.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no record is under way at {address}")]
    Connect {
        /// Where.
        address: Address,
        /// Why it was not reached.
        source: std::io::Error,
    },
    /// The connection ended without an answer.
    #[error("the collector at {0} gave no answer: its token or its version may be another")]
    NoAnswer(Address),
    /// The collector or the program said no.
    #[error("{0}")]
    Refused(String),
}

/// Adds a remark to the record under way at `address`, about now.
///
/// # Errors
/// No record is under way there, or the token is wrong.
pub fn note(
    address: &Address,
    token: Option<&str>,
    panel: Option<Panel>,
    text: &str,
) -> Result<(), ControlError> {
    ask(address, token, &Message::Note { panel, text: text.into() }).map(drop)
}

/// Changes a setting of a panel's program, and gives what is in force then.
///
/// # Errors
/// No record is under way there, the token is wrong, or the program does not change it, and why.
pub fn set(
    address: &Address,
    token: Option<&str>,
    panel: Panel,
    name: &str,
    value: Level,
) -> Result<Option<Level>, ControlError> {
    ask(address, token, &Message::Set { panel, name: name.into(), value: Some(value) })
}

/// What is in force of a setting of a panel's program.
///
/// # Errors
/// As [`set`], or the program has no such setting.
pub fn get(
    address: &Address,
    token: Option<&str>,
    panel: Panel,
    name: &str,
) -> Result<Option<Level>, ControlError> {
    ask(address, token, &Message::Set { panel, name: name.into(), value: None })
}

fn ask(address: &Address, token: Option<&str>, wish: &Message) -> Result<Option<Level>, ControlError> {
    let connect = |source| ControlError::Connect { address: address.clone(), source };
    let mut stream = address.connect().map_err(connect)?;
    stream.set_read_timeout(Some(Duration::from_millis(200))).map_err(connect)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(connect)?;
    let hello = Message::Control { protocol: PROTOCOL, token: token.map(str::to_owned) };
    let silent = || ControlError::NoAnswer(address.clone());
    stream.write_all(&[&PREAMBLE[..], &hello.encode(), &wish.encode()].concat()).map_err(|_| silent())?;
    let (mut decoder, mut begun, deadline) = (Decoder::new(), false, Instant::now() + PATIENCE + ANSWER);
    let mut buffer = [0; 4096];
    while Instant::now() < deadline {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(silent()),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) if is_pause(&error) => continue,
            Err(_) => return Err(silent()),
        }
        begun |= decoder.take_begun();
        if begun && let Some(message) = decoder.next_message().map_err(|_| silent())? {
            return match message {
                Message::Reply { in_force, error } if error.is_empty() => Ok(in_force),
                Message::Reply { error, .. } => Err(ControlError::Refused(error)),
                _ => Err(silent()),
            };
        }
    }
    Err(silent())
}

/// What is in force, and why nothing was changed.
type Answer = (Option<Level>, String);

/// Wishes that programs have not answered yet.
#[derive(Default)]
pub(crate) struct Wishes {
    last: AtomicU32,
    waiting: Mutex<BTreeMap<u32, Sender<Answer>>>,
}

impl Wishes {
    fn make(&self) -> (u32, Receiver<Answer>) {
        let id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        let (tell, answer) = mpsc::channel();
        locked(&self.waiting).insert(id, tell);
        (id, answer)
    }

    fn forget(&self, id: u32) {
        locked(&self.waiting).remove(&id);
    }

    /// A program has answered.
    pub(crate) fn fulfil(&self, id: u32, in_force: Option<Level>, error: &str) {
        if let Some(tell) = locked(&self.waiting).remove(&id) {
            let _ = tell.send((in_force, error.to_owned()));
        }
    }
}

impl Context {
    /// Passes a wish on to the panel's program and waits for what becomes of it. Without a value it says what is in force.
    pub(crate) fn set(&self, panel: Panel, name: &str, value: Option<Level>) -> Message {
        let refused = |error: String| Message::Reply { in_force: None, error };
        let Some(state) = self.panels.get(&panel) else { return refused("an unknown panel".into()) };
        let mut sources = state.sources();
        sources.retain(|(name, source)| name != AGENT && source.connected.load(Ordering::Acquire));
        sources.sort_by_key(|(_, source)| source.order);
        let Some((program, source)) = sources.into_iter().next() else {
            return refused(format!("no program of panel {panel} is connected"));
        };
        let Some(value) = value else { return in_force(&program, &source.facts, name) };
        self.mark(panel, "setting_asked", format!("{name} = {value}"));
        let (id, answer) = self.wishes.make();
        locked(&source.orders).push_back(Message::Setting { id, name: name.into(), value });
        let deadline = Instant::now() + PATIENCE;
        loop {
            match answer.recv_timeout(Duration::from_millis(100)) {
                Ok((in_force, error)) => return Message::Reply { in_force, error },
                Err(_) if self.closing.load(Ordering::Acquire) => {
                    self.wishes.forget(id);
                    return refused("the record has ended".into());
                }
                Err(_) if Instant::now() >= deadline => {
                    self.wishes.forget(id);
                    let error = format!(
                        "{program} did not say within {} s whether {name} was changed",
                        PATIENCE.as_secs()
                    );
                    return refused(error);
                }
                Err(_) => {}
            }
        }
    }
}

/// What a program has said last.
fn in_force(program: &str, facts: &Mutex<PanelFacts>, name: &str) -> Message {
    let facts = locked(facts);
    if let Some(level) = facts.in_force.get(name) {
        return Message::Reply { in_force: Some(level.clone()), error: String::new() };
    }
    let names: Vec<_> = facts.in_force.keys().map(String::as_str).collect();
    let error = match names.as_slice() {
        [] => format!("{program} has not said yet what is in force"),
        names => format!("{program} has no such setting; it has {}", names.join(", ")),
    };
    Message::Reply { in_force: None, error }
}

/// Serves a third party to its end. The token has been checked.
pub(crate) fn serve(stream: &mut Stream, decoder: &mut Decoder, context: &Context) {
    let mut buffer = [0; 4096];
    if stream.write_all(&PREAMBLE).is_err() {
        return;
    }
    loop {
        let reply = match decoder.next_message() {
            Ok(Some(Message::Note { panel, text })) => {
                context.mark(panel, "note", text);
                Message::Reply { in_force: None, error: String::new() }
            }
            Ok(Some(Message::Set { panel, name, value })) => context.set(panel, &name, value),
            Ok(Some(_)) | Err(_) => return stream.shutdown(),
            Ok(None) => match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    decoder.push(&buffer[..count]);
                    continue;
                }
                Err(error) if is_pause(&error) && !context.closing.load(Ordering::Acquire) => continue,
                Err(_) => return,
            },
        };
        if stream.write_all(&reply.encode()).is_err() {
            return;
        }
    }
}
