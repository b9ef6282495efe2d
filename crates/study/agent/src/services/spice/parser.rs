//! What an instrumented SPICE program sends on its agent interface.
//!
//! First one line, `Recorders: a;b;`; then records, each ended by an empty line:
//!
//! ```text
//! Name: frames_stats
//! Function: create_pipeline
//! Time: 1700000000123456
//! channel-display-gst.c:312:frame mm_time 12 size 3456 ...
//! ```

/// Longest record or first line; SPICE's have some 300 bytes.
const MAX_RECORD: usize = 16 * 1024;
/// Recorders that a program may have (`NB_MAX_RECORDERS`).
const MAX_RECORDERS: usize = 16;

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// The names of the recorders, each of which is to be answered.
    Recorders(Vec<String>),
    /// A record.
    Record(Record),
    /// Something else in a record's place, or one that is too long.
    Malformed,
}

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// The recorder.
    pub(super) name: String,
    /// When, in µs of the program's `CLOCK_REALTIME`.
    pub(super) time_us: i64,
    /// What.
    pub(super) message: Message,
}

/// The messages that are understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// `Stream data packet size %u mm_time %u`
    Packet {
        /// Bytes.
        size: u64,
        /// The server's multimedia time, in ms.
        mm_time: u64,
    },
    /// `frame mm_time %u size %u creation time %d decoded time %d queue %u before %u`, and perhaps ` keyframe %d`
    Frame {
        /// The server's multimedia time, in ms.
        mm_time: u64,
        /// Bytes.
        size: u64,
        /// When the client had received it, in µs of its monotonic clock.
        creation_us: i64,
        /// From then until it was decoded, in µs.
        decoded_us: i64,
        /// Decoded frames that wait to be shown.
        queue: u64,
        /// Frames that were being decoded when this one came.
        before: u64,
        /// Whether it is a keyframe, where the program says so.
        keyframe: Option<bool>,
    },
    /// Another one, cut to a length for people.
    Other(String),
}

/// Takes bytes in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    greeted: bool,
    /// Within a record that is too long: everything up to its end is thrown away.
    skipping: bool,
}

impl Parser {
    /// Takes the next bytes and gives what they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut give: impl FnMut(Item)) {
        while let Some((byte, rest)) = bytes.split_first() {
            bytes = rest;
            // An empty line between records has no meaning.
            if !(self.buffer.is_empty() && *byte == b'\n' && !self.skipping) {
                self.buffer.push(*byte);
            }
            let end: &[u8] = if self.greeted { b"\n\n" } else { b"\n" };
            if self.buffer.ends_with(end) {
                let whole = !std::mem::take(&mut self.skipping);
                if whole {
                    give(self.item());
                }
                self.greeted = true;
                self.buffer.clear();
            } else if self.buffer.len() > MAX_RECORD {
                if !std::mem::replace(&mut self.skipping, true) {
                    give(Item::Malformed);
                }
                // The last byte may be the first half of the end.
                self.buffer.drain(..self.buffer.len() - 1);
            }
        }
    }

    fn item(&self) -> Item {
        let Ok(text) = std::str::from_utf8(&self.buffer) else { return Item::Malformed };
        let item = if self.greeted { record(text).map(Item::Record) } else { recorders(text) };
        item.unwrap_or(Item::Malformed)
    }
}

fn recorders(line: &str) -> Option<Item> {
    let names = line.trim_end().strip_prefix("Recorders:")?.trim();
    let names: Vec<String> = names.split_terminator(';').map(|name| name.trim().into()).collect();
    (names.len() <= MAX_RECORDERS).then_some(Item::Recorders(names))
}

fn record(text: &str) -> Option<Record> {
    let (name, rest) = text.strip_prefix("Name: ")?.split_once('\n')?;
    let (_function, rest) = rest.strip_prefix("Function: ")?.split_once('\n')?;
    let (time, rest) = rest.strip_prefix("Time: ")?.split_once('\n')?;
    let rest = rest.trim_end_matches('\n');
    // FILE:LINE: is written by a macro; a message without it is taken as it is.
    let message = match rest.splitn(3, ':').collect::<Vec<_>>().as_slice() {
        [_, line, message] if line.parse::<u32>().is_ok() => message,
        _ => rest,
    };
    Some(Record {
        name: cut(name, 40),
        time_us: time.trim().parse().ok()?,
        message: understood(message.trim()).unwrap_or_else(|| Message::Other(cut(message, 120))),
    })
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(longest).collect()
}

fn understood(message: &str) -> Option<Message> {
    let mut words = message.split_ascii_whitespace();
    let mut expect = |phrase: &str| phrase.split(' ').all(|word| words.next() == Some(word));
    if message.starts_with("Stream") {
        expect("Stream data packet size").then_some(())?;
        let size = words.next()?.parse().ok()?;
        let (key, mm_time) = (words.next()?, words.next()?.parse().ok()?);
        return (key == "mm_time" && words.next().is_none()).then_some(Message::Packet { size, mm_time });
    }
    let mut words = message.split_ascii_whitespace();
    let mut after = |phrase: &str| {
        phrase.split(' ').all(|word| words.next() == Some(word)).then_some(())?;
        words.next()
    };
    let mm_time = after("frame mm_time")?.parse().ok()?;
    let size = after("size")?.parse().ok()?;
    let creation_us = after("creation time")?.parse().ok()?;
    let decoded_us = after("decoded time")?.parse().ok()?;
    let queue = after("queue")?.parse().ok()?;
    let before = after("before")?.parse().ok()?;
    let keyframe = match words.next() {
        None => None,
        Some("keyframe") => Some(words.next()?.parse::<i64>().ok()? != 0),
        Some(_) => return None,
    };
    let whole = words.next().is_none();
    whole.then_some(Message::Frame { mm_time, size, creation_us, decoded_us, queue, before, keyframe })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: &str = "Recorders: frames_stats;stream_channel_data;\n\
        Name: stream_channel_data\nFunction: send_item\nTime: 1700000000123456\n\
        dcc-send.cpp:77:Stream data packet size 3456 mm_time 120\n\n\
        Name: frames_stats\nFunction: sink\nTime: 1700000000133456\n\
        gst.c:312:frame mm_time 120 size 3456 creation time 5000 decoded time 2500 queue 1 before 0\n\n\
        \nName: frames_stats\nFunction: sink\nTime: 1700000000143456\n\
        gst.c:312:frame mm_time 121 size 99 creation time -1 decoded time 7 queue 1 before 2 keyframe 1\n\n\
        Name: other\nFunction: f\nTime: 5\nodd.c:1:something: else\n\n";

    fn parse(pieces: &[&[u8]]) -> Vec<Item> {
        let (mut parser, mut items) = (Parser::default(), Vec::new());
        pieces.iter().for_each(|piece| parser.push(piece, |item| items.push(item)));
        items
    }

    fn frame(
        mm_time: u64,
        size: u64,
        creation_us: i64,
        decoded_us: i64,
        before: u64,
        keyframe: Option<bool>,
    ) -> Message {
        Message::Frame { mm_time, size, creation_us, decoded_us, queue: 1, before, keyframe }
    }

    #[test]
    fn a_session_is_understood() {
        let record =
            |name: &str, time_us, message| Item::Record(Record { name: name.into(), time_us, message });
        assert_eq!(
            parse(&[SESSION.as_bytes()]),
            [
                Item::Recorders(vec!["frames_stats".into(), "stream_channel_data".into()]),
                record("stream_channel_data", 1700000000123456, Message::Packet { size: 3456, mm_time: 120 }),
                record("frames_stats", 1700000000133456, frame(120, 3456, 5000, 2500, 0, None)),
                record("frames_stats", 1700000000143456, frame(121, 99, -1, 7, 2, Some(true))),
                record("other", 5, Message::Other("something: else".into())),
            ]
        );
    }

    #[test]
    fn what_is_no_record_is_malformed_and_the_next_is_read() {
        let good = "Name: n\nFunction: f\nTime: 1\nx.c:1:y\n\n";
        let long = "x".repeat(3 * MAX_RECORD);
        for bad in
            ["Name: n\n\n", "Name: n\nFunction: f\nTime: soon\nx\n\n", "\u{fffd}\n\n", &format!("{long}\n\n")]
        {
            let items = parse(&[b"Recorders: \n", bad.as_bytes(), good.as_bytes()]);
            assert_eq!(items.len(), 3, "{:.40}", bad);
            assert_eq!(items[0], Item::Recorders(vec![]));
            assert_eq!(items[1], Item::Malformed);
            assert!(matches!(&items[2], Item::Record(r) if r.name == "n"));
        }
        assert_eq!(parse(&[b"HTTP/1.1 400 Bad Request\r\n"]), [Item::Malformed]);
        let many = format!("Recorders: {}\n", "a;".repeat(17));
        assert_eq!(parse(&[many.as_bytes()]), [Item::Malformed]);
    }

    #[test]
    fn a_message_with_more_or_less_is_another_one() {
        for text in [
            "Stream data packet size 1 mm_time 2 more",
            "Stream data packet size -1 mm_time 2",
            "frame mm_time 1 size 2 creation time 3 decoded time 4 queue 5",
            "frame mm_time 1 size 2 creation time 3 decoded time 4 queue 5 before 6 keyframe",
            "frame mm_time 99999999999999999999 size 2 creation time 3 decoded time 4 queue 5 before 6",
            "",
        ] {
            assert_eq!(understood(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_session_may_be_split_anywhere(cuts in proptest::collection::vec(0..SESSION.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut at, mut pieces) = (0, Vec::new());
            for cut in cuts.into_iter().chain([SESSION.len()]) {
                pieces.push(&SESSION.as_bytes()[at..cut]);
                at = cut;
            }
            prop_assert_eq!(parse(&pieces), parse(&[SESSION.as_bytes()]));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic_and_in_bounded_memory(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)
        ) {
            let mut parser = Parser::default();
            for piece in &pieces {
                parser.push(piece, |_| ());
                prop_assert!(parser.buffer.len() <= MAX_RECORD + 1);
            }
        }

        #[test]
        fn damaged_sessions_are_read_without_a_panic(at in 0..SESSION.len(), byte in any::<u8>()) {
            let mut bytes = SESSION.as_bytes().to_vec();
            bytes[at] = byte;
            parse(&[&bytes]);
        }
    }
}
