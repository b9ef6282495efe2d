//! The bytes of a ring's file, which `include/triptych_probe.h` writes as well. See `docs/formats/probe.md`.
//!
//! Everything is in the machine's own byte order: writer and reader are on the same machine.

use crate::schema::{Column, ColumnType, MAX_COLUMNS, Table};

/// First bytes of the file.
pub(crate) const MAGIC: [u8; 8] = *b"TRIPRING";
/// Version of this layout; a reader takes no other.
pub(crate) const VERSION: u32 = 1;
/// Word (of 64 bits) that counts the rows written.
pub(crate) const HEAD: usize = 64;
/// Word that counts the rows lost; on the cache line of the writer.
pub(crate) const LOST: usize = 65;
/// Word that counts the rows read; on the cache line of the reader.
pub(crate) const TAIL: usize = 72;
/// Word with the complement of [`TAIL`]: a pair that does not agree was read half-way through a change.
pub(crate) const TAIL_CHECK: usize = 73;
/// Word that is not zero once a reader has found the ring.
pub(crate) const ATTACHED: usize = 74;
/// Byte at which the columns begin.
pub(crate) const COLUMNS: usize = 640;
/// Bytes of one column.
pub(crate) const COLUMN: usize = 256;
/// Bytes up to the columns.
pub(crate) const FIXED: usize = COLUMNS;
/// Most rows of a ring.
pub(crate) const MAX_CAPACITY: u32 = 1 << 24;

const COLUMN_COUNT: usize = 16;
const CAPACITY: usize = 20;
const PID: usize = 24;
const PROGRAM: (usize, usize) = (64, 64);
const PROGRAM_VERSION: (usize, usize) = (128, 64);
const TABLE: (usize, usize) = (192, 64);
const DESCRIPTION: (usize, usize) = (256, 256);
const NAME: (usize, usize) = (0, 64);
const TYPE: usize = 64;
const UNIT: (usize, usize) = (72, 24);
const MEANING: (usize, usize) = (96, 160);

/// What a ring's file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingFacts {
    /// Name of the program that writes.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The table.
    pub table: Table,
    /// Rows that fit.
    pub capacity: u32,
}

/// Bytes before the rows: a multiple of a cache line.
pub(crate) const fn header_len(columns: usize) -> usize {
    COLUMNS + columns * COLUMN
}

/// Bytes of the whole file.
pub(crate) const fn file_len(columns: usize, capacity: u32) -> u64 {
    header_len(columns) as u64 + capacity as u64 * (columns as u64 + 1) * 8
}

fn put(bytes: &mut [u8], (at, len): (usize, usize), text: &str) {
    let mut end = text.len().min(len - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes[at..at + end].copy_from_slice(&text.as_bytes()[..end]);
}

fn get(bytes: &[u8], (at, len): (usize, usize)) -> String {
    let field = bytes.get(at..at + len).unwrap_or_default();
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let text = String::from_utf8_lossy(&field[..end]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The header with its columns; counters are zero, and so is their complement's start (the reader of none).
pub(crate) fn encode(facts: &RingFacts) -> Vec<u8> {
    let columns = &facts.table.columns;
    let mut bytes = vec![0; header_len(columns.len())];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_ne_bytes());
    bytes[12..16].copy_from_slice(&(header_len(columns.len()) as u32).to_ne_bytes());
    bytes[COLUMN_COUNT..][..4].copy_from_slice(&(columns.len() as u32).to_ne_bytes());
    bytes[CAPACITY..][..4].copy_from_slice(&facts.capacity.to_ne_bytes());
    bytes[PID..][..4].copy_from_slice(&facts.pid.to_ne_bytes());
    put(&mut bytes, PROGRAM, &facts.program);
    put(&mut bytes, PROGRAM_VERSION, &facts.version);
    put(&mut bytes, TABLE, &facts.table.name);
    put(&mut bytes, DESCRIPTION, &facts.table.description);
    bytes[TAIL_CHECK * 8..][..8].copy_from_slice(&u64::MAX.to_ne_bytes());
    for (i, column) in columns.iter().enumerate() {
        let field = &mut bytes[COLUMNS + i * COLUMN..][..COLUMN];
        put(field, NAME, &column.name);
        field[TYPE] = match column.column_type {
            ColumnType::I64 => 1,
            ColumnType::U64 => 2,
            ColumnType::F64 => 3,
            ColumnType::Bool => 4,
        };
        put(field, UNIT, &column.unit);
        put(field, MEANING, &column.description);
    }
    bytes
}

/// Reads a header of a file of `file_size` bytes; `bytes` holds at least the fixed part, and the columns if it can.
///
/// # Errors
/// What is wrong with it. Nothing in it is believed unchecked: another program wrote it.
pub(crate) fn decode(bytes: &[u8], file_size: u64) -> Result<RingFacts, String> {
    if bytes.len() < FIXED || bytes[..8] != MAGIC {
        return Err("it is no ring of a probe".into());
    }
    let version = number(bytes, 8);
    if version != VERSION {
        return Err(format!(
            "it has layout {version}, expected {VERSION}: program and agent have different versions"
        ));
    }
    let (columns, capacity) = (number(bytes, COLUMN_COUNT) as usize, number(bytes, CAPACITY));
    if columns > MAX_COLUMNS || number(bytes, 12) as usize != header_len(columns) {
        return Err(format!("{columns} columns: at most {MAX_COLUMNS} are allowed"));
    }
    if !capacity.is_power_of_two() || capacity > MAX_CAPACITY {
        return Err(format!("{capacity} rows: a power of two up to {MAX_CAPACITY} is allowed"));
    }
    if file_size < file_len(columns, capacity) {
        return Err(format!("{file_size} bytes: {} were announced", file_len(columns, capacity)));
    }
    let mut table = Table::new(get(bytes, TABLE), get(bytes, DESCRIPTION));
    for i in 0..columns {
        let field = bytes
            .get(COLUMNS + i * COLUMN..)
            .and_then(|b| b.get(..COLUMN))
            .ok_or("its columns are cut off")?;
        let column_type = match field[TYPE] {
            1 => ColumnType::I64,
            2 => ColumnType::U64,
            3 => ColumnType::F64,
            4 => ColumnType::Bool,
            other => return Err(format!("column {i} has the unknown type {other}")),
        };
        let (name, unit, description) = (get(field, NAME), get(field, UNIT), get(field, MEANING));
        table.columns.push(Column { name, column_type, unit, description });
    }
    table.check().map_err(|error| error.to_string())?;
    let (program, version) = (get(bytes, PROGRAM), get(bytes, PROGRAM_VERSION));
    Ok(RingFacts { program, version, pid: number(bytes, PID), table, capacity })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> RingFacts {
        let table = Table::new("frames", "what a frame took")
            .column("encode_ns", ColumnType::I64, "ns", "from frame to access unit")
            .column("keyframe", ColumnType::Bool, "", "does it stand alone");
        RingFacts { program: "encoder".into(), version: "1.2".into(), pid: 77, table, capacity: 64 }
    }

    #[test]
    fn a_header_comes_back() {
        let bytes = encode(&facts());
        assert_eq!(decode(&bytes, file_len(2, 64)).unwrap(), facts());
    }

    #[test]
    fn what_is_wrong_with_a_header_is_told() {
        let good = encode(&facts());
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            decode(&bytes, file_len(2, 64)).unwrap_err()
        };
        for (at, value, expected) in [
            (0, &b"X"[..], "no ring"),
            (8, &9u32.to_ne_bytes(), "layout 9, expected 1"),
            (COLUMN_COUNT, &100_000u32.to_ne_bytes(), "100000 columns"),
            (CAPACITY, &63u32.to_ne_bytes(), "63 rows"),
            (CAPACITY, &u32::MAX.to_ne_bytes(), "rows: a power of two"),
            (CAPACITY, &(1u32 << 20).to_ne_bytes(), "were announced"),
            (TABLE.0, &b"../../x"[..], "is not a name"),
            (COLUMNS + TYPE, &[9][..], "column 0 has the unknown type 9"),
        ] {
            let error = with(at, value);
            assert!(error.contains(expected), "{error}");
        }
        assert!(decode(&good[..FIXED + 10], file_len(2, 64)).unwrap_err().contains("cut off"));
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500), size in any::<u64>()) {
            let _ = decode(&bytes, size);
            let mut begun = encode(&facts());
            let end = bytes.len().min(begun.len() - 16);
            begun[16..16 + end].copy_from_slice(&bytes[..end]);
            let _ = decode(&begun, size);
        }
    }
}
