//! The two files of facts: `plan.toml` of a study and `run.toml` of a run. Readable by a person and by any TOML reader.
//!
//! Both start with `format` (major) and `minor`: a newer minor is read, a newer major refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use units::{Clock, MonotonicClock};

use crate::atomic::{write_atomically, write_unsynced};
use crate::spec::{Levels, Panel, SubjectSpec};

/// Major version of the study and run formats written here.
pub const FORMAT: u32 = 1;
/// Minor version written here.
pub const FORMAT_MINOR: u32 = 2;

/// One row of the design: a point of the matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedPoint {
    /// Position in the design, from 0.
    pub index: u32,
    /// One level per varied factor.
    pub levels: Levels,
}

/// One execution to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRun {
    /// Folder name below `runs/`, sorts in order of execution (`r0001-p03-k1`).
    pub id: String,
    /// Index of the point.
    pub point: u32,
    /// Repeat, from 0.
    pub repeat: u32,
}

/// `plan.toml`: the design as it will be run. Written once, before the first run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyFacts {
    /// Major version of the format.
    pub format: u32,
    /// Minor version of the format.
    pub minor: u32,
    /// Program and version that wrote it.
    pub writer: String,
    /// The study's name.
    pub name: String,
    /// What the study is about; free text.
    pub description: String,
    /// Start, RFC 3339, UTC.
    pub created: String,
    /// Seed of the order of runs.
    pub seed: u64,
    /// Seconds cut from the start of each run.
    pub warmup_s: f64,
    /// Seconds recorded in each run.
    pub record_s: f64,
    /// Runs of each point.
    pub repeats: u32,
    /// Names of the varied factors, in the order of the study file.
    pub varied: Vec<String>,
    /// Settings that are the same in every run.
    pub fixed: Levels,
    /// The points.
    pub points: Vec<PlannedPoint>,
    /// The runs in order of execution.
    pub runs: Vec<PlannedRun>,
    /// What the subject takes and gives; `responses` are those of the study.
    pub subject: SubjectSpec,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Under way, or its collector was killed: samples are in `.arrows` files.
    Running,
    /// Closed; samples are in Parquet.
    Complete,
    /// Ended early for `reason`; what was recorded is kept.
    Failed,
    /// Stopped by the person.
    Interrupted,
}

/// What a clock estimate rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockBasis {
    /// Exchanges with the collector: whatever delays the messages had is within the uncertainty.
    #[default]
    Exchanges,
    /// Frames that two panels saw: the way of the quickest frame counts as no time, which is not within the
    /// uncertainty. One-way latencies are relative to that frame.
    Frames,
}

impl ClockBasis {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Offset of a panel's clock, estimated over the run.
///
/// `collector = panel + offset_ns + drift_ppm · 1e-6 · (panel - reference_ns)`, true within `± uncertainty_ns`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockFacts {
    /// What the estimate rests on.
    #[serde(default, skip_serializing_if = "ClockBasis::is_usual")]
    pub basis: ClockBasis,
    /// Collector minus panel at `reference_ns`.
    pub offset_ns: i64,
    /// Change of the offset, parts per million.
    pub drift_ppm: f64,
    /// The instant on the panel's clock that the line is anchored at.
    pub reference_ns: i64,
    /// Half-width of what the exchanges allow, constant asymmetry included; of frames, see [`ClockBasis::Frames`].
    pub uncertainty_ns: i64,
    /// Number of exchanges behind the estimate.
    pub exchanges: u32,
    /// For a line that begins after a step of the clock: the panel's clock from which on it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ns: Option<i64>,
    /// The lines after the first step, in order of time; usually none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<ClockFacts>,
}

/// What a panel's program said of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PanelFacts {
    /// Program name.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Settings in force, as the program read them back.
    pub in_force: Levels,
    /// Versions of what it uses (GStreamer, encoder element, libspice-server).
    pub versions: BTreeMap<String, String>,
    /// Other facts.
    pub facts: BTreeMap<String, String>,
    /// Rows lost in its rings, by table.
    pub lost: BTreeMap<String, u64>,
    /// Clock estimate; absent when too few exchanges were made.
    pub clock: Option<ClockFacts>,
}

/// The machine that ran it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Kernel release and version.
    pub kernel: String,
    /// Distribution.
    pub os: String,
    /// CPU model.
    pub cpu: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Load averages over 1, 5 and 15 minutes at the start of the run.
    pub load: [f64; 3],
}

/// Something that happened at an instant of the collector's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// Collector's monotonic clock.
    pub t_ns: i64,
    /// The panel it is about, if one.
    pub panel: Option<Panel>,
    /// Kind: `window_start`, `window_end`, `setting`, `fault`, `gone`, `note`.
    pub kind: String,
    /// For people.
    pub text: String,
}

/// `run.toml`: the facts of one run. Rewritten (atomically) when the run is closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Major version of the format.
    pub format: u32,
    /// Minor version of the format.
    pub minor: u32,
    /// Program and version that wrote it.
    pub writer: String,
    /// Folder name.
    pub id: String,
    /// Index of the point.
    pub point: u32,
    /// Repeat, from 0.
    pub repeat: u32,
    /// How it ended.
    pub status: RunStatus,
    /// Why it did not complete; empty when it did.
    pub reason: String,
    /// Start, RFC 3339, UTC.
    pub started: String,
    /// End, RFC 3339, UTC; empty while running.
    pub ended: String,
    /// Collector's monotonic clock at the start of the run.
    pub started_ns: i64,
    /// The recorded window on the collector's monotonic clock: start and end; absent when it was never reached.
    pub window_ns: Option<[i64; 2]>,
    /// Settings asked for: levels of the point and fixed settings.
    pub asked: Levels,
    /// The machine of the collector.
    pub host: HostFacts,
    /// By panel name.
    pub panels: BTreeMap<String, PanelFacts>,
    /// In order of time.
    pub markers: Vec<Marker>,
    /// Whether something outside disturbed the run; absent where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Where an imported run comes from; absent where Triptych recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportFacts>,
}

/// What disturbed a run from outside. Derived from the raw samples; made again when its definition changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Version of the definition.
    pub version: u32,
    /// True when any of the disturbances is worth a warning.
    pub disturbed: bool,
    /// What was found, worst first; empty in a quiet run.
    #[serde(default)]
    pub disturbances: Vec<Disturbance>,
    /// What could not be judged on any panel because nobody sampled it (`steal`, `pressure`, `lag`, `others`).
    #[serde(default)]
    pub unknown: Vec<String>,
}

/// One kind of disturbance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disturbance {
    /// `steal`, `pressure`, `lag`, `others`, `clock`, `lost`, `gap`.
    pub kind: String,
    /// The panel on whose machine it was seen.
    #[serde(default)]
    pub panel: Option<Panel>,
    /// Share of the recorded window's time that was disturbed, 0 to 1.
    pub share: f64,
    /// For people: what, how much, compared with what.
    pub text: String,
    /// When, on the collector's clock; rising, not all of them where there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans_ns: Vec<[i64; 2]>,
}

/// Where an imported run comes from, and what its files do not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportFacts {
    /// Format of the source: `rec`, `results`, `csv`.
    pub format: String,
    /// The files, as they were named.
    #[serde(default)]
    pub files: Vec<String>,
    /// What was assumed because the files do not say it: units, relations of clocks.
    #[serde(default)]
    pub assumptions: Vec<String>,
    /// What was left out, and how often: by what it was (`row of the wrong length`).
    #[serde(default)]
    pub skipped: BTreeMap<String, u64>,
}

/// A file of facts could not be read or written.
#[derive(Debug, Error)]
pub enum FactsError {
    /// The operating system.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Not TOML, or not these facts.
    #[error("{}: {error}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the TOML reader says, with line and field.
        error: String,
    },
    /// A newer major version.
    #[error("{} has format {found}, this version reads up to {FORMAT}: use a newer triptych", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Larger than any facts are.
    #[error("{} has {size} bytes: no file of facts is that large", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

/// Most bytes of a file of facts: a plan of a hundred thousand runs has about 10 MB.
const MAX_FACTS: u64 = 256 << 20;

/// What can be read of any version.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FactsError> {
    let text = read_text(path)?;
    // Where a file of a newer version cannot be read at all, its version is the reason.
    let version: Version = parse_head(&text, path)?;
    if version.format > FORMAT {
        return Err(FactsError::TooNew { path: path.to_owned(), found: version.format });
    }
    parse(&text, path)
}

fn read_text(path: &Path) -> Result<String, FactsError> {
    let io = |source| FactsError::Io { what: "read", path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > MAX_FACTS {
        return Err(FactsError::TooLarge { path: path.to_owned(), size });
    }
    let mut text = String::with_capacity(size as usize + 1);
    file.read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, FactsError> {
    toml::from_str(text)
        .map_err(|error| FactsError::Invalid { path: path.to_owned(), error: error.to_string() })
}

/// What stands before the first table, for which a hundredth of the file is enough mostly. A text of several lines may hold
/// what looks like a table: then all is read.
fn parse_head<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, FactsError> {
    let head = text.find("\n[").map_or(text, |end| &text[..=end]);
    toml::from_str(head).or_else(|_| parse(text, path))
}

/// How the run of `run.toml` ended, without reading all of it.
///
/// # Errors
/// As [`read_run`]'s, as far as it is read.
pub fn read_status(path: &Path) -> Result<RunStatus, FactsError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
        status: RunStatus,
    }
    let text = read_text(path)?;
    // The verdict stands last: a file without it may have been cut off, and is read with all care.
    if !text.contains("\n[quality]\n") || !text.ends_with('\n') {
        return read_run(path).map(|facts| facts.status);
    }
    let head: Head = parse_head(&text, path)?;
    if head.format > FORMAT {
        return Err(FactsError::TooNew { path: path.to_owned(), found: head.format });
    }
    Ok(head.status)
}

fn text<T: Serialize>(path: &Path, facts: &T) -> Result<String, FactsError> {
    toml::to_string(facts)
        .map_err(|error| FactsError::Invalid { path: path.to_owned(), error: error.to_string() })
}

fn write<T: Serialize>(path: &Path, facts: &T) -> Result<(), FactsError> {
    write_atomically(path, text(path, facts)?.as_bytes()).map_err(|source| FactsError::Io {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// Reads `plan.toml`.
///
/// # Errors
/// It is missing, broken, or of a newer major version.
pub fn read_plan(path: &Path) -> Result<StudyFacts, FactsError> {
    read(path)
}

/// Writes `plan.toml`, whole or not at all.
///
/// # Errors
/// The disk is full or gone.
pub fn write_plan(path: &Path, facts: &StudyFacts) -> Result<(), FactsError> {
    write(path, facts)
}

/// Reads `run.toml`.
///
/// # Errors
/// It is missing, broken, or of a newer major version.
pub fn read_run(path: &Path) -> Result<RunFacts, FactsError> {
    read(path)
}

/// Writes `run.toml`, whole or not at all.
///
/// # Errors
/// The disk is full or gone.
pub fn write_run(path: &Path, facts: &RunFacts) -> Result<(), FactsError> {
    write(path, facts)
}

/// As [`write_run`], for a caller that syncs many runs at once: what is there after a crash of the machine is not known before
/// it has.
///
/// # Errors
/// As there.
pub fn write_run_unsynced(path: &Path, facts: &RunFacts) -> Result<(), FactsError> {
    let failed = |source| FactsError::Io { what: "write", path: path.to_owned(), source };
    write_unsynced(path, text(path, facts)?.as_bytes()).map_err(failed)
}

/// This instant, RFC 3339 in UTC.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl RunFacts {
    /// A run that begins now, on this machine.
    pub fn begin(planned: &PlannedRun, asked: Levels, writer: &str) -> Self {
        Self::on(HostFacts::read(), planned, asked, writer)
    }

    /// A run that begins now on a machine that was looked at before.
    pub fn on(host: HostFacts, planned: &PlannedRun, asked: Levels, writer: &str) -> Self {
        Self {
            format: FORMAT,
            minor: FORMAT_MINOR,
            writer: writer.into(),
            id: planned.id.clone(),
            point: planned.point,
            repeat: planned.repeat,
            status: RunStatus::Running,
            reason: String::new(),
            started: now(),
            ended: String::new(),
            started_ns: MonotonicClock.now().0,
            window_ns: None,
            asked,
            host,
            panels: BTreeMap::new(),
            markers: Vec::new(),
            quality: None,
            import: None,
        }
    }
}

impl HostFacts {
    /// Of this machine, now. What cannot be read is empty or 0.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once([':', '=']));
            let value = lines
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().trim_matches('"').to_owned());
            value.unwrap_or_default()
        };
        let uname = rustix::system::uname();
        let memory = field(&text("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let load = text("/proc/loadavg");
        let mut load = load.split_whitespace().map(|n| n.parse().unwrap_or(0.0));
        Self {
            kernel: format!("{} {}", uname.release().to_string_lossy(), uname.version().to_string_lossy()),
            os: field(&text("/etc/os-release"), "PRETTY_NAME"),
            cpu: field(&text("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(0, |n| n.get().try_into().unwrap_or(u32::MAX)),
            memory_bytes: memory_kib * 1024,
            load: std::array::from_fn(|_| load.next().unwrap_or(0.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_without_the_rest_also_where_a_reason_looks_like_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        let judged = RunFacts { quality: Some(Quality::default()), ..run() };
        for reason in ["", "one\n[two]\nthree = 4\n", "\"\"\"\n[x]"] {
            let facts = RunFacts { status: RunStatus::Failed, reason: reason.into(), ..judged.clone() };
            write_run(&path, &facts).unwrap();
            assert_eq!(read_status(&path).unwrap(), RunStatus::Failed, "{reason}");
            assert_eq!(read_run(&path).unwrap(), facts, "{reason}");
        }
        fs::write(&path, "format = 9\nstatus = \"complete\"\n[table]\n").unwrap();
        assert!(matches!(read_status(&path), Err(FactsError::TooNew { found: 9, .. })));
        let text = text(&path, &judged).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(read_status(&path), Err(FactsError::Invalid { .. })), "cut off");
        fs::write(&path, "format = 1\n[table]\n").unwrap();
        assert!(matches!(read_status(&path), Err(FactsError::Invalid { .. })));
    }

    fn run() -> RunFacts {
        let mut run = RunFacts {
            format: FORMAT,
            minor: FORMAT_MINOR,
            writer: "test".into(),
            id: "r0001-p00-k0".into(),
            point: 0,
            repeat: 0,
            status: RunStatus::Complete,
            reason: String::new(),
            started: "2026-01-01T00:00:00Z".into(),
            ended: String::new(),
            started_ns: 5,
            window_ns: Some([10, 20]),
            asked: [("fps".into(), crate::spec::Level::Int(30))].into(),
            host: HostFacts::read(),
            panels: BTreeMap::new(),
            markers: vec![Marker {
                t_ns: 7,
                panel: Some(Panel::Guest),
                kind: "note".into(),
                text: "x".into(),
            }],
            quality: None,
            import: None,
        };
        let clock = ClockFacts {
            offset_ns: 1,
            drift_ppm: 0.5,
            reference_ns: 2,
            uncertainty_ns: 3,
            exchanges: 4,
            ..ClockFacts::default()
        };
        run.panels.insert("guest".into(), PanelFacts { clock: Some(clock), ..PanelFacts::default() });
        run
    }

    #[test]
    fn facts_survive_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        write_run(&path, &run()).unwrap();
        assert_eq!(read_run(&path).unwrap(), run());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_newer_minor_version_is_read_and_a_newer_major_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        write_run(&path, &RunFacts { minor: 7, ..run() }).unwrap();
        let text = format!("from_the_future = true\n{}", fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
        assert_eq!(read_run(&path).unwrap().minor, 7);
        fs::write(&path, "format = 2\nminor = 0\nnothing = \"else\"\n").unwrap();
        assert!(matches!(read_run(&path), Err(FactsError::TooNew { found: 2, .. })));
    }

    #[test]
    fn broken_facts_are_refused_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        fs::write(&path, "format = 1\nminor = \"none\"\n").unwrap();
        let error = read_run(&path).unwrap_err().to_string();
        assert!(error.contains("run.toml") && error.contains("line 2"), "{error}");
    }
}
