//! The QEMU Machine Protocol: JSON objects, one a line (QEMU's `docs/interop/qmp-spec.txt`).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

/// Longest line that is accepted: `query-qmp-schema`, the longest answer there is, has some 200 kB.
const MAX_LINE: usize = 4 << 20;
/// Events kept until they are asked for; older ones are thrown away.
const MAX_EVENTS: usize = 1024;
/// Time for an answer. QEMU answers at once, save on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A conversation failed.
#[derive(Debug, Error)]
pub enum QmpError {
    /// The connection ended: QEMU is gone.
    #[error("QEMU closed the QMP connection")]
    Closed,
    /// No answer.
    #[error("QEMU gave no answer to {0} in time")]
    Timeout(String),
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {description} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's class of the error.
        class: String,
        /// In its words.
        description: String,
    },
    /// An answer that is not the protocol.
    #[error("QEMU's answer to {command} is not understood")]
    Answer {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A line longer than any answer.
    #[error("QEMU sent a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// The socket.
    #[error("the QMP socket")]
    Io(#[from] std::io::Error),
}

/// Version of QEMU.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// Such as 7.
    pub major: u32,
    /// Such as 2.
    pub minor: u32,
    /// Such as 22.
    pub micro: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// What happened in the machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// Its name, such as `VSERPORT_CHANGE`.
    pub event: String,
    /// What belongs to it.
    #[serde(default)]
    pub data: Value,
}

/// Answer of `query-spice`, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SpiceInfo {
    /// Whether SPICE is served.
    pub enabled: bool,
    /// Where, if so.
    #[serde(default)]
    pub port: Option<u16>,
    /// Open channels.
    #[serde(default)]
    pub channels: Vec<SpiceChannel>,
}

/// A client's channel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SpiceChannel {
    /// `SPICE_CHANNEL_*`: 1 main, 2 display.
    #[serde(rename = "channel-type")]
    pub channel_type: i64,
    /// Which of several of one type.
    #[serde(rename = "channel-id")]
    pub channel_id: i64,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

/// A connection, past its greeting.
pub struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    version: Version,
}

impl Qmp {
    /// Takes the greeting and leaves the negotiation.
    ///
    /// # Errors
    /// The other side is no QEMU, or is gone.
    pub fn greet(stream: UnixStream) -> Result<Self, QmpError> {
        #[derive(Deserialize)]
        struct Greeting {
            #[serde(rename = "QMP")]
            qmp: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            version: Outer,
        }
        #[derive(Deserialize)]
        struct Outer {
            qemu: Version,
        }
        let version = Version { major: 0, minor: 0, micro: 0 };
        let mut qmp = Self { stream, buffer: Vec::new(), events: VecDeque::new(), version };
        let command = "the greeting";
        let line = qmp.line(Instant::now() + PATIENCE)?.ok_or_else(|| QmpError::Timeout(command.into()))?;
        let greeting: Greeting = understood(command, serde_json::from_slice(&line))?;
        qmp.version = greeting.qmp.version.qemu;
        qmp.execute::<Value>("qmp_capabilities", None)?;
        Ok(qmp)
    }

    /// Version of QEMU, from the greeting.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Executes a command.
    ///
    /// # Errors
    /// QEMU refuses it, answers something else, or is gone.
    pub fn execute<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: Option<Value>,
    ) -> Result<T, QmpError> {
        let mut request = json!({ "execute": command });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        self.stream.write_all(format!("{request}\n").as_bytes()).map_err(gone)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.line(deadline)?.ok_or_else(|| QmpError::Timeout(command.into()))?;
            let mut value: Value = understood(command, serde_json::from_slice(&line))?;
            if value.get("event").is_some() {
                self.keep(understood(command, serde_json::from_value(value))?);
            } else if let Some(error) = value.get_mut("error") {
                let refusal: Refusal = understood(command, serde_json::from_value(error.take()))?;
                return Err(QmpError::Refused {
                    command: command.into(),
                    class: refusal.class,
                    description: refusal.desc,
                });
            } else {
                let result = value.get_mut("return").map(Value::take).unwrap_or_default();
                return understood(command, serde_json::from_value(result));
            }
        }
    }

    /// State of the SPICE server.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn query_spice(&mut self) -> Result<SpiceInfo, QmpError> {
        self.execute("query-spice", None)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn quit(&mut self) -> Result<(), QmpError> {
        match self.execute::<Value>("quit", None) {
            // It may be gone before its answer is out.
            Ok(_) | Err(QmpError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next event, or `None` when there was none until `deadline`.
    ///
    /// # Errors
    /// QEMU is gone, or speaks something else.
    pub fn next_event(&mut self, deadline: Instant) -> Result<Option<Event>, QmpError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        let Some(line) = self.line(deadline)? else { return Ok(None) };
        understood("nothing (an event)", serde_json::from_slice(&line)).map(Some)
    }

    /// Waits for an event that is `wanted`; others are thrown away.
    ///
    /// # Errors
    /// It did not come in time, or QEMU is gone.
    pub fn wait_event(
        &mut self,
        what: &str,
        deadline: Instant,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event, QmpError> {
        loop {
            match self.next_event(deadline)? {
                Some(event) if wanted(&event) => return Ok(event),
                Some(_) => {}
                None => return Err(QmpError::Timeout(format!("the wait for {what}"))),
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// One line without its end, or `None` at the deadline; what came of it until then is kept.
    fn line(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, QmpError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(QmpError::TooLong);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }
}

fn gone(error: std::io::Error) -> QmpError {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => QmpError::Closed,
        _ => QmpError::Io(error),
    }
}

fn understood<T>(command: &str, result: Result<T, serde_json::Error>) -> Result<T, QmpError> {
    result.map_err(|source| QmpError::Answer { command: command.into(), source })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}"#;

    /// A QEMU that greets and gives one canned answer (of any number of lines) to each command.
    fn qemu(answers: &'static [&'static str]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut write = theirs.try_clone().unwrap();
            let _ = writeln!(write, "{GREETING}\r");
            let mut lines = BufReader::new(theirs).lines();
            for answer in ["{\"return\": {}}"].iter().chain(answers) {
                if lines.next().is_none() || writeln!(write, "{answer}").is_err() {
                    return;
                }
            }
        });
        ours
    }

    #[test]
    fn events_between_command_and_answer_are_kept_for_later() {
        let mut qmp = Qmp::greet(qemu(&[
            "{\"event\": \"RESUME\", \"timestamp\": {\"seconds\": 1}}\n{\"return\": {\"enabled\": true, \"port\": 5910, \"channels\": [{\"channel-type\": 2, \"channel-id\": 0, \"tls\": false}]}}",
        ]))
        .unwrap();
        assert_eq!(qmp.version().to_string(), "7.2.22");
        let spice = qmp.query_spice().unwrap();
        assert_eq!((spice.port, spice.channels[0].channel_type), (Some(5910), 2));
        let event = qmp.wait_event("RESUME", Instant::now() + PATIENCE, |e| e.event == "RESUME").unwrap();
        assert_eq!(event.data, Value::Null);
        assert!(matches!(qmp.next_event(Instant::now() + PATIENCE), Err(QmpError::Closed)));
    }

    #[test]
    fn a_refusal_carries_qemus_own_words() {
        let mut qmp = Qmp::greet(qemu(&[
            r#"{"error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}"#,
        ]))
        .unwrap();
        let error = qmp.execute::<Value>("x", None).unwrap_err().to_string();
        assert_eq!(error, "QEMU refused x: The command x has not been found (CommandNotFound)");
    }

    #[test]
    fn what_is_not_qmp_is_an_error_and_not_a_panic() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"SSH-2.0-OpenSSH\n").unwrap();
        assert!(matches!(Qmp::greet(ours), Err(QmpError::Answer { .. })));
        let mut qmp = Qmp::greet(qemu(&["{\"return\": 5}"])).unwrap();
        assert!(matches!(qmp.query_spice(), Err(QmpError::Answer { .. })));
    }
}
