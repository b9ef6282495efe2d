//! What a table is: a name, and columns with type, unit and meaning. Every cell is one 64-bit word.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Columns at most in one table; a wider one is a mistake or an attack.
pub const MAX_COLUMNS: usize = 256;
/// Longest name of a table or column, in bytes.
pub const MAX_NAME: usize = 64;

/// The type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Signed integer; also instants and durations in nanoseconds.
    I64,
    /// Unsigned integer.
    U64,
    /// IEEE 754 double.
    F64,
    /// 0 or 1.
    Bool,
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// See [`ColumnType::I64`].
    I64(i64),
    /// See [`ColumnType::U64`].
    U64(u64),
    /// See [`ColumnType::F64`].
    F64(f64),
    /// See [`ColumnType::Bool`].
    Bool(bool),
}

impl Value {
    /// The cell's type.
    pub fn column_type(self) -> ColumnType {
        match self {
            Self::I64(_) => ColumnType::I64,
            Self::U64(_) => ColumnType::U64,
            Self::F64(_) => ColumnType::F64,
            Self::Bool(_) => ColumnType::Bool,
        }
    }

    /// The cell's 64 bits.
    pub fn to_bits(self) -> u64 {
        match self {
            Self::I64(v) => v as u64,
            Self::U64(v) => v,
            Self::F64(v) => v.to_bits(),
            Self::Bool(v) => v.into(),
        }
    }

    /// The inverse of [`Value::to_bits`].
    pub fn from_bits(column_type: ColumnType, bits: u64) -> Self {
        match column_type {
            ColumnType::I64 => Self::I64(bits as i64),
            ColumnType::U64 => Self::U64(bits),
            ColumnType::F64 => Self::F64(f64::from_bits(bits)),
            ColumnType::Bool => Self::Bool(bits != 0),
        }
    }
}

/// A column: an indicator that each row of its table gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Lower-case letters, digits and `_`, unit last where there is one (`encode_ns`).
    pub name: String,
    /// Type of the cells.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Unit symbol: `ns`, `B`, `Hz`, `%`, `1` for a plain count, empty for a flag or an identifier.
    pub unit: String,
    /// One sentence: what it is and from when to when.
    pub description: String,
}

/// A table of indicators that are stamped together. The instant of a row is implicit and always first (`t_ns`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Lower-case letters, digits, `_` and `-`; unique in its panel.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// The columns after `t_ns`.
    pub columns: Vec<Column>,
}

impl Table {
    /// A table without columns yet.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self { name: name.into(), description: description.into(), columns: Vec::new() }
    }

    /// Adds a column.
    #[must_use]
    pub fn column(mut self, name: &str, column_type: ColumnType, unit: &str, description: &str) -> Self {
        self.columns.push(Column {
            name: name.into(),
            column_type,
            unit: unit.into(),
            description: description.into(),
        });
        self
    }

    /// Checks names, number and uniqueness of columns; names become file names and column names on disk.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), TableError> {
        let valid = |s: &str| {
            !s.is_empty()
                && s.len() <= MAX_NAME
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        };
        if !valid(&self.name) {
            return Err(TableError::Name(self.name.clone()));
        }
        if self.columns.len() > MAX_COLUMNS {
            return Err(TableError::TooWide(self.name.clone(), self.columns.len()));
        }
        for (i, c) in self.columns.iter().enumerate() {
            if !valid(&c.name) || c.name == "t_ns" {
                return Err(TableError::Name(c.name.clone()));
            }
            if self.columns[..i].iter().any(|d| d.name == c.name) {
                return Err(TableError::Doubled(c.name.clone()));
            }
        }
        Ok(())
    }
}

/// Why a table cannot be declared.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// A name that would not make a file or column name.
    #[error("'{0}' is not a name: use 1 to {MAX_NAME} of a-z, 0-9, '_' and '-' (and not 't_ns')")]
    Name(String),
    /// The name is taken.
    #[error("'{0}' is declared twice")]
    Doubled(String),
    /// Too many columns.
    #[error("table '{0}' has {1} columns, more than {MAX_COLUMNS}")]
    TooWide(String, usize),
    /// Its ring's file cannot be made.
    #[error("the ring of table '{0}' cannot be made: {1}")]
    File(String, String),
}
