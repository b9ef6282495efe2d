//! The network between host and client, where a study varies it: two namespaces and an emulated path between them.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bench::{Conflict, EventSink, SubjectError};
use netem::conditions::{Loss, Queue, Rate, Reordering};
use netem::relay::Relay;
use netem::{Conditions, Emulator, NetemError, Options, Report, Schedule, Side};
use recording::spec::{Domain, Factor, Level, Levels, Panel};

/// How long a packet that is passed by others is held back.
const HELD_BACK_MS: f64 = 10.0;
/// Port of the SPICE server in its own namespace, where nobody else listens.
const PORT: u16 = 5900;
/// File of the run's folder in which the emulator says what it did and how precisely.
const REPORT: &str = "network.json";
/// Settings that need an emulated path.
const NUMBERS: [(&str, &str, &str, f64); 6] = [
    ("net_rate", "Mbit/s", "Bandwidth of the emulated path from host to client; 0: no limit", 100_000.0),
    ("net_delay", "ms", "Delay of the emulated path, in each direction", 10_000.0),
    ("net_jitter", "ms", "Half the width of the delay's spread, at most the delay", 10_000.0),
    ("net_loss", "%", "Packets lost on the emulated path, in each direction", 100.0),
    (
        "net_reordering",
        "%",
        "Packets held back for 10 ms, so that others pass them, from host to client",
        100.0,
    ),
    ("net_queue", "kB", "What may wait for the bandwidth from host to client; 0: 1000 packets", 262_144.0),
];

/// The settings of the network.
pub(super) fn factors() -> Vec<Factor> {
    let words = ["loopback", "emulated"].map(str::to_owned).to_vec();
    let network = Factor {
        name: "network".into(),
        unit: String::new(),
        description: "Host and client on this machine's loopback, or in network namespaces with an emulated path between them"
            .into(),
        domain: Domain::Enum { values: words },
        default: Level::Text("loopback".into()),
    };
    let number = |(name, unit, description, max): (&str, &str, &str, f64)| Factor {
        name: name.into(),
        unit: unit.into(),
        description: description.into(),
        domain: Domain::Float { min: 0.0, max },
        default: Level::Float(0.0),
    };
    std::iter::once(network).chain(NUMBERS.map(number)).collect()
}

/// What the path is to be like; `None` on loopback.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    forward: Conditions,
    backward: Conditions,
}

impl Wanted {
    /// Whether bandwidth and delay are all that is wanted.
    fn is_of_bytes(&self) -> bool {
        let plain = |c: &Conditions| {
            let only = Conditions { rate: c.rate.clone(), delay_ms: c.delay_ms, ..Conditions::default() };
            *c == only
        };
        plain(&self.forward) && plain(&self.backward)
    }

    pub(super) fn read(levels: &Levels) -> Option<Self> {
        if levels.get("network").map(Level::to_string).as_deref() != Some("emulated") {
            return None;
        }
        let number = |name: &str| levels.get(name).and_then(Level::as_f64).unwrap_or(0.0);
        let loss = match number("net_loss") {
            0.0 => Loss::None,
            percent => Loss::Independent(percent / 100.0),
        };
        let backward = Conditions {
            delay_ms: number("net_delay"),
            jitter_ms: number("net_jitter"),
            loss,
            ..Conditions::default()
        };
        let reordering = Some(number("net_reordering")).filter(|percent| *percent > 0.0);
        let forward = Conditions {
            rate: match number("net_rate") {
                0.0 => Rate::Unlimited,
                megabits => Rate::BitsPerS((megabits * 1e6).round() as u64),
            },
            reordering: reordering
                .map(|percent| Reordering { probability: percent / 100.0, extra_ms: HELD_BACK_MS }),
            queue: match number("net_queue") {
                0.0 => Queue::default(),
                kilobytes => Queue::Bytes((kilobytes * 1e3).round() as u32),
            },
            ..backward.clone()
        };
        Some(Self { forward, backward })
    }
}

/// What can only fail: conditions of a path that is not emulated, and those that no path has.
pub(super) fn conflicts(settings: &Levels) -> Vec<Conflict> {
    let set = |name: &str| settings.get(name).and_then(Level::as_f64).is_some_and(|x| x != 0.0);
    let Some(wanted) = Wanted::read(settings) else {
        let without = NUMBERS.iter().filter(|(name, ..)| set(name)).map(|(name, ..)| Conflict {
            setting: (*name).to_owned(),
            wrong: "the path is this machine's loopback".into(),
            expected: "`network = \"emulated\"` beside it, or 0".into(),
            nearest: Some("0".into()),
        });
        return without.collect();
    };
    let wrong = wanted.forward.check().err().or(wanted.backward.check().err());
    let conflict = |error: netem::conditions::ConditionsError| {
        let field = if error.field == "bits_per_s" { "rate" } else { error.field };
        let named = NUMBERS.iter().find(|(name, ..)| field.starts_with(name.trim_start_matches("net_")));
        Conflict {
            setting: named.map_or("network", |(name, ..)| name).to_owned(),
            wrong: error.to_string(),
            expected: "conditions that a path can have (docs/netem.md)".into(),
            nearest: None,
        }
    };
    wrong.map(conflict).into_iter().collect()
}

/// The path of a run. Dropped, it takes its namespaces away and whatever is left in them.
pub(super) struct NetworkPath(Way);

enum Way {
    /// Packets between two namespaces; the ticket that a server beyond loopback asks for.
    Packets { emulator: Emulator, ticket: PathBuf },
    /// Where namespaces are refused: the bytes of a connection over loopback. It begins once the server's port is known.
    Bytes { options: Options, relay: Option<Relay> },
}

impl NetworkPath {
    /// Makes it; `secrets` is a folder that only this user can read.
    pub(super) fn start(wanted: &Wanted, seed: u64, secrets: &Path) -> Result<Self, SubjectError> {
        let schedule = |conditions: &Conditions| Schedule { start: conditions.clone(), changes: Vec::new() };
        let options = Options {
            forward: schedule(&wanted.forward),
            backward: schedule(&wanted.backward),
            seed,
            ..Options::default()
        };
        let emulator = match Emulator::start(options.clone()) {
            Err(error) if error.is_refused() && wanted.is_of_bytes() => {
                tracing::warn!(
                    "only bandwidth and delay of the byte stream are emulated: {}",
                    bench::chain(&error)
                );
                return Ok(Self(Way::Bytes { options, relay: None }));
            }
            other => other.map_err(refused)?,
        };
        let ticket = secrets.join("ticket");
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| SubjectError::Io { what, source }
        };
        let mut random = [0u8; 16];
        fs::File::open("/dev/urandom")
            .and_then(|mut f| f.read_exact(&mut random))
            .map_err(io("no randomness"))?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(&ticket, text).map_err(io("cannot write the ticket"))?;
        Ok(Self(Way::Packets { emulator, ticket }))
    }

    /// Puts a panel's program on its side.
    pub(super) fn enter(&self, panel: Panel, command: &mut Command) {
        if let Way::Packets { emulator, ticket } = &self.0 {
            let side = if panel == Panel::Client { Side::B } else { Side::A };
            emulator.enter(side, command);
            command.arg("--ticket-file").arg(ticket);
        }
    }

    /// Where the host listens, who would take `port` on loopback.
    pub(super) fn listen(&self, port: i64) -> String {
        match &self.0 {
            Way::Packets { emulator, .. } => format!("{}:{PORT}", emulator.address(Side::A)),
            Way::Bytes { .. } => format!("127.0.0.1:{port}"),
        }
    }

    /// Where the client connects, once the host has told its port.
    pub(super) fn connect(&mut self, port: &str) -> Result<String, SubjectError> {
        match &mut self.0 {
            Way::Packets { emulator, .. } => Ok(format!("{}:{PORT}", emulator.address(Side::A))),
            Way::Bytes { options, relay } => {
                let target: SocketAddr = format!("127.0.0.1:{port}")
                    .parse()
                    .map_err(|_| SubjectError::Setting(format!("'{port}' is no port")))?;
                let made = Relay::start(target, options.clone()).map_err(refused)?;
                Ok(relay.insert(made).address().to_string())
            }
        }
    }

    /// Says what the path was like and how precisely: a marker, and all of it in a file of the run.
    pub(super) fn report(&self, sink: &mut dyn EventSink) -> Result<(), SubjectError> {
        let report: Report = match &self.0 {
            Way::Packets { emulator, .. } => emulator.report(),
            Way::Bytes { relay: Some(relay), .. } => relay.report(),
            Way::Bytes { relay: None, .. } => return Ok(()),
        };
        let path = sink.run_dir().join(REPORT);
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        fs::write(&path, text).map_err(|error| SubjectError::Write { path, error: error.to_string() })?;
        let counters = report.forward.counters;
        let late = report.forward.lateness.map_or("nothing was sent".to_owned(), |late| {
            format!("99 of 100 at most {:.2} ms late", late.p99_ns as f64 / 1e6)
        });
        let what = match report.level {
            netem::Level::Packets => "packets",
            _ => "pieces of a byte stream: no jitter, loss, reordering or queue",
        };
        let text = format!(
            "to the client {} {what}; {} dropped, {} lost; {late}",
            counters.packets_in,
            counters.dropped_queue + counters.dropped_flight,
            counters.lost
        );
        sink.event(Some(Panel::Host), "network", &text);
        Ok(())
    }
}

fn refused(error: NetemError) -> SubjectError {
    if error.is_refused() {
        let remedy = format!("{}; with `network = \"loopback\"` nothing is emulated", bench::chain(&error));
        return SubjectError::Missing { what: "an emulated network".into(), remedy };
    }
    SubjectError::Setting(bench::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(set: &[(&str, f64)]) -> Levels {
        let numbers = set.iter().map(|(name, x)| ((*name).to_owned(), Level::Float(*x)));
        numbers.chain([("network".to_owned(), Level::Text("emulated".into()))]).collect()
    }

    #[test]
    fn settings_become_the_conditions_of_a_path() {
        let set = [
            ("net_rate", 2.5),
            ("net_delay", 20.0),
            ("net_loss", 1.0),
            ("net_reordering", 5.0),
            ("net_queue", 64.0),
        ];
        let wanted = Wanted::read(&levels(&set)).unwrap();
        assert_eq!(wanted.forward.rate, Rate::BitsPerS(2_500_000));
        assert_eq!(wanted.forward.queue, Queue::Bytes(64_000));
        assert_eq!(wanted.forward.reordering, Some(Reordering { probability: 0.05, extra_ms: HELD_BACK_MS }));
        for conditions in [&wanted.forward, &wanted.backward] {
            assert_eq!((conditions.delay_ms, &conditions.loss), (20.0, &Loss::Independent(0.01)));
        }
        assert_eq!(wanted.backward.rate, Rate::Unlimited);
        assert!(!wanted.is_of_bytes());
        assert!(Wanted::read(&levels(&[("net_rate", 1.0), ("net_delay", 5.0)])).unwrap().is_of_bytes());
        assert_eq!(Wanted::read(&Levels::new()), None);
    }

    #[test]
    fn what_no_path_has_is_refused_before_anything_is_run() {
        let told = |levels: &Levels| conflicts(levels).into_iter().map(|c| c.setting).collect::<Vec<_>>();
        assert_eq!(told(&levels(&[("net_delay", 5.0), ("net_jitter", 9.0)])), ["net_jitter"]);
        assert_eq!(told(&levels(&[("net_delay", 5.0), ("net_jitter", 5.0)])), [""; 0]);
        let mut loopback = levels(&[("net_loss", 1.0)]);
        loopback.remove("network");
        assert_eq!(told(&loopback), ["net_loss"]);
    }
}
