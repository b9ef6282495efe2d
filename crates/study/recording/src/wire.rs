//! What an agent and a collector say to each other.
//!
//! Every message is `u32 length | u8 kind | payload`, little-endian; `length` counts kind and payload. What happens
//! once is JSON, what happens often is binary. The agent speaks first ([`Hello`]), is told what to go on with
//! ([`Message::Welcome`]), declares its tables, and sends rows; the collector asks for the time ([`Message::Ping`]), says
//! what is on its disk ([`Message::Ack`]) and may ask the agent to stop.
//!
//! Messages for which [`Message::is_entry`] holds are counted, on both sides and across connections, so that an agent
//! that comes back sends again what did not arrive, and nothing twice.

use std::collections::BTreeMap;

use probe::Table;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::spec::{Levels, Panel};

/// Version of this protocol; both sides must have the same.
pub const PROTOCOL: u32 = 2;
/// Most bytes of one message: a drain of a full default ring is far below.
pub const MAX_MESSAGE: usize = 16 << 20;
/// Most tables of one agent.
pub const MAX_TABLES: usize = 512;
/// Longest text of a marker or fault, in bytes; longer ones are cut.
pub const MAX_TEXT: usize = 4096;

/// The agent's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Which panel it speaks for.
    pub panel: Panel,
    /// Name of the program.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Tells the sources of one panel apart; usually the program's name.
    pub source: String,
    /// Drawn at random when the source began to count; an agent that comes back has the same.
    pub session: u64,
    /// Number of the oldest entry that it can still send.
    pub oldest: u64,
    /// What `/proc/sys/kernel/random/boot_id` says: sources of one panel share one clock.
    #[serde(default)]
    pub boot_id: String,
    /// What the collector asks for when it listens beyond loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// The program is in the state that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Settings in force, read back.
    pub in_force: Levels,
    /// Versions of what it uses.
    pub versions: BTreeMap<String, String>,
    /// Other facts, such as a port.
    pub facts: BTreeMap<String, String>,
}

/// One message, in either direction.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Agent, first.
    Hello(Hello),
    /// Agent: table number `index` is this one.
    Declare {
        /// Number, from 0, in order.
        index: u16,
        /// Columns and units.
        table: Table,
    },
    /// Agent: the program is ready. May come again.
    Ready(Ready),
    /// Agent: something happened at `t_ns` of the panel's clock.
    Marker {
        /// Panel's monotonic clock.
        t_ns: i64,
        /// Kind.
        kind: String,
        /// For people.
        text: String,
    },
    /// Agent: the program cannot go on.
    Fault {
        /// For people.
        reason: String,
    },
    /// Agent: rows lost since its start, by table: in full rings, or because too much was waiting to be sent.
    Lost {
        /// By table; cumulative.
        lost: BTreeMap<String, u64>,
    },
    /// Agent, last.
    Bye,
    /// Collector, first: go on with this entry.
    Welcome {
        /// Its number.
        next: u64,
    },
    /// Collector: every entry below this one is on the disk.
    Ack {
        /// Its number.
        next: u64,
    },
    /// Agent: rows of a table, row-major, `t_ns` first; the number of words is a multiple of the columns plus one.
    Rows {
        /// Number of the table.
        index: u16,
        /// Cells.
        words: Vec<u64>,
    },
    /// Collector: what time is it?
    Ping {
        /// Number.
        id: u32,
    },
    /// Agent: it was this.
    Pong {
        /// Number.
        id: u32,
        /// Panel's monotonic clock between receiving the question and sending the answer.
        t_ns: i64,
    },
    /// Collector: please finish.
    Stop,
}

/// What was wrong with bytes from the other side.
#[derive(Debug, Error)]
pub enum WireError {
    /// Above [`MAX_MESSAGE`], or empty.
    #[error("a message of {0} bytes: at most {MAX_MESSAGE} are allowed, at least 1 is needed")]
    Size(usize),
    /// A kind that this version does not have.
    #[error("a message of unknown kind {0}: agent and collector have different versions")]
    Kind(u8),
    /// JSON that is not what its kind demands.
    #[error("message {kind}: {error}")]
    Json {
        /// Kind.
        kind: u8,
        /// What the JSON reader says.
        error: String,
    },
    /// A binary message of impossible length.
    #[error("message {kind} of {size} bytes")]
    Length {
        /// Kind.
        kind: u8,
        /// Bytes of payload.
        size: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct DeclareBody {
    index: u16,
    table: Table,
}
#[derive(Serialize, Deserialize)]
struct MarkerBody {
    t_ns: i64,
    kind: String,
    text: String,
}
#[derive(Serialize, Deserialize)]
struct FaultBody {
    reason: String,
}
#[derive(Serialize, Deserialize)]
struct LostBody {
    lost: BTreeMap<String, u64>,
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have string keys and finite numbers only")
}

fn parse<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(payload).map_err(|error| WireError::Json { kind, error: error.to_string() })
}

impl Message {
    /// Length, kind and payload.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Hello(hello) => (1, json(hello)),
            Self::Declare { index, table } => (2, json(&DeclareBody { index: *index, table: table.clone() })),
            Self::Ready(ready) => (3, json(ready)),
            Self::Marker { t_ns, kind, text } => {
                (4, json(&MarkerBody { t_ns: *t_ns, kind: cut(kind), text: cut(text) }))
            }
            Self::Fault { reason } => (5, json(&FaultBody { reason: cut(reason) })),
            Self::Lost { lost } => (6, json(&LostBody { lost: lost.clone() })),
            Self::Rows { index, words } => return encode_rows(*index, words),
            Self::Ping { id } => (8, id.to_le_bytes().to_vec()),
            Self::Pong { id, t_ns } => (9, [&id.to_le_bytes()[..], &t_ns.to_le_bytes()].concat()),
            Self::Stop => (10, Vec::new()),
            Self::Bye => (11, Vec::new()),
            Self::Welcome { next } => (12, next.to_le_bytes().to_vec()),
            Self::Ack { next } => (13, next.to_le_bytes().to_vec()),
        };
        let mut bytes = ((payload.len() + 1) as u32).to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(payload);
        bytes
    }

    /// True for what is counted: everything that the record would lack.
    pub fn is_entry(&self) -> bool {
        matches!(
            self,
            Self::Ready(_) | Self::Marker { .. } | Self::Fault { .. } | Self::Lost { .. } | Self::Rows { .. }
        )
    }

    /// Decodes one message.
    ///
    /// # Errors
    /// An unknown kind, or a payload that its kind does not have.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, WireError> {
        let length = || WireError::Length { kind, size: payload.len() };
        Ok(match kind {
            1 => Self::Hello(parse(kind, payload)?),
            2 => {
                let body: DeclareBody = parse(kind, payload)?;
                Self::Declare { index: body.index, table: body.table }
            }
            3 => Self::Ready(parse(kind, payload)?),
            4 => {
                let body: MarkerBody = parse(kind, payload)?;
                Self::Marker { t_ns: body.t_ns, kind: cut(&body.kind), text: cut(&body.text) }
            }
            5 => Self::Fault { reason: cut(&parse::<FaultBody>(kind, payload)?.reason) },
            6 => Self::Lost { lost: parse::<LostBody>(kind, payload)?.lost },
            7 => {
                let (index, words) = payload.split_first_chunk::<2>().ok_or_else(length)?;
                let (words, rest) = words.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(length());
                }
                let words = words.iter().map(|w| u64::from_le_bytes(*w)).collect();
                Self::Rows { index: u16::from_le_bytes(*index), words }
            }
            8 => Self::Ping { id: u32::from_le_bytes(payload.try_into().map_err(|_| length())?) },
            9 => {
                let (id, t_ns) = payload.split_first_chunk::<4>().ok_or_else(length)?;
                let t_ns = i64::from_le_bytes(t_ns.try_into().map_err(|_| length())?);
                Self::Pong { id: u32::from_le_bytes(*id), t_ns }
            }
            10 => Self::Stop,
            11 => Self::Bye,
            12 => Self::Welcome { next: u64::from_le_bytes(payload.try_into().map_err(|_| length())?) },
            13 => Self::Ack { next: u64::from_le_bytes(payload.try_into().map_err(|_| length())?) },
            other => return Err(WireError::Kind(other)),
        })
    }
}

/// A [`Message::Rows`] without building the message first.
pub fn encode_rows(index: u16, words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(7 + words.len() * 8);
    bytes.extend((3 + words.len() as u32 * 8).to_le_bytes());
    bytes.push(7);
    bytes.extend(index.to_le_bytes());
    words.iter().for_each(|w| bytes.extend(w.to_le_bytes()));
    bytes
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Puts messages together from chunks of any size. Memory grows with bytes received, never with bytes announced.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a chunk in.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 1 << 20 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(chunk);
    }

    /// The next message, or `None` until more bytes have come.
    ///
    /// # Errors
    /// The bytes are not this protocol; nothing after an error means anything.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > MAX_MESSAGE {
            return Err(WireError::Size(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = Message::decode(body[0], &body[1..])?;
        self.start += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use probe::ColumnType;
    use proptest::prelude::*;

    use super::*;
    use crate::spec::Level;

    fn any_message() -> impl Strategy<Value = Message> {
        let word = || "[a-z0-9_]{1,12}";
        let panel = || prop::sample::select(&Panel::ALL[..]);
        prop_oneof![
            (panel(), word(), word(), any::<u32>(), prop::option::of(word())).prop_map(
                |(panel, program, version, pid, token)| {
                    let (session, oldest) = (u64::from(pid) << 20, u64::from(pid));
                    let (source, boot_id) = (program.clone(), version.clone());
                    let protocol = PROTOCOL;
                    Message::Hello(Hello {
                        protocol,
                        panel,
                        program,
                        version,
                        pid,
                        source,
                        session,
                        oldest,
                        boot_id,
                        token,
                    })
                }
            ),
            (any::<u16>(), word(), word()).prop_map(|(index, name, unit)| Message::Declare {
                index,
                table: Table::new(name, "a table").column("x", ColumnType::F64, &unit, "a column"),
            }),
            (word(), any::<i64>(), any::<bool>()).prop_map(|(name, number, flag)| {
                let in_force =
                    [(name.clone(), Level::Int(number)), ("flag".into(), Level::Bool(flag))].into();
                Message::Ready(Ready {
                    in_force,
                    versions: [(name, "1.0".into())].into(),
                    facts: BTreeMap::new(),
                })
            }),
            (any::<i64>(), word(), ".{0,40}").prop_map(|(t_ns, kind, text)| Message::Marker {
                t_ns,
                kind,
                text
            }),
            ".{0,60}".prop_map(|reason| Message::Fault { reason }),
            prop::collection::btree_map(word(), any::<u64>(), 0..3).prop_map(|lost| Message::Lost { lost }),
            any::<u64>().prop_map(|next| Message::Welcome { next }),
            any::<u64>().prop_map(|next| Message::Ack { next }),
            Just(Message::Bye),
            (any::<u16>(), prop::collection::vec(any::<u64>(), 0..50))
                .prop_map(|(index, words)| Message::Rows { index, words }),
            any::<u32>().prop_map(|id| Message::Ping { id }),
            (any::<u32>(), any::<i64>()).prop_map(|(id, t_ns)| Message::Pong { id, t_ns }),
            Just(Message::Stop),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire_in_chunks_of_any_size(
            messages in prop::collection::vec(any_message(), 0..8), step in 1usize..90,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
            let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Some(message) = decoder.next_message().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(kind, &payload);
            let mut decoder = Decoder::new();
            decoder.push(&payload);
            while let Ok(Some(_)) = decoder.next_message() {}
        }
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_kept() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.next_message(), Err(WireError::Size(_))));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let reason = "ü".repeat(MAX_TEXT);
        let bytes = Message::Fault { reason }.encode();
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let Ok(Some(Message::Fault { reason })) = decoder.next_message() else { panic!("a fault") };
        assert_eq!(reason.len(), MAX_TEXT);
    }
}
