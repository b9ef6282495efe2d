//! QEMU's answers, as far as they are used (QEMU's `docs/interop/qemu-qmp-ref`). What is missing is 0 or empty: which
//! members there are depends on QEMU's version.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Elements of a list that are kept; a machine has fewer disks, CPUs and channels.
const MAX_ELEMENTS: usize = 256;

/// Any line: a greeting, an answer, an error, or an event.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    #[serde(rename = "QMP", default)]
    pub(super) greeting: Option<Greeting>,
    /// Which command this answers.
    #[serde(default)]
    pub(super) id: Option<u64>,
    #[serde(rename = "return", default)]
    pub(super) answer: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) error: Option<Refusal>,
    #[serde(default)]
    pub(super) event: Option<String>,
}

/// A line that is an answer, read as what was asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Answer<T> {
    #[serde(rename = "return")]
    pub(super) answer: T,
}

/// The first elements of a list.
#[derive(Debug)]
pub(super) struct Elements<T>(pub(super) Vec<T>);

impl<T> Default for Elements<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Elements<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for First<T> {
            type Value = Elements<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX_ELEMENTS {
                    let Some(element) = list.next_element()? else { return Ok(Elements(kept)) };
                    kept.push(element);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Elements(kept))
            }
        }
        deserializer.deserialize_seq(First(PhantomData))
    }
}

/// QEMU's first line.
#[derive(Debug, Deserialize)]
pub(super) struct Greeting {
    pub(super) version: Versions,
}

#[derive(Debug, Deserialize)]
pub(super) struct Versions {
    pub(super) qemu: Version,
}

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) micro: u32,
}

/// QEMU will not.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) desc: String,
}

/// `query-status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) running: bool,
    pub(super) status: String,
}

/// `query-name`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Name {
    pub(super) name: String,
}

/// `query-balloon`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Balloon {
    pub(super) actual: i64,
}

/// `query-spice`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SpiceState {
    pub(super) channels: Elements<SpiceChannel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SpiceChannel {
    #[serde(rename = "connection-id")]
    pub(super) connection_id: i64,
}

/// One of `query-cpus-fast`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Cpu {
    pub(super) cpu_index: i64,
    pub(super) thread_id: i64,
}

/// One of `query-blockstats`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Block {
    pub(super) device: String,
    #[serde(rename = "node-name")]
    pub(super) node_name: String,
    pub(super) qdev: String,
    pub(super) stats: BlockStats,
}

/// Counters of a block device since QEMU started.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BlockStats {
    pub(super) rd_bytes: i64,
    pub(super) wr_bytes: i64,
    pub(super) rd_operations: i64,
    pub(super) wr_operations: i64,
    pub(super) flush_operations: i64,
    pub(super) rd_total_time_ns: i64,
    pub(super) wr_total_time_ns: i64,
    pub(super) flush_total_time_ns: i64,
    pub(super) failed_rd_operations: i64,
    pub(super) failed_wr_operations: i64,
    pub(super) failed_flush_operations: i64,
}
