//! A table on its way from a file of others into a record: columns that grow, rows without a value, names.

use probe::{ColumnType, MAX_NAME, Table};

use super::Skips;
use super::scan::{Cell, EXACT, Number, POWERS, Scanner};
use crate::cells::Column;
use crate::spec::Panel;

/// A whole table of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedTable {
    /// The panel that it belongs to.
    pub panel: Panel,
    /// Name and columns.
    pub table: Table,
    /// Instant of each row, nanoseconds.
    pub t_ns: Vec<i64>,
    /// Cells, in the order of the table's columns; each as long as `t_ns`.
    pub columns: Vec<Column>,
}

impl ImportedTable {
    /// `<panel>.<table>`.
    pub fn stem(&self) -> String {
        format!("{}.{}", self.panel, self.table.name)
    }

    /// A column by name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.table.columns.iter().position(|c| c.name == name).and_then(|i| self.columns.get(i))
    }
}

/// How the numbers of a source's column become cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A signed integer: the number times `10^power`, rounded (seconds to nanoseconds: 9).
    Scaled(i32),
    /// A whole number that is not negative, times a factor (kB to bytes: 1024).
    Count(u64),
    /// A double.
    Float,
    /// 0 or 1, `false` or `true`.
    Flag,
    /// Integers until the first number that is none, then doubles.
    Auto,
}

impl Kind {
    /// Type of a column that has only such cells; of [`Kind::Auto`] before its first cell.
    fn empty(self) -> Column {
        match self {
            Self::Scaled(_) | Self::Auto => Column::I64(Vec::new()),
            Self::Count(_) => Column::U64(Vec::new()),
            Self::Float => Column::F64(Vec::new()),
            Self::Flag => Column::Bool(Vec::new()),
        }
    }
}

/// Why a cell has no value.
pub(crate) const NULL: &str = "without a value";
const TEXT: &str = "text where a number belongs";
const NESTED: &str = "a list or object where a number belongs";
const NOT_FINITE: &str = "not finite (NaN or infinite)";
const TOO_LARGE: &str = "too large for 64 bits";
const NOT_WHOLE: &str = "not a whole number, or negative";
const NOT_FLAG: &str = "neither 0 nor 1";
const NOT_NUMBER: &str = "true or false where a number belongs";

/// A column under construction.
#[derive(Debug)]
pub(crate) struct Growing {
    kind: Kind,
    pub(crate) cells: Column,
    /// Rows whose cell here has no value, and why the first of each reason.
    bad: Vec<(u32, &'static str)>,
}

impl Growing {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, cells: kind.empty(), bad: Vec::new() }
    }

    /// Makes room for about so many cells.
    pub(crate) fn reserve(&mut self, rows: usize) {
        match &mut self.cells {
            Column::I64(v) => v.reserve(rows),
            Column::U64(v) => v.reserve(rows),
            Column::F64(v) => v.reserve(rows),
            Column::Bool(v) => v.reserve(rows),
        }
    }

    /// Adds the next value of the scanner; false where there is none.
    #[inline(always)]
    pub(crate) fn take(&mut self, scanner: &mut Scanner<'_>) -> bool {
        let start = scanner.at;
        if let Some((mantissa, fraction)) = scanner.plain() {
            if self.plain(mantissa, fraction) {
                return true;
            }
            scanner.at = start;
        }
        self.any(scanner)
    }

    /// As [`Growing::take`], for what is no plain number or does not fit its column.
    #[inline(never)]
    fn any(&mut self, scanner: &mut Scanner<'_>) -> bool {
        let cell = scanner.cell();
        cell.is_some_and(|cell| {
            self.push(cell);
            true
        })
    }

    /// Adds `mantissa / 10^fraction` where that is exact and of the column's type; else adds nothing.
    #[inline(always)]
    fn plain(&mut self, mantissa: u64, fraction: usize) -> bool {
        let Ok(signed) = i64::try_from(mantissa) else { return false };
        match (self.kind, &mut self.cells) {
            (Kind::Scaled(power), Column::I64(v)) => {
                let factor = usize::try_from(power).ok().and_then(|p| POWERS.get(p.checked_sub(fraction)?));
                let Some(scaled) = factor.and_then(|f| signed.checked_mul(i64::try_from(*f).ok()?)) else {
                    return false;
                };
                v.push(scaled);
            }
            (Kind::Count(factor), Column::U64(v)) if fraction == 0 => match mantissa.checked_mul(factor) {
                Some(count) => v.push(count),
                None => return false,
            },
            (Kind::Float, Column::F64(v)) if mantissa <= 1 << 53 && fraction < EXACT.len() => {
                v.push(mantissa as f64 / EXACT[fraction]);
            }
            (Kind::Flag, Column::Bool(v)) if fraction == 0 && mantissa <= 1 => v.push(mantissa == 1),
            (Kind::Auto, Column::I64(v)) if fraction == 0 => v.push(signed),
            _ => return false,
        }
        true
    }

    /// Adds a cell to the end.
    #[inline]
    pub(crate) fn push(&mut self, cell: Cell<'_>) {
        if let Cell::Number(n) = cell {
            if let Err(why) = self.number(n) {
                self.push_bad(why);
            }
            return;
        }
        let why = match (cell, &mut self.cells) {
            (Cell::Bool(b), Column::Bool(v)) => return v.push(b),
            (Cell::Bool(_) | Cell::Number(_), _) => NOT_NUMBER,
            (Cell::Null, _) => NULL,
            (Cell::NotFinite, _) => NOT_FINITE,
            (Cell::Text, _) => TEXT,
            (Cell::Nested, _) => NESTED,
        };
        self.push_bad(why);
    }

    #[inline]
    fn number(&mut self, n: Number<'_>) -> Result<(), &'static str> {
        match (self.kind, &mut self.cells) {
            (Kind::Scaled(power), Column::I64(v)) => v.push(n.scaled(power).ok_or(TOO_LARGE)?),
            (Kind::Count(factor), Column::U64(v)) => {
                let whole = n.integer().and_then(|i| u64::try_from(i).ok()).ok_or(NOT_WHOLE)?;
                v.push(whole.checked_mul(factor).ok_or(TOO_LARGE)?);
            }
            (Kind::Flag, Column::Bool(v)) => match n.integer() {
                Some(flag @ (0 | 1)) => v.push(flag == 1),
                _ => return Err(NOT_FLAG),
            },
            (Kind::Auto, Column::I64(v)) => match n.integer().filter(|_| !n.is_fractional()) {
                Some(i) => v.push(i),
                None => {
                    let value = finite(n)?;
                    let mut doubles: Vec<f64> = v.iter().map(|i| *i as f64).collect();
                    doubles.push(value);
                    self.cells = Column::F64(doubles);
                }
            },
            (_, Column::F64(v)) => v.push(finite(n)?),
            (kind, _) => unreachable!("the cells of {kind:?} have one type"),
        }
        Ok(())
    }

    #[cold]
    pub(crate) fn push_bad(&mut self, why: &'static str) {
        self.bad.push((u32::try_from(self.cells.len()).unwrap_or(u32::MAX), why));
        match &mut self.cells {
            Column::I64(v) => v.push(0),
            Column::U64(v) => v.push(0),
            Column::F64(v) => v.push(0.0),
            Column::Bool(v) => v.push(false),
        }
    }

    /// Takes back what goes beyond `rows`.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.cells {
            Column::I64(v) => v.truncate(rows),
            Column::U64(v) => v.truncate(rows),
            Column::F64(v) => v.truncate(rows),
            Column::Bool(v) => v.truncate(rows),
        }
        while self.bad.last().is_some_and(|(row, _)| *row as usize >= rows) {
            self.bad.pop();
        }
    }
}

fn finite(n: Number<'_>) -> Result<f64, &'static str> {
    Some(n.to_f64()).filter(|x| x.is_finite()).ok_or(TOO_LARGE)
}

/// The column type of finished cells.
pub(crate) fn column_type(cells: &Column) -> ColumnType {
    match cells {
        Column::I64(_) => ColumnType::I64,
        Column::U64(_) => ColumnType::U64,
        Column::F64(_) => ColumnType::F64,
        Column::Bool(_) => ColumnType::Bool,
    }
}

/// Ends a table: tables have no empty cells, so a column without a value in more than half of the rows is left out, and
/// so is each row that lacks a value in another. `t` is the column of instants, which cannot be left out: then there is
/// no table. The order of rows stays that of the file, also where their instants go back: frames are matched by it.
pub(crate) fn finish(
    panel: Panel,
    mut table: Table,
    t: Growing,
    mut columns: Vec<Growing>,
    place: &str,
    skips: &mut Skips,
) -> Option<ImportedTable> {
    let rows = t.cells.len();
    let stem = format!("{panel}.{}", table.name);
    let mut left_out = vec![false; columns.len()];
    for (column, out) in columns.iter().zip(&mut left_out) {
        *out = column.bad.len() * 2 > rows;
    }
    for ((column, spec), _) in columns.iter().zip(&table.columns).zip(&left_out).filter(|(_, out)| **out) {
        let why = column.bad.first().map_or(NULL, |(_, why)| why);
        skips.add(format!("{stem}: column {} in most rows {why}: left out", spec.name), 1, || place.into());
    }
    let mut keep = left_out.iter();
    table.columns.retain(|_| !*keep.next().unwrap_or(&false));
    let mut keep = left_out.iter();
    columns.retain(|_| !*keep.next().unwrap_or(&false));

    let mut gone =
        vec![false; if t.bad.is_empty() && columns.iter().all(|c| c.bad.is_empty()) { 0 } else { rows }];
    let named =
        std::iter::once(("t_ns", &t)).chain(table.columns.iter().map(|c| c.name.as_str()).zip(&columns));
    for (name, column) in named {
        for (row, why) in &column.bad {
            let row = *row as usize;
            if !std::mem::replace(&mut gone[row], true) {
                skips.add(format!("{stem}: row, {name} {why}"), 1, || format!("{place}, row {}", row + 1));
            }
        }
    }
    let mut t_ns = match t.cells {
        Column::I64(v) => v,
        _ => return None,
    };
    let mut columns: Vec<Column> = columns.into_iter().map(|c| c.cells).collect();
    if !gone.is_empty() {
        retain(&mut t_ns, &gone);
        columns.iter_mut().for_each(|column| match column {
            Column::I64(v) => retain(v, &gone),
            Column::U64(v) => retain(v, &gone),
            Column::F64(v) => retain(v, &gone),
            Column::Bool(v) => retain(v, &gone),
        });
    }
    if t_ns.is_empty() {
        skips.add("table without rows", 1, || format!("{stem}, {place}"));
        return None;
    }
    if let Some(first) = t_ns.windows(2).position(|w| w[1] < w[0]) {
        let back = t_ns.windows(2).filter(|w| w[1] < w[0]).count() as u64;
        skips.add(
            format!("{stem}: instant earlier than the row before (kept, in the file's order)"),
            back,
            || format!("{place}, row {}", first + 2),
        );
    }
    for (spec, column) in table.columns.iter_mut().zip(&columns) {
        spec.column_type = column_type(column);
    }
    Some(ImportedTable { panel, table, t_ns, columns })
}

fn retain<T>(cells: &mut Vec<T>, gone: &[bool]) {
    let mut gone = gone.iter();
    cells.retain(|_| !gone.next().is_some_and(|g| *g));
}

/// What a table or column may be called: lower case, and `_` for what is no letter, digit or `-`.
pub(crate) fn name(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = c.to_ascii_lowercase();
        let c = if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        if out.len() < MAX_NAME && !(c == '_' && (out.is_empty() || out.ends_with('_'))) {
            out.push(c);
        }
    }
    let out = out.trim_end_matches('_');
    if out.is_empty() { "unnamed".into() } else { out.into() }
}

/// A name that none of `taken` has: with a number after it where need be.
pub(crate) fn free_name(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    let wanted = name(wanted);
    if !taken(&wanted) && wanted != crate::cells::T_NS {
        return wanted;
    }
    let stem: String = wanted.chars().take(MAX_NAME - 8).collect();
    (2u32..).map(|n| format!("{stem}_{n}")).find(|n| !taken(n)).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_fit_for_files_and_columns() {
        for (text, expected) in [
            ("guest-pid", "guest-pid"),
            ("CPU (user) [%]", "cpu_user"),
            ("größe", "gr_e"),
            ("../../etc", "etc"),
            ("", "unnamed"),
            ("\u{202e}", "unnamed"),
        ] {
            assert_eq!(name(text), expected, "{text}");
        }
        assert!(name(&"x".repeat(1_000)).len() <= MAX_NAME);
        assert_eq!(free_name("a", |n| n == "a" || n == "a_2"), "a_3");
        assert_eq!(free_name("t_ns", |_| false), "t_ns_2");
    }
}
