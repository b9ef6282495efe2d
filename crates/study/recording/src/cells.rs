//! A column of a table as plain vectors.

/// Name of the first column of every table.
pub const T_NS: &str = "t_ns";

/// One column's cells.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Signed integers.
    I64(Vec<i64>),
    /// Unsigned integers.
    U64(Vec<u64>),
    /// Numbers.
    F64(Vec<f64>),
    /// Flags.
    Bool(Vec<bool>),
}

impl Column {
    /// Rows.
    pub fn len(&self) -> usize {
        match self {
            Self::I64(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// Without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cells as numbers; flags are 0 and 1.
    pub fn numbers(&self) -> Vec<f64> {
        match self {
            Self::I64(v) => v.iter().map(|x| *x as f64).collect(),
            Self::U64(v) => v.iter().map(|x| *x as f64).collect(),
            Self::F64(v) => v.clone(),
            Self::Bool(v) => v.iter().map(|x| f64::from(u8::from(*x))).collect(),
        }
    }
}
