//! What an agent has still to send: kept in memory up to a limit, and in a file, so that an agent that is killed and
//! started again sends what it had kept.
//!
//! The file is a log: a header, declared tables, entries. It is written without being synced (a killed process loses
//! nothing of it, a machine that crashes may), and begun anew as soon as everything in it has been acknowledged or most
//! of it is of no more use.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use probe::Table;
use recording::wire::{Message, encode_rows};

/// First bytes of the file; the last one is its version.
const MAGIC: &[u8; 8] = b"TRIPOUT\x01";
/// Most bytes of a file that is read back: nobody keeps more.
const MAX_FILE: u64 = 4 << 30;
/// Bytes of dead entries at which the file is begun anew.
const SLACK: u64 = 4 << 20;

const TABLE: u8 = 1;
const ENTRY: u8 = 2;
/// Everything below this number has been acknowledged.
const ACKNOWLEDGED: u8 = 3;
/// Everything belongs to the record of this name.
const RECORD: u8 = 4;
/// A ring's file, the position up to which its rows are in the entries, and the entry that ends there, if it is not
/// elsewhere. In one, so that both are there or neither.
const RING: u8 = 5;

/// See the module.
pub(crate) struct Outbox {
    session: u64,
    tables: Vec<Table>,
    entries: VecDeque<Vec<u8>>,
    /// Number of the first entry.
    first: u64,
    held: usize,
    limit: usize,
    lost: BTreeMap<String, u64>,
    lost_told: u64,
    /// The record that the entries belong to; empty before there is one.
    record: String,
    /// How far each ring was read into the entries, by file.
    rings: BTreeMap<PathBuf, u64>,
    file: Option<Log>,
}

struct Log {
    path: PathBuf,
    file: File,
    /// Held by one agent at a time.
    lock: File,
    /// Bytes in the file.
    len: u64,
    /// What is to be written next.
    waiting: Vec<u8>,
}

/// What was found in the file of an agent that was killed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Entries that were not acknowledged.
    pub(crate) entries: usize,
    /// Bytes at its end that were torn.
    pub(crate) torn: usize,
}

impl Outbox {
    /// In memory only, with room for `limit` bytes.
    pub(crate) fn new(session: u64, limit: usize) -> Self {
        Self {
            session,
            tables: Vec::new(),
            entries: VecDeque::new(),
            first: 0,
            held: 0,
            limit,
            lost: BTreeMap::new(),
            lost_told: 0,
            record: String::new(),
            rings: BTreeMap::new(),
            file: None,
        }
    }

    /// With a file, and what an agent before left in it.
    pub(crate) fn open(path: &Path, session: u64, limit: usize) -> io::Result<(Self, Restored)> {
        let lock =
            File::options().write(true).create(true).truncate(false).open(path.with_extension("lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        let (mut outbox, mut restored) = (Self::new(session, limit), Restored::default());
        match File::open(path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(MAX_FILE).read_to_end(&mut bytes)?;
                restored = outbox.restore(&bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        outbox.file = Some(outbox.fresh_log(path, lock)?);
        Ok((outbox, restored))
    }

    fn restore(&mut self, bytes: &[u8]) -> Restored {
        let torn = |left: &[u8]| Restored { entries: 0, torn: left.len() };
        let Some((head, mut rest)) = bytes.split_first_chunk::<24>().filter(|(h, _)| h.starts_with(MAGIC))
        else {
            return torn(bytes);
        };
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        (self.session, self.first) = (word(8), word(16));
        while let Some((kind, body, after)) = record(rest) {
            match kind {
                TABLE => match serde_json::from_slice(body) {
                    Ok(table) => self.tables.push(table),
                    Err(_) => break,
                },
                ENTRY => {
                    self.held += body.len();
                    self.entries.push_back(body.to_vec());
                }
                ACKNOWLEDGED => match body.first_chunk::<8>() {
                    Some(next) => self.forget(u64::from_le_bytes(*next)),
                    None => break,
                },
                RING => match ring_of(body) {
                    Some((position, path, entry)) => {
                        self.rings.insert(path.to_owned(), position);
                        if !entry.is_empty() {
                            self.held += entry.len();
                            self.entries.push_back(entry.to_vec());
                        }
                    }
                    None => break,
                },
                RECORD => self.record = String::from_utf8_lossy(body).into_owned(),
                _ => break,
            }
            rest = after;
        }
        Restored { entries: self.entries.len(), torn: rest.len() }
    }

    fn fresh_log(&self, path: &Path, lock: File) -> io::Result<Log> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.session.to_le_bytes());
        bytes.extend(self.first.to_le_bytes());
        put_record(&mut bytes, RECORD, self.record.as_bytes());
        for (path, position) in &self.rings {
            put_record(&mut bytes, RING, &ring_body(path, *position, &[]));
        }
        for table in &self.tables {
            put_record(&mut bytes, TABLE, &serde_json::to_vec(table).unwrap_or_default());
        }
        for entry in &self.entries {
            put_record(&mut bytes, ENTRY, entry);
        }
        // Under another name first: at every instant there is one whole file.
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        fs::rename(&temporary, path)?;
        Ok(Log { path: path.to_owned(), file, lock, len: bytes.len() as u64, waiting: Vec::new() })
    }

    /// Adds to what goes into the file with the next [`Outbox::flush`].
    fn log(&mut self, kind: u8, body: &[u8]) {
        if let Some(log) = &mut self.file {
            put_record(&mut log.waiting, kind, body);
        }
    }

    /// Writes to the file what has come since the last time. When that fails (a full disk), the entries are kept in
    /// memory only from then on.
    pub(crate) fn flush(&mut self) {
        let Some(log) = self.file.as_mut().filter(|log| !log.waiting.is_empty()) else { return };
        if let Err(error) = log.file.write_all(&log.waiting) {
            tracing::warn!("{}: {error}: what waits to be sent is kept in memory only", log.path.display());
            self.file = None;
            return;
        }
        log.len += log.waiting.len() as u64;
        log.waiting.clear();
    }

    /// Keeps rows of a ring, which end at this position of it, as [`Outbox::rows`] does. Both go into the file together, so
    /// that a killed agent neither loses a row nor sends it twice.
    pub(crate) fn ring_rows(&mut self, index: u16, words: &[u64], path: &Path, position: u64) {
        match self.rings.get_mut(path) {
            Some(known) => *known = position,
            None => drop(self.rings.insert(path.to_owned(), position)),
        }
        let entry = self.encoded(index, words).unwrap_or_default();
        self.log(RING, &ring_body(path, position, &entry));
        if !entry.is_empty() {
            self.held += entry.len();
            self.entries.push_back(entry);
        }
    }

    /// How far a ring was read, as far as an agent before this one could write it down.
    pub(crate) fn ring_position(&self, path: &Path) -> Option<u64> {
        self.rings.get(path).copied()
    }

    /// A ring is gone.
    pub(crate) fn ring_gone(&mut self, path: &Path) {
        self.rings.remove(path);
    }

    /// The record that what waits belongs to.
    pub(crate) fn record(&self) -> &str {
        &self.record
    }

    /// From now on everything is for the record of this name, which goes on with entry `next`: what waits for another
    /// one is nobody's any more. Gives the number of entries that were given up.
    pub(crate) fn welcome(&mut self, record: &str, next: u64) -> u64 {
        if record == self.record && next <= self.next() {
            return 0;
        }
        // More than this agent knows to have sent: its file was torn, by a crash of the machine.
        let same = record == self.record;
        let given_up = if same { 0 } else { next.min(self.next()).saturating_sub(self.first) };
        self.forget(next);
        self.record = record.to_owned();
        self.log(RECORD, record.as_bytes());
        self.log(ACKNOWLEDGED, &self.first.to_le_bytes());
        given_up
    }

    /// The count's number, see [`recording::wire::Hello::session`].
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// Number of the oldest entry.
    pub(crate) fn oldest(&self) -> u64 {
        self.first
    }

    /// Number of the next entry.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Tables in order of their index.
    pub(crate) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Index of a table, declared if it is new. `None` when there are too many.
    pub(crate) fn table(&mut self, table: &Table) -> Option<u16> {
        if let Some(index) = self.tables.iter().position(|t| t == table) {
            return index.try_into().ok();
        }
        if self.tables.len() >= recording::wire::MAX_TABLES
            || self.tables.iter().any(|t| t.name == table.name)
        {
            return None;
        }
        self.tables.push(table.clone());
        self.log(TABLE, &serde_json::to_vec(table).unwrap_or_default());
        (self.tables.len() - 1).try_into().ok()
    }

    /// Keeps rows of a table, or counts them as lost when there is no more room. Row-major words.
    pub(crate) fn rows(&mut self, index: u16, words: &[u64]) {
        if let Some(bytes) = self.encoded(index, words) {
            self.push(bytes);
        }
    }

    /// `None`, and counted as lost, when there is no more room.
    fn encoded(&mut self, index: u16, words: &[u64]) -> Option<Vec<u8>> {
        let bytes = encode_rows(index, words);
        if self.held + bytes.len() <= self.limit {
            return Some(bytes);
        }
        if let Some(table) = self.tables.get(usize::from(index)) {
            let rows = words.len() / (table.columns.len() + 1);
            let name = table.name.clone();
            self.more_lost(&name, rows as u64);
        }
        None
    }

    /// Keeps a message; these are few.
    pub(crate) fn message(&mut self, message: &Message) {
        debug_assert!(message.is_entry());
        self.push(message.encode());
    }

    /// Rows lost elsewhere, since the start.
    pub(crate) fn lost(&mut self, table: &str, rows: u64) {
        let known = self.lost.entry(table.to_owned()).or_default();
        *known = (*known).max(rows);
    }

    /// Further rows that are lost here.
    pub(crate) fn more_lost(&mut self, table: &str, rows: u64) {
        *self.lost.entry(table.to_owned()).or_default() += rows;
    }

    /// Tells of lost rows when there are more of them.
    pub(crate) fn tell_lost(&mut self) {
        let total: u64 = self.lost.values().sum();
        if total > self.lost_told {
            self.lost_told = total;
            let lost = self.lost.clone();
            self.message(&Message::Lost { lost });
        }
    }

    fn push(&mut self, bytes: Vec<u8>) {
        self.log(ENTRY, &bytes);
        self.held += bytes.len();
        self.entries.push_back(bytes);
    }

    /// Entries from number `from` on, up to about `max` bytes: how many, and their bytes.
    pub(crate) fn take(&self, from: u64, max: usize) -> (u64, Vec<u8>) {
        let (mut count, mut bytes) = (0, Vec::new());
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for entry in self.entries.iter().skip(skip) {
            if count > 0 && bytes.len() + entry.len() > max {
                break;
            }
            bytes.extend_from_slice(entry);
            count += 1;
        }
        (count, bytes)
    }

    /// Everything below `next` is on the collector's disk.
    pub(crate) fn acknowledge(&mut self, next: u64) {
        let next = next.min(self.next());
        if next > self.first {
            self.forget(next);
            self.log(ACKNOWLEDGED, &self.first.to_le_bytes());
            self.tidy();
        }
    }

    fn forget(&mut self, next: u64) {
        while self.first < next {
            let Some(entry) = self.entries.pop_front() else { break };
            self.held -= entry.len();
            self.first += 1;
        }
        self.first = self.first.max(next);
    }

    /// Forgets everything that waits: nobody records any more.
    pub(crate) fn clear(&mut self) {
        self.acknowledge(self.next());
    }

    /// The record has ended in order: what comes belongs to none.
    pub(crate) fn end_record(&mut self) {
        self.record.clear();
        self.log(RECORD, b"");
    }

    /// What one record lost is none of the next one's losses.
    pub(crate) fn forget_losses(&mut self) {
        self.lost.clear();
        self.lost_told = 0;
    }

    /// True when nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn tidy(&mut self) {
        let Some(log) = &self.file else { return };
        let dead = log.len.saturating_sub(self.held as u64);
        if dead > SLACK.max(2 * self.held as u64) || (self.entries.is_empty() && dead > SLACK / 16) {
            let path = log.path.clone();
            match log.lock.try_clone().and_then(|lock| self.fresh_log(&path, lock)) {
                Ok(log) => self.file = Some(log),
                Err(error) => {
                    tracing::warn!(
                        "{}: {error}: what waits to be sent is kept in memory only",
                        path.display()
                    );
                    self.file = None;
                }
            }
        }
    }

    /// Removes the file: nothing is to be sent again.
    pub(crate) fn remove_file(&mut self) {
        if let Some(log) = self.file.take() {
            let _ = fs::remove_file(&log.path);
            let _ = fs::remove_file(log.path.with_extension("lock"));
        }
    }
}

fn ring_body(path: &Path, position: u64, entry: &[u8]) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    [&position.to_le_bytes()[..], &(path.len() as u32).to_le_bytes(), path, entry].concat()
}

fn ring_of(body: &[u8]) -> Option<(u64, &Path, &[u8])> {
    let (position, rest) = body.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (path, entry) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((u64::from_le_bytes(*position), Path::new(std::ffi::OsStr::from_bytes(path)), entry))
}

/// Length, checksum, kind, body.
fn put_record(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(checksum(kind, body).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(body);
}

/// The first record of `bytes`, and what follows; `None` when it is torn.
fn record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let (body, after) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    (checksum(*kind, body) == u64::from_le_bytes(*sum)).then_some((*kind, body, after))
}

/// FNV-1a over whole words and the rest, with 64 bits: torn writes are to be seen, not attacks.
fn checksum(kind: u8, body: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let start = 0xcbf2_9ce4_8422_2325 ^ u64::from(kind);
    let (words, rest) = body.as_chunks::<8>();
    let hash =
        words.iter().fold(start, |h, w| (h ^ u64::from_le_bytes(*w)).wrapping_mul(PRIME).rotate_left(5));
    rest.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(PRIME)) ^ body.len() as u64
}

#[cfg(test)]
mod tests {
    use probe::ColumnType;
    use proptest::prelude::*;

    use super::*;

    fn table(name: &str) -> Table {
        Table::new(name, "a test").column("x", ColumnType::U64, "1", "a number")
    }

    fn decoded(bytes: &[u8]) -> Vec<Message> {
        let mut decoder = recording::wire::Decoder::new();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.next_message().unwrap()).collect()
    }

    /// Nothing is dropped in order; the system gives the lock free.
    fn killed(outbox: Outbox) {
        outbox.file.as_ref().unwrap().lock.unlock().unwrap();
        std::mem::forget(outbox);
    }

    fn rows(n: u64) -> Message {
        Message::Rows { index: 0, words: vec![n, n * 2] }
    }

    #[test]
    fn entries_stay_until_they_are_acknowledged() {
        let mut outbox = Outbox::new(7, 1 << 20);
        assert_eq!(outbox.table(&table("a")), Some(0));
        (0..5).for_each(|n| outbox.rows(0, &[n, n * 2]));
        let (count, bytes) = outbox.take(0, usize::MAX);
        assert_eq!((count, decoded(&bytes)), (5, (0..5).map(rows).collect()));
        outbox.acknowledge(3);
        assert_eq!((outbox.oldest(), outbox.next()), (3, 5));
        assert_eq!(decoded(&outbox.take(4, usize::MAX).1), [rows(4)]);
        outbox.acknowledge(99);
        assert_eq!((outbox.oldest(), outbox.next(), outbox.held), (5, 5, 0));
    }

    #[test]
    fn beyond_the_limit_rows_are_counted_as_lost_and_told_once() {
        let mut outbox = Outbox::new(7, 100);
        outbox.table(&table("a"));
        (0..10).for_each(|n| outbox.rows(0, &[n, n]));
        let kept = outbox.next();
        assert!((1..10).contains(&kept));
        outbox.tell_lost();
        outbox.tell_lost();
        let told = decoded(&outbox.take(kept, usize::MAX).1);
        assert_eq!(told, [Message::Lost { lost: [("a".to_owned(), 10 - kept)].into() }]);
    }

    #[test]
    fn a_killed_agent_finds_what_it_had_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let (mut outbox, restored) = Outbox::open(&path, 7, 1 << 20).unwrap();
        assert_eq!(restored, Restored::default());
        outbox.table(&table("a"));
        (0..10).for_each(|n| outbox.rows(0, &[n, n * 2]));
        outbox.acknowledge(4);
        outbox.flush();
        killed(outbox);
        let (again, restored) = Outbox::open(&path, 8, 1 << 20).unwrap();
        assert_eq!((again.session(), again.oldest(), again.next()), (7, 4, 10));
        assert_eq!(restored, Restored { entries: 6, torn: 0 });
        assert_eq!(again.tables(), [table("a")]);
        assert_eq!(decoded(&again.take(0, usize::MAX).1), (4..10).map(rows).collect::<Vec<_>>());
    }

    #[test]
    fn what_waits_for_one_record_does_not_go_into_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let (mut outbox, _) = Outbox::open(&path, 7, 1 << 20).unwrap();
        outbox.welcome("first", 0);
        outbox.table(&table("a"));
        (0..3).for_each(|n| outbox.rows(0, &[n, n]));
        outbox.flush();
        killed(outbox);
        let (mut again, _) = Outbox::open(&path, 8, 1 << 20).unwrap();
        assert_eq!((again.welcome("first", 1), again.oldest()), (0, 0), "the same record goes on");
        assert_eq!((again.welcome("second", 3), again.oldest(), again.next()), (3, 3, 3));
        assert_eq!(again.record(), "second");
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let (mut outbox, _) = Outbox::open(&path, 7, 1 << 30).unwrap();
        outbox.table(&table("a"));
        let words: Vec<u64> = (0..2000).collect();
        for _ in 0..2000 {
            outbox.rows(0, &words);
            outbox.flush();
            outbox.acknowledge(outbox.next());
        }
        assert!(fs::metadata(&path).unwrap().len() < 1 << 20, "32 MB went through it");
    }

    proptest! {
        #[test]
        fn a_file_torn_anywhere_gives_back_all_entries_before(cut in 0usize..100, count in 1u64..20) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("outbox");
            let (mut outbox, _) = Outbox::open(&path, 7, 1 << 20).unwrap();
            outbox.table(&table("a"));
            (0..count).for_each(|n| outbox.rows(0, &[n, n * 2]));
            outbox.flush();
            killed(outbox);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..whole.len() * cut / 100]).unwrap();
            let (again, _) = Outbox::open(&path, 8, 1 << 20).unwrap();
            let found = decoded(&again.take(0, usize::MAX).1);
            prop_assert!(found.len() < count as usize || cut == 100);
            prop_assert_eq!(&found, &(0..found.len() as u64).map(rows).collect::<Vec<_>>());
        }
    }
}
