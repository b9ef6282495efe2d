//! The two files of facts: `plan.toml` of a study and `run.toml` of a run. Readable by a person and by any TOML reader.
//!
//! Both start with `format` (major) and `minor`: a newer minor is read, a newer major refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::{Levels, Panel, SubjectSpec};

/// Major version of the study and run formats written here.
pub const FORMAT: u32 = 1;
/// Minor version written here.
pub const FORMAT_MINOR: u32 = 0;

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

/// Offset of a panel's clock, estimated over the run.
///
/// `collector = panel + offset_ns + drift_ppm · 1e-6 · (panel - reference_ns)`, true within `± uncertainty_ns`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockFacts {
    /// Collector minus panel at `reference_ns`.
    pub offset_ns: i64,
    /// Change of the offset, parts per million.
    pub drift_ppm: f64,
    /// The instant on the panel's clock that the line is anchored at.
    pub reference_ns: i64,
    /// Half-width of what the exchanges allow, constant asymmetry included.
    pub uncertainty_ns: i64,
    /// Number of exchanges behind the estimate.
    pub exchanges: u32,
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
}
