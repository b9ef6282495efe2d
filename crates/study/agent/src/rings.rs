//! Rings of programs on this machine that speak for themselves: found, read, and taken away once their program has
//! ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use probe::Table;
use probe::reader::{ReaderError, RingFolder, RingReader};
use units::{Clock, MonotonicClock, Nanos};

use recording::wire::{Message, Ready};

use crate::outbox::Outbox;

/// How often the folder is looked at for new rings, and rings for their program's end.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Time between two reads of rings that fill slowly, and of those that are full before that.
const READ_EVERY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(2));
/// What is due within this time is done when the thread is awake for something else: to be woken costs more.
const SLACK: Duration = Duration::from_millis(100);
/// Most rings at a time.
const MAX_RINGS: usize = 256;

/// See the module.
pub(crate) struct Rings {
    folder: RingFolder,
    open: Vec<Ring>,
    /// Files that are no rings, so that each is told of once.
    refused: BTreeSet<PathBuf>,
    next_look: Instant,
    next_read: Instant,
    read_every: Duration,
}

struct Ring {
    reader: RingReader,
    /// As it is named in the record.
    table: Table,
    /// Rows that were lost before the record began.
    lost_before: u64,
}

impl Rings {
    /// Makes the folder where it is missing, and takes it.
    pub(crate) fn open(dir: &Path) -> Result<Self, ReaderError> {
        let (folder, now) = (RingFolder::open(dir)?, Instant::now());
        let (open, refused) = (Vec::new(), BTreeSet::new());
        Ok(Self { folder, open, refused, next_look: now, next_read: now, read_every: READ_EVERY.0 })
    }

    /// A record begins: what was lost before is not its loss.
    pub(crate) fn begin(&mut self, outbox: &mut Outbox) {
        for ring in &mut self.open {
            ring.lost_before = ring.reader.lost().unwrap_or(0);
            outbox.message(&ring.introduction());
        }
    }

    /// When it wants to be asked.
    pub(crate) fn due(&self) -> Instant {
        if self.open.is_empty() { self.next_look } else { self.next_read.min(self.next_look) }
    }

    /// Moves waiting rows into the outbox.
    pub(crate) fn collect(&mut self, outbox: &mut Outbox) {
        let now = Instant::now();
        if now + SLACK >= self.next_look {
            self.look(outbox);
            self.next_look = now + LOOK_EVERY;
        } else if now + SLACK.min(self.read_every / 2) >= self.next_read && !self.open.is_empty() {
            self.read(outbox);
        }
    }

    /// Finds new rings, reads all, and takes those away whose program has ended.
    pub(crate) fn look(&mut self, outbox: &mut Outbox) {
        self.find(outbox);
        // Asked before the last look at the rows: what a program wrote before its end is not missed.
        let ended: Vec<bool> = self.open.iter().map(|r| r.reader.abandoned().unwrap_or(false)).collect();
        self.read(outbox);
        let mut ended = ended.into_iter();
        for ring in std::mem::take(&mut self.open) {
            if ended.next() == Some(true) {
                outbox.ring_gone(ring.reader.path());
                mark(outbox, "probe_ended", &ring.name());
                ring.reader.remove();
            } else {
                self.open.push(ring);
            }
        }
    }

    fn find(&mut self, outbox: &mut Outbox) {
        let paths = match self.folder.rings() {
            Ok(paths) => paths,
            Err(error) => return tracing::debug!("{}: {error}", self.folder.dir().display()),
        };
        self.refused.retain(|path| paths.contains(path));
        for path in paths {
            let known = self.refused.contains(&path) || self.open.iter().any(|r| r.reader.path() == path);
            if known || self.open.len() >= MAX_RINGS {
                continue;
            }
            match self.take(&path, outbox) {
                Ok(ring) => {
                    outbox.message(&ring.introduction());
                    mark(outbox, "probe_found", &ring.name());
                    self.open.push(ring);
                }
                Err(error) => {
                    tracing::warn!("a ring is left out: {error}");
                    self.refused.insert(path);
                }
            }
        }
    }

    fn take(&self, path: &Path, outbox: &Outbox) -> Result<Ring, ReaderError> {
        let mut reader = RingReader::open(path)?;
        if let Some(position) = outbox.ring_position(path) {
            reader.skip_to(position)?;
        }
        let facts = reader.facts();
        let mut table = facts.table.clone();
        // What an earlier program with other columns was called is taken, too: it is in the record, or waits for it.
        let other = |known: &Table, name: &str| {
            known.name == name && (&known.columns, &known.description) != (&table.columns, &table.description)
        };
        let name = name_in_record(&facts.program, &table.name, |name| {
            self.open.iter().any(|ring| ring.table.name == name)
                || outbox.tables().iter().any(|known| other(known, name))
        });
        table.name = name;
        Ok(Ring { reader, table, lost_before: 0 })
    }

    fn read(&mut self, outbox: &mut Outbox) {
        let mut fullest = 0.0f64;
        let mut broken = Vec::new();
        for (at, ring) in self.open.iter_mut().enumerate() {
            match ring.read(outbox) {
                Ok(filled) => fullest = fullest.max(filled),
                Err(error) => broken.push((at, error)),
            }
        }
        for (at, error) in broken.into_iter().rev() {
            let ring = self.open.remove(at);
            tracing::warn!("a ring is left out from now on: {error}");
            mark(outbox, "probe_broken", &format!("{}: {error}", ring.name()));
            self.refused.insert(ring.reader.path().to_owned());
        }
        outbox.tell_lost();
        // So often that the fullest ring is a quarter full each time.
        let wanted =
            if fullest > 0.0 { self.read_every.mul_f64((0.25 / fullest).min(4.0)) } else { READ_EVERY.0 };
        self.read_every = wanted.clamp(READ_EVERY.1, READ_EVERY.0);
        self.next_read = Instant::now() + self.read_every;
    }
}

impl Ring {
    /// Reads what waits; gives how full the ring was, 0 to 1.
    fn read(&mut self, outbox: &mut Outbox) -> Result<f64, ReaderError> {
        let path = self.reader.path().to_owned();
        let table = &self.table;
        let rows = self.reader.read(|words, position| {
            match outbox.table(table) {
                Some(index) => outbox.ring_rows(index, words, &path, position),
                None => outbox.more_lost(&table.name, (words.len() / (table.columns.len() + 1)) as u64),
            }
            // Before the program may write over them.
            outbox.flush();
        })?;
        let lost = self.reader.lost()?.saturating_sub(self.lost_before);
        if lost > 0 {
            outbox.lost(&self.table.name, lost);
        }
        Ok(rows as f64 / f64::from(self.reader.facts().capacity))
    }

    fn name(&self) -> String {
        let facts = self.reader.facts();
        format!("{} of {} (pid {})", self.table.name, facts.program, facts.pid)
    }

    /// Whose table it is, as a fact of the record.
    fn introduction(&self) -> Message {
        let facts = self.reader.facts();
        let whose = format!("{} {} (pid {})", facts.program, facts.version, facts.pid);
        let facts = BTreeMap::from([(format!("probe.{}", self.table.name), whose)]);
        Message::Ready(Ready { facts, ..Ready::default() })
    }
}

fn mark(outbox: &mut Outbox, kind: &str, text: &str) {
    let Nanos(t_ns) = MonotonicClock.now();
    outbox.message(&Message::Marker { t_ns, kind: kind.into(), text: text.into() });
}

/// Tables of our own programs keep their names while these are free, those of others begin with the program's; a second
/// process of the same program gets a number.
fn name_in_record(program: &str, table: &str, taken: impl Fn(&str) -> bool) -> String {
    if program.starts_with("triptych-") && !taken(table) {
        return table.to_owned();
    }
    // Programs are called what they like; names of tables become names of files.
    let part = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut name: String = program.chars().map(part).chain(['-']).chain(table.chars()).collect();
    name.truncate(probe::MAX_NAME - 4);
    let numbered = |n: usize| if n == 1 { name.clone() } else { format!("{name}-{n}") };
    (1..=MAX_RINGS).map(numbered).find(|n| !taken(n)).unwrap_or(name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_several_programs_keep_apart() {
        let taken = |name: &str| ["frames", "encoder-frames"].contains(&name);
        for (program, table, expected) in [
            ("triptych-guest", "traffic", "traffic"),
            ("triptych-guest", "frames", "triptych-guest-frames"),
            ("encoder", "frames", "encoder-frames-2"),
            ("other", "frames", "other-frames"),
            ("Größe 2.0", "frames", "gr--e-2-0-frames"),
        ] {
            let name = name_in_record(program, table, taken);
            assert_eq!(name, expected);
            Table::new(name, "").check().unwrap();
        }
    }

    #[test]
    fn a_long_name_is_cut_and_still_numbered() {
        let name = name_in_record(&"ü".repeat(200), "frames", |name| !name.ends_with("-3"));
        assert!(name.len() <= probe::MAX_NAME && name.ends_with("-3"), "{name}");
    }
}
