//! In-program instrumentation: a program declares tables once, then emits rows of plain numbers.
//!
//! The hot path takes no lock, makes no system call and allocates nothing: a row goes into a ring of the emitter's
//! own (one producer, one consumer); when the ring is full the row is counted as lost, never waited for.
//!
//! The rings of [`Probe::new`] are in the program's memory, and a thread of the program drains them (the crate
//! `agent`). Those of [`Probe::shared`] are files in memory that the agent of the machine reads ([`reader`]); they
//! outlive the program. C programs have the same through `include/triptych_probe.h`.
//!
//! Knows no study and no system; where rows go is not its business.

mod folder;
mod layout;
mod mapped;
pub mod reader;
mod ring;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use folder::{FOLDER_VARIABLE, default_folder, folder, readers_folder};
pub use layout::RingFacts;
use mapped::Mapped;
use ring::{Producer, Ring};
pub use schema::{Column, ColumnType, MAX_COLUMNS, MAX_NAME, Table, TableError, Value};
use units::Nanos;

/// Default number of rows a ring holds: at 60 frames/s more than two minutes without a drain.
pub const DEFAULT_CAPACITY: usize = 8_192;

/// The registry of one program's tables. Cheap to clone; clones share the tables.
#[derive(Clone, Default)]
pub struct Probe {
    registry: Option<Arc<Registry>>,
}

#[derive(Default)]
struct Registry {
    rings: Mutex<Vec<Arc<Ring>>>,
    shared: Option<Shared>,
}

/// Where rings that others read are made, and in whose name.
struct Shared {
    dir: std::path::PathBuf,
    program: String,
    version: String,
}

impl Probe {
    /// A probe whose rows wait in memory to be drained.
    pub fn new() -> Self {
        Self { registry: Some(Arc::default()) }
    }

    /// A probe that throws every row away: what a program uses when nobody records.
    pub fn disabled() -> Self {
        Self { registry: None }
    }

    /// A probe whose rings the machine's agent reads, in the folder that it has made ([`folder`]); disabled when there
    /// is none, which means that nobody records, or when this user may not write there.
    pub fn shared(program: &str, version: &str) -> Self {
        let writable = |dir: &PathBuf| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
        folder().filter(writable).map_or_else(Self::disabled, |dir| Self::shared_in(&dir, program, version))
    }

    /// As [`Probe::shared`], in a folder of the caller's choice.
    pub fn shared_in(dir: &Path, program: &str, version: &str) -> Self {
        let shared =
            Shared { dir: dir.to_owned(), program: folder::file_name(program), version: version.to_owned() };
        Self { registry: Some(Arc::new(Registry { rings: Mutex::default(), shared: Some(shared) })) }
    }

    /// Declares a table and gives the one emitter that writes to it; `capacity` is in rows, and rounded up to a power
    /// of two.
    ///
    /// # Errors
    /// The table's names are not valid or are doubled, see [`Table::check`]; or its file cannot be made.
    pub fn declare(&self, table: Table, capacity: usize) -> Result<Emitter, TableError> {
        table.check()?;
        let Some(registry) = &self.registry else { return Ok(Emitter::disabled()) };
        let mut rings = registry.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if rings.iter().any(|r| r.table().name == table.name) {
            return Err(TableError::Doubled(table.name));
        }
        let ring = match &registry.shared {
            None => Ring::new(table, capacity),
            Some(shared) => shared.ring(table, capacity)?,
        };
        let ring = Arc::new(ring);
        rings.push(Arc::clone(&ring));
        Ok(Emitter { ring: Some(ring), producer: Producer::default() })
    }

    /// The reading side within the program. Take one: two drains of one probe would share out the rows between them.
    /// Gives nothing for a shared probe, which has its reader elsewhere.
    pub fn drain(&self) -> Drain {
        Drain { registry: self.registry.clone().filter(|r| r.shared.is_none()) }
    }
}

impl Shared {
    fn ring(&self, table: Table, capacity: usize) -> Result<Ring, TableError> {
        let capacity = capacity.clamp(1, layout::MAX_CAPACITY as usize).next_power_of_two() as u32;
        let facts = RingFacts {
            program: self.program.clone(),
            version: self.version.clone(),
            pid: std::process::id(),
            table,
            capacity,
        };
        let mapped = Mapped::create(&self.dir, &facts)
            .map_err(|error| TableError::File(facts.table.name.clone(), error.to_string()))?;
        Ok(Ring::mapped(facts.table, capacity, mapped))
    }
}

/// The writing side of one table: one per table, used by one thread at a time.
pub struct Emitter {
    ring: Option<Arc<Ring>>,
    producer: Producer,
}

impl Emitter {
    /// An emitter that throws everything away.
    pub fn disabled() -> Self {
        Self { ring: None, producer: Producer::default() }
    }

    /// Writes one row: the instant on this machine's monotonic clock, then one value per declared column, in order.
    ///
    /// A full ring counts the row as lost.
    ///
    /// # Panics
    /// The number or types of values are not the declared ones (debug builds only; in release builds a wrong type is
    /// recorded bit for bit and missing values are zero).
    #[inline]
    pub fn emit(&mut self, at: Nanos, values: &[Value]) {
        if let Some(ring) = &self.ring {
            ring.push(&mut self.producer, at, values);
        }
    }
}

/// The reading side of a [`Probe`] within the program.
pub struct Drain {
    registry: Option<Arc<Registry>>,
}

/// What one table had to give in one call of [`Drain::poll`].
pub struct Batch<'a> {
    /// Position of the table in order of declaration; stable.
    pub index: usize,
    /// The declaration.
    pub table: &'a Table,
    /// Row-major words; each row is the instant in nanoseconds (as `i64` bits) and then the columns' bits.
    /// Its length is a multiple of `table.columns.len() + 1`.
    pub words: &'a [u64],
    /// Rows lost since the program started because the ring was full.
    pub lost: u64,
}

impl Drain {
    /// Hands over every table (also those without new rows, so that a table is known as soon as it is declared).
    pub fn poll(&mut self, mut each: impl FnMut(Batch<'_>)) {
        let Some(registry) = &self.registry else { return };
        let rings: Vec<_> = registry.rings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut words = Vec::new();
        for (index, ring) in rings.iter().enumerate() {
            words.clear();
            ring.pop_into(&mut words);
            each(Batch { index, table: ring.table(), words: &words, lost: ring.lost() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Table {
        Table::new(name, "a test").column("size", ColumnType::U64, "B", "size").column(
            "rate",
            ColumnType::F64,
            "Hz",
            "rate",
        )
    }

    #[test]
    fn rows_come_out_in_order_with_their_values() {
        let probe = Probe::new();
        let mut e = probe.declare(table("frames"), 16).unwrap();
        for i in 0..5 {
            e.emit(Nanos(i), &[Value::U64(i as u64 * 10), Value::F64(0.5)]);
        }
        let mut seen = Vec::new();
        probe.drain().poll(|b| seen.extend_from_slice(b.words));
        assert_eq!(seen.len(), 15);
        assert_eq!(seen[12..], [4, 40, 0.5f64.to_bits()]);
    }

    #[test]
    fn a_full_ring_counts_what_it_loses_and_keeps_what_it_has() {
        let probe = Probe::new();
        let mut e = probe.declare(table("frames"), 4).unwrap();
        for i in 0..10 {
            e.emit(Nanos(i), &[Value::U64(0), Value::F64(0.0)]);
        }
        let (mut rows, mut lost) = (0, 0);
        probe.drain().poll(|b| (rows, lost) = (b.words.len() / 3, b.lost));
        assert_eq!((rows, lost), (4, 6));
    }

    #[test]
    fn a_disabled_probe_takes_rows_and_gives_none() {
        let probe = Probe::disabled();
        probe.declare(table("frames"), 4).unwrap().emit(Nanos(1), &[]);
        probe.drain().poll(|_| panic!("a disabled probe has no table"));
    }

    #[test]
    fn doubled_and_invalid_tables_are_refused() {
        let probe = Probe::new();
        let _keep = probe.declare(table("frames"), 4).unwrap();
        assert!(matches!(probe.declare(table("frames"), 4), Err(TableError::Doubled(_))));
        assert!(probe.declare(table("no/slash"), 4).is_err());
        assert!(probe.declare(table("x").column("size", ColumnType::I64, "", ""), 4).is_err());
    }

    #[test]
    fn two_threads_pass_every_row_without_tearing() {
        let probe = Probe::new();
        let mut e = probe.declare(table("frames"), 64).unwrap();
        let total = 200_000u64;
        let producer = std::thread::spawn(move || {
            for i in 0..total {
                e.emit(Nanos(i as i64), &[Value::U64(i), Value::F64(i as f64)]);
            }
        });
        let mut drain = probe.drain();
        let (mut rows, mut lost, mut last) = (0u64, 0, -1i64);
        loop {
            let over = producer.is_finished();
            drain.poll(|b| {
                for row in b.words.chunks_exact(3) {
                    let at = row[0] as i64;
                    assert!(at > last);
                    assert_eq!((row[1], f64::from_bits(row[2])), (at as u64, at as f64));
                    last = at;
                    rows += 1;
                }
                lost = b.lost;
            });
            if over {
                break;
            }
        }
        producer.join().unwrap();
        assert_eq!(rows + lost, total);
        assert!(rows > 0);
    }
}
