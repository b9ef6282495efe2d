//! The vocabulary of a study that the disk, the engine and the views share: panels, factors, levels, responses.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Panel {
    /// The virtual machine, or the program that stands for it.
    Guest,
    /// The machine that runs the VM and forwards its stream.
    Host,
    /// The machine in front of the person.
    Client,
}

impl Panel {
    /// All panels, in the order in which data flows.
    pub const ALL: [Self; 3] = [Self::Guest, Self::Host, Self::Client];

    /// `guest`, `host` or `client`; also the prefix of the panel's files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
            Self::Client => "client",
        }
    }
}

/// Not a panel.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is no panel: write guest, host or client")]
pub struct PanelError(String);

impl FromStr for Panel {
    type Err = PanelError;

    fn from_str(text: &str) -> Result<Self, PanelError> {
        let found = Self::ALL.into_iter().find(|panel| panel.name() == text);
        found.ok_or_else(|| PanelError(text.to_owned()))
    }
}

impl fmt::Display for Panel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value of a factor or setting. In TOML and JSON it is the plain value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Level {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A word.
    Text(String),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => v.fmt(f),
            Self::Int(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
            Self::Text(v) => f.write_str(v),
        }
    }
}

impl Level {
    /// The level as a number, where it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

/// One level per factor.
pub type Levels = BTreeMap<String, Level>;

/// The values a factor may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Domain {
    /// Any of these words.
    Enum {
        /// The words, in order of presentation.
        values: Vec<String>,
    },
    /// Whole numbers from `min` to `max`, both included.
    Int {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Numbers from `min` to `max`, both included.
    Float {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// `true` or `false`.
    Bool,
    /// Free text, checked by the subject.
    Text,
}

/// A setting that a study may vary (or fix).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    /// Name in study files.
    pub name: String,
    /// Unit symbol, empty where there is none.
    pub unit: String,
    /// One sentence.
    pub description: String,
    /// Allowed values.
    pub domain: Domain,
    /// Value when a study does not name it.
    pub default: Level,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Smaller values are better (latency, CPU).
    Lower,
    /// Larger values are better (frame rate).
    Higher,
    /// Neither.
    Neutral,
}

/// How one number is made of a column's samples inside the recorded window of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Arithmetic mean.
    Mean,
    /// Median.
    P50,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Sum.
    Sum,
    /// Sum divided by the window in seconds.
    SumPerSecond,
    /// Number of rows (or of rows that are true, for a flag) divided by the window in seconds. Of the time between two rows
    /// that an end of the window cuts, the part inside counts.
    CountPerSecond,
    /// Number of rows (or of rows that are true, for a flag).
    Count,
    /// The rate of a counter: its growth divided by the time in seconds, from one end of the window to the other (between
    /// two rows on a straight line), or from the first row to the last where none lies outside.
    Rate,
}

/// A number that every run of a study gives: an indicator and a statistic over it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Name, unique in the study (`latency_p95`).
    pub name: String,
    /// What a person reads (`latency p95`).
    pub label: String,
    /// Table: `guest.frames`, or a join's name for joined frames (`frames`).
    pub table: String,
    /// Column of the table; with [`Statistic::CountPerSecond`] or `Count` of all rows, any column (`t_ns`).
    pub column: String,
    /// What is done with the samples.
    pub statistic: Statistic,
    /// The result is multiplied by this to get into `unit` (1e-6 for ns into ms).
    pub scale: f64,
    /// Unit of the result.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
}

/// How rows of several panels that tell of the same thing find each other, and what follows from the match.
///
/// Rows are matched in order; `key` (for video: the size in bytes) must agree, which also finds where the sequences
/// start relative to each other and what is missing in one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// Name of the joined table (`frames`).
    pub name: String,
    /// The joined tables in order of flow, as (panel, table).
    pub parts: Vec<(Panel, String)>,
    /// Column that must agree between partners; present in each part.
    pub key: String,
    /// Further column that must agree between neighbours where both have it (`mm_time_ms` of host and client).
    pub also: Vec<String>,
    /// Differences of instants across panels, in nanoseconds on the collector's clock.
    pub spans: Vec<Span>,
}

/// A duration between two instants, each a nanosecond column of a part on that part's own clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Name of the resulting column (`latency_ns`).
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Start, as (panel, column).
    pub from: (Panel, String),
    /// End, as (panel, column).
    pub to: (Panel, String),
}

/// What a subject takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubjectSpec {
    /// Name in study files (`streaming`).
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Settings it takes.
    pub factors: Vec<Factor>,
    /// Responses it gives unless the study asks for others; the order is that of tables.
    pub responses: Vec<Response>,
    /// Joins across panels.
    pub joins: Vec<Join>,
}
