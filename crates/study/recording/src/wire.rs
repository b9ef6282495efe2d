//! What an agent and a collector say to each other.
//!
//! Every message is `u32 length | u8 kind | payload`, little-endian; `length` counts kind and payload. What happens
//! once is JSON, what happens often is binary. The agent speaks first ([`Hello`]), is told what to go on with
//! ([`Message::Welcome`]), declares its tables, and sends rows; the collector asks for the time ([`Message::Ping`]), says
//! what is on its disk ([`Message::Ack`]) and may ask the agent to stop.
//!
//! Each side begins with [`PREAMBLE`], and what came before it on the same stream is forgotten: a virtio-serial port stays
//! open on the host's side when the agent in the guest is killed in the middle of a message and started again.
//!
//! A third party, such as `triptych note`, introduces itself with [`Message::Control`] instead, and is answered with a
//! [`Message::Reply`] to each wish.
//!
//! Messages for which [`Message::is_entry`] holds are counted, on both sides and across connections, so that an agent
//! that comes back sends again what did not arrive, and nothing twice.

use std::collections::BTreeMap;

use probe::Table;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::decoder::Decoder;
use crate::spec::{Level, Levels, Panel};

/// Version of this protocol; both sides must have the same.
pub const PROTOCOL: u32 = 3;
/// What each side sends first: drawn at random, so that no message holds it.
pub const PREAMBLE: [u8; 32] = *b"\xd3TRIPTYCH\n\x8a\x1f\xe0\x93\x5c\x02\xb7\x46\xf9\x71\x2d\xc8\xa4\x0b\x65\x9e\x33\xd0\x18\xfc\x87\x5a";
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
    /// Number of its next entry.
    #[serde(default)]
    pub next: u64,
    /// The record that what waits to be sent belongs to ([`Message::Welcome`]); empty before the first.
    #[serde(default)]
    pub record: String,
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
    /// Collector, first: go on with this entry. What waits for another record is not wanted.
    Welcome {
        /// Its number.
        next: u64,
        /// Which record this is; the same when the collector of a record has ended and another goes on with it.
        record: String,
    },
    /// A third party, first.
    Control {
        /// [`PROTOCOL`].
        protocol: u32,
        /// As [`Hello::token`].
        token: Option<String>,
    },
    /// Third party: a person's remark, about now.
    Note {
        /// The panel that it is about, if one.
        panel: Option<Panel>,
        /// For people.
        text: String,
    },
    /// Third party: change a setting of a panel's program, or only say what is in force.
    Set {
        /// Which.
        panel: Panel,
        /// Name.
        name: String,
        /// Wanted value; absent to leave it.
        value: Option<Level>,
    },
    /// Collector, to a third party: the wish was fulfilled, with this in force, or refused.
    Reply {
        /// What is in force now, for a setting.
        in_force: Option<Level>,
        /// Why not; empty when it was.
        error: String,
    },
    /// Collector, to a panel's program: change a setting.
    Setting {
        /// Number of the wish.
        id: u32,
        /// Name.
        name: String,
        /// Wanted value.
        value: Level,
    },
    /// Agent: a setting was changed, or not.
    Applied {
        /// Panel's monotonic clock when it took effect.
        t_ns: i64,
        /// Number of the wish; 0 when the program changed it of its own accord.
        id: u32,
        /// Name.
        name: String,
        /// What is in force now; absent when there is no such setting.
        in_force: Option<Level>,
        /// Why it was not changed; empty when it was.
        error: String,
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
#[derive(Serialize, Deserialize)]
struct WelcomeBody {
    next: u64,
    record: String,
}
#[derive(Serialize, Deserialize)]
struct ControlBody {
    protocol: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}
#[derive(Serialize, Deserialize)]
struct NoteBody {
    panel: Option<Panel>,
    text: String,
}
#[derive(Serialize, Deserialize)]
struct SetBody {
    panel: Panel,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Level>,
}
#[derive(Serialize, Deserialize)]
struct ReplyBody {
    in_force: Option<Level>,
    error: String,
}
#[derive(Serialize, Deserialize)]
struct SettingBody {
    id: u32,
    name: String,
    value: Level,
}
#[derive(Serialize, Deserialize)]
struct AppliedBody {
    t_ns: i64,
    id: u32,
    name: String,
    in_force: Option<Level>,
    error: String,
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
            Self::Welcome { next, record } => {
                (12, json(&WelcomeBody { next: *next, record: record.clone() }))
            }
            Self::Ack { next } => (13, next.to_le_bytes().to_vec()),
            Self::Control { protocol, token } => {
                (14, json(&ControlBody { protocol: *protocol, token: token.clone() }))
            }
            Self::Note { panel, text } => (15, json(&NoteBody { panel: *panel, text: cut(text) })),
            Self::Set { panel, name, value } => {
                (16, json(&SetBody { panel: *panel, name: cut(name), value: value.clone() }))
            }
            Self::Reply { in_force, error } => {
                (17, json(&ReplyBody { in_force: in_force.clone(), error: cut(error) }))
            }
            Self::Setting { id, name, value } => {
                (18, json(&SettingBody { id: *id, name: cut(name), value: value.clone() }))
            }
            Self::Applied { t_ns, id, name, in_force, error } => {
                let (name, error) = (cut(name), cut(error));
                (19, json(&AppliedBody { t_ns: *t_ns, id: *id, name, in_force: in_force.clone(), error }))
            }
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
            Self::Ready(_)
                | Self::Marker { .. }
                | Self::Fault { .. }
                | Self::Lost { .. }
                | Self::Rows { .. }
                | Self::Applied { .. }
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
            12 => {
                let body: WelcomeBody = parse(kind, payload)?;
                Self::Welcome { next: body.next, record: cut(&body.record) }
            }
            13 => Self::Ack { next: u64::from_le_bytes(payload.try_into().map_err(|_| length())?) },
            14 => {
                let body: ControlBody = parse(kind, payload)?;
                Self::Control { protocol: body.protocol, token: body.token }
            }
            15..=19 => Self::decode_wish(kind, payload)?,
            other => return Err(WireError::Kind(other)),
        })
    }
}

impl Message {
    /// What a third party says, and what follows from it.
    fn decode_wish(kind: u8, payload: &[u8]) -> Result<Self, WireError> {
        Ok(match kind {
            15 => {
                let body: NoteBody = parse(kind, payload)?;
                Self::Note { panel: body.panel, text: cut(&body.text) }
            }
            16 => {
                let body: SetBody = parse(kind, payload)?;
                Self::Set { panel: body.panel, name: cut(&body.name), value: body.value }
            }
            17 => {
                let body: ReplyBody = parse(kind, payload)?;
                Self::Reply { in_force: body.in_force, error: cut(&body.error) }
            }
            18 => {
                let body: SettingBody = parse(kind, payload)?;
                Self::Setting { id: body.id, name: cut(&body.name), value: body.value }
            }
            _ => {
                let AppliedBody { t_ns, id, name, in_force, error } = parse(kind, payload)?;
                Self::Applied { t_ns, id, name: cut(&name), in_force, error: cut(&error) }
            }
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

#[cfg(test)]
mod tests {
    use probe::ColumnType;
    use proptest::prelude::*;

    use super::*;

    fn any_message() -> impl Strategy<Value = Message> {
        let word = || "[a-z0-9_]{1,12}";
        let panel = || prop::sample::select(&Panel::ALL[..]);
        prop_oneof![
            (panel(), word(), word(), any::<u32>(), prop::option::of(word())).prop_map(
                |(panel, program, version, pid, token)| {
                    let (session, oldest, next) = (u64::from(pid) << 20, u64::from(pid), u64::from(pid) + 7);
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
                        next,
                        record: "a record".into(),
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
            (any::<u64>(), word()).prop_map(|(next, record)| Message::Welcome { next, record }),
            (any::<u32>(), prop::option::of(word()))
                .prop_map(|(protocol, token)| Message::Control { protocol, token }),
            (prop::option::of(panel()), ".{0,40}").prop_map(|(panel, text)| Message::Note { panel, text }),
            (panel(), word(), prop::option::of(any::<i64>())).prop_map(|(panel, name, n)| Message::Set {
                panel,
                name,
                value: n.map(Level::Int)
            }),
            (any::<bool>(), word())
                .prop_map(|(b, error)| Message::Reply { in_force: Some(Level::Bool(b)), error }),
            (any::<u32>(), word(), word()).prop_map(|(id, name, text)| Message::Setting {
                id,
                name,
                value: Level::Text(text)
            }),
            (any::<i64>(), any::<u32>(), word(), word()).prop_map(|(t_ns, id, name, error)| {
                Message::Applied { t_ns, id, name, in_force: None, error }
            }),
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
    fn long_texts_are_cut_at_a_character() {
        let reason = "ü".repeat(MAX_TEXT);
        let bytes = Message::Fault { reason }.encode();
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let Ok(Some(Message::Fault { reason })) = decoder.next_message() else { panic!("a fault") };
        assert_eq!(reason.len(), MAX_TEXT);
    }
}
