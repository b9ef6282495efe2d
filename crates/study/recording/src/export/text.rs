//! Rows as text: CSV (RFC 4180) and JSON Lines.
//!
//! Numbers are written so that reading them gives the same bits: integers in full, floats with the fewest digits that
//! are still this number. What is not a number is `NaN`, `inf`, `-inf` in CSV, and the strings `"NaN"`, `"Infinity"`,
//! `"-Infinity"` in JSON (as Protocol Buffers do), which has no numbers for them. A missing cell is empty, or `null`.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow_schema::Schema;

/// Cells of one column of a batch.
enum Cells<'a> {
    I64(&'a [i64]),
    U64(&'a [u64]),
    F64(&'a [f64]),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
    /// Of a type that no table has.
    None,
}

struct Column<'a> {
    cells: Cells<'a>,
    array: &'a dyn Array,
    nullable: bool,
}

fn cells(array: &dyn Array) -> Cells<'_> {
    if let Some(a) = array.as_primitive_opt::<Int64Type>() {
        Cells::I64(a.values())
    } else if let Some(a) = array.as_primitive_opt::<UInt64Type>() {
        Cells::U64(a.values())
    } else if let Some(a) = array.as_primitive_opt::<Float64Type>() {
        Cells::F64(a.values())
    } else if let Some(a) = array.as_boolean_opt() {
        Cells::Bool(a)
    } else if let Some(a) = array.as_string_opt::<i32>() {
        Cells::Text(a)
    } else {
        Cells::None
    }
}

fn columns(batch: &RecordBatch) -> Vec<Column<'_>> {
    batch
        .columns()
        .iter()
        .map(|a| Column { cells: cells(a.as_ref()), array: a.as_ref(), nullable: a.null_count() > 0 })
        .collect()
}

impl Column<'_> {
    fn is_missing(&self, row: usize) -> bool {
        (self.nullable && self.array.is_null(row)) || matches!(self.cells, Cells::None)
    }
}

fn flag(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

/// A field of CSV, in quotes where it must be. An empty one is in quotes, to be told from a missing one.
fn csv_text(out: &mut Vec<u8>, text: &str) {
    let plain = |c: char| !matches!(c, ',' | '"' | '\r' | '\n');
    let edge = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
    if edge(text.chars().next()) && edge(text.chars().next_back()) && text.chars().all(plain) {
        out.extend(text.bytes());
        return;
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A string of JSON.
fn json_text(out: &mut Vec<u8>, text: &str) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Turns batches into lines.
pub(super) enum Lines {
    /// CSV; the line of names comes before the first row.
    Csv,
    /// JSON Lines; the beginnings of each cell: `{"t_ns":`, `,"seq":`.
    Json(Vec<Vec<u8>>),
}

impl Lines {
    /// CSV: the first line goes into `out`.
    pub(super) fn csv(schema: &Schema, out: &mut Vec<u8>) -> Self {
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            csv_text(out, field.name());
        }
        out.push(b'\n');
        Self::Csv
    }

    /// JSON Lines.
    pub(super) fn json(schema: &Schema) -> Self {
        let key = |(i, field): (usize, &std::sync::Arc<arrow_schema::Field>)| {
            let mut key = vec![if i == 0 { b'{' } else { b',' }];
            json_text(&mut key, field.name());
            key.push(b':');
            key
        };
        Self::Json(schema.fields().iter().enumerate().map(key).collect())
    }

    /// Appends the rows of a batch.
    pub(super) fn append(&self, batch: &RecordBatch, out: &mut Vec<u8>) {
        let columns = columns(batch);
        for row in 0..batch.num_rows() {
            match self {
                Self::Csv => {
                    for (i, column) in columns.iter().enumerate() {
                        if i > 0 {
                            out.push(b',');
                        }
                        csv_cell(out, column, row);
                    }
                }
                Self::Json(keys) => {
                    for (key, column) in keys.iter().zip(&columns) {
                        out.extend(key);
                        json_cell(out, column, row);
                    }
                    out.push(b'}');
                }
            }
            out.push(b'\n');
        }
    }
}

fn csv_cell(out: &mut Vec<u8>, column: &Column<'_>, row: usize) {
    if column.is_missing(row) {
        return;
    }
    match &column.cells {
        Cells::I64(v) => out.extend(itoa::Buffer::new().format(v[row]).bytes()),
        Cells::U64(v) => out.extend(itoa::Buffer::new().format(v[row]).bytes()),
        Cells::F64(v) if v[row].is_finite() => out.extend(zmij::Buffer::new().format_finite(v[row]).bytes()),
        Cells::F64(v) if v[row].is_nan() => out.extend(b"NaN"),
        Cells::F64(v) => out.extend(if v[row] > 0.0 { b"inf".as_slice() } else { b"-inf" }),
        Cells::Bool(v) => out.extend(flag(v.value(row))),
        Cells::Text(v) => csv_text(out, v.value(row)),
        Cells::None => {}
    }
}

fn json_cell(out: &mut Vec<u8>, column: &Column<'_>, row: usize) {
    if column.is_missing(row) {
        out.extend(b"null");
        return;
    }
    match &column.cells {
        Cells::I64(v) => out.extend(itoa::Buffer::new().format(v[row]).bytes()),
        Cells::U64(v) => out.extend(itoa::Buffer::new().format(v[row]).bytes()),
        Cells::F64(v) if v[row].is_finite() => out.extend(zmij::Buffer::new().format_finite(v[row]).bytes()),
        Cells::F64(v) if v[row].is_nan() => out.extend(b"\"NaN\""),
        Cells::F64(v) => out.extend(if v[row] > 0.0 { b"\"Infinity\"".as_slice() } else { b"\"-Infinity\"" }),
        Cells::Bool(v) => out.extend(flag(v.value(row))),
        Cells::Text(v) => json_text(out, v.value(row)),
        Cells::None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float64Array, Int64Array, UInt64Array};
    use arrow_schema::{DataType, Field};
    use proptest::prelude::*;

    use super::*;

    /// A reader of RFC 4180 that shares nothing with the writer: fields, and whether each was in quotes.
    fn parse_csv(text: &str) -> Vec<Vec<(String, bool)>> {
        let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
        let mut chars = text.chars().peekable();
        let mut inside = false;
        while let Some(c) = chars.next() {
            match c {
                '"' if inside && chars.next_if_eq(&'"').is_some() => field.push('"'),
                '"' => {
                    inside = !inside;
                    quoted = true;
                }
                ',' if !inside => row.push((std::mem::take(&mut field), std::mem::take(&mut quoted))),
                '\n' if !inside => {
                    row.push((std::mem::take(&mut field), std::mem::take(&mut quoted)));
                    rows.push(std::mem::take(&mut row));
                }
                c => field.push(c),
            }
        }
        assert!(row.is_empty() && field.is_empty(), "the last line ends");
        rows
    }

    fn batch(names: &[String; 4], rows: &[(i64, u64, f64, Option<String>)]) -> RecordBatch {
        let types = [DataType::Int64, DataType::UInt64, DataType::Float64, DataType::Utf8];
        let fields: Vec<_> = names.iter().zip(types).map(|(n, t)| Field::new(n, t, true)).collect();
        let columns: Vec<arrow_array::ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2))),
            Arc::new(rows.iter().map(|r| r.3.as_deref()).collect::<StringArray>()),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn same(a: f64, b: f64) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    type Row = (i64, u64, f64, Option<String>);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let float = any::<u64>().prop_map(f64::from_bits);
        let text = proptest::option::of("[a-z,\"\\r\\n\\\\ é\u{0}-\u{1f}]{0,6}");
        proptest::collection::vec((any::<i64>(), any::<u64>(), float, text), 0..20)
    }

    proptest! {
        #[test]
        fn csv_reads_back_as_the_same_bits(names in proptest::array::uniform4("[^\\n]{0,8}"), rows in rows()) {
            let batch = batch(&names, &rows);
            let mut out = Vec::new();
            let lines = Lines::csv(&batch.schema(), &mut out);
            lines.append(&batch, &mut out);
            let read = parse_csv(std::str::from_utf8(&out).unwrap());
            prop_assert_eq!(read[0].iter().map(|f| &f.0).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
            prop_assert_eq!(read.len(), rows.len() + 1);
            for (line, row) in read[1..].iter().zip(&rows) {
                prop_assert_eq!(line[0].0.parse::<i64>().unwrap(), row.0);
                prop_assert_eq!(line[1].0.parse::<u64>().unwrap(), row.1);
                prop_assert!(same(line[2].0.parse::<f64>().unwrap(), row.2));
                let text = (line[3].1 || !line[3].0.is_empty()).then(|| line[3].0.clone());
                prop_assert_eq!(&text, &row.3);
            }
        }

        #[test]
        fn json_lines_read_back_as_the_same_bits(rows in rows()) {
            let names = ["a", "b\"", "c\\\n", "é"].map(String::from);
            let batch = batch(&names, &rows);
            let mut out = Vec::new();
            Lines::json(&batch.schema()).append(&batch, &mut out);
            let text = std::str::from_utf8(&out).unwrap();
            prop_assert_eq!(text.lines().count(), rows.len());
            for (line, row) in text.lines().zip(&rows) {
                let read: serde_json::Value = serde_json::from_str(line).unwrap();
                prop_assert_eq!(read[&names[0]].as_i64().unwrap(), row.0);
                prop_assert_eq!(read[&names[1]].as_u64().unwrap(), row.1);
                let number = match &read[&names[2]] {
                    serde_json::Value::String(s) => s.to_lowercase().parse().unwrap(),
                    // serde_json's own reading of floats is off by a bit at times; the text is what counts.
                    _ => {
                        let key = format!("{}:", serde_json::to_string(&names[2]).unwrap());
                        let rest = &line[line.find(&key).unwrap() + key.len()..];
                        rest[..rest.find(',').unwrap()].parse::<f64>().unwrap()
                    }
                };
                prop_assert!(same(number, row.2));
                prop_assert_eq!(read[&names[3]].as_str().map(String::from), row.3.clone());
            }
        }
    }

    #[test]
    fn extremes_are_written_in_full() {
        let names = ["i", "u", "f", "t"].map(String::from);
        let rows = [
            (i64::MIN, u64::MAX, f64::MIN_POSITIVE, None),
            (i64::MAX, 0, f64::NAN, Some(String::new())),
            (0, 1, f64::NEG_INFINITY, Some(" a".into())),
            (-1, 2, -0.0, Some("x,\"y\"".into())),
        ];
        let batch = batch(&names, &rows);
        let (mut csv, mut json) = (Vec::new(), Vec::new());
        Lines::csv(&batch.schema(), &mut csv).append(&batch, &mut csv);
        Lines::json(&batch.schema()).append(&batch, &mut json);
        assert_eq!(
            String::from_utf8(csv).unwrap(),
            "i,u,f,t\n-9223372036854775808,18446744073709551615,2.2250738585072014e-308,\n\
             9223372036854775807,0,NaN,\"\"\n0,1,-inf,\" a\"\n-1,2,-0.0,\"x,\"\"y\"\"\"\n"
        );
        let json = String::from_utf8(json).unwrap();
        assert!(json.starts_with(
            "{\"i\":-9223372036854775808,\"u\":18446744073709551615,\"f\":2.2250738585072014e-308,\"t\":null}\n"
        ));
        assert!(json.contains("\"f\":\"NaN\"") && json.contains("\"f\":\"-Infinity\""), "{json}");
    }
}
