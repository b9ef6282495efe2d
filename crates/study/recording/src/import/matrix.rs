//! `matrix.csv`: which settings each `.rec` was recorded with. A line is `k=v_k=v | folder | k=v_k=v`; the file is
//! `folder/k=v_k=v.rec`, relative to `matrix.csv`. Lines with `#` are comments.

use std::path::{Component, Path, PathBuf};

use super::{Skips, shown};
use crate::spec::{Level, Levels};

/// Longest text that a level may be.
const MAX_LEVEL: usize = 256;
/// Most settings of a run.
pub(crate) const MAX_SETTINGS: usize = 256;

/// A recording that a line names.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Number of the line, from 1.
    pub line: u64,
    /// Of both its fields of settings.
    pub settings: Levels,
    /// Below the folder of `matrix.csv`.
    pub file: PathBuf,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Lines with `#`, without it.
    pub comments: Vec<String>,
    /// The recordings, in the file's order.
    pub entries: Vec<Entry>,
    /// Lines that are none.
    pub skips: Skips,
}

/// Whether a file's first bytes are those of a `matrix.csv`: its first line that is no comment has two ` | `.
pub(crate) fn looks_like(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let line = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'));
    line.is_some_and(|l| l.split(" | ").count() == 3 && l.contains('='))
}

/// Reads a file's bytes.
pub fn parse(bytes: &[u8]) -> Matrix {
    let mut matrix = Matrix::default();
    for (line, raw) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        let place = || format!("line {line}");
        let Ok(text) = std::str::from_utf8(raw) else {
            matrix.skips.add("line of matrix.csv that is not UTF-8", 1, place);
            continue;
        };
        let text = text.trim();
        if let Some(comment) = text.strip_prefix('#') {
            matrix.comments.push(shown(comment.trim()));
            continue;
        }
        if text.is_empty() {
            continue;
        }
        match entry(line, text) {
            Ok(entry) => matrix.entries.push(entry),
            Err(what) => matrix.skips.add(format!("line of matrix.csv: {what}"), 1, place),
        }
    }
    matrix
}

fn entry(line: u64, text: &str) -> Result<Entry, String> {
    let fields: Vec<_> = text.split('|').map(str::trim).collect();
    let [environment, folder, encoding] = fields[..] else {
        return Err(format!("{} fields instead of 'settings | folder | settings'", fields.len()));
    };
    let mut levels = settings(environment).ok_or("its first field is not 'k=v_k=v'")?;
    for (key, level) in settings(encoding).ok_or("its third field is not 'k=v_k=v'")? {
        if levels.get(&key).is_some_and(|other| *other != level) {
            return Err(format!("'{}' has two levels", shown(&key)));
        }
        levels.insert(key, level);
    }
    let folder = Path::new(folder);
    if !folder.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        || encoding.contains('/')
    {
        return Err("its path leads out of the folder".into());
    }
    let file = if encoding.is_empty() {
        PathBuf::from(format!("{}.rec", folder.display()))
    } else {
        folder.join(format!("{encoding}.rec"))
    };
    Ok(Entry { line, settings: levels, file })
}

/// Settings of `k=v_k=v`. `_` separates; what stands between two of them without a `=` belongs to the value before.
/// `None` where that is not what the text is.
pub(crate) fn settings(text: &str) -> Option<Levels> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for part in text.split('_').filter(|_| !text.is_empty()) {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((key, value)), _) if !key.is_empty() => pairs.push((key, value.to_owned())),
            (None, Some((_, value))) => *value = format!("{value}_{part}"),
            _ => return None,
        }
        if pairs.len() > MAX_SETTINGS {
            return None;
        }
    }
    Some(pairs.into_iter().map(|(key, value)| (key.to_owned(), level(&value))).collect())
}

/// A level from its text: a whole number, a number, `true` or `false`, else the text itself.
pub fn level(text: &str) -> Level {
    let text = text.trim();
    if let Ok(int) = text.parse::<i64>() {
        return Level::Int(int);
    }
    // "1e5", "nan" and "inf" are words of some settings.
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    match (numeric, text.parse::<f64>(), text) {
        (true, Ok(number), _) if number.is_finite() => Level::Float(number),
        (_, _, "true") => Level::Bool(true),
        (_, _, "false") => Level::Bool(false),
        _ => Level::Text(text.chars().take(MAX_LEVEL).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_settings_and_the_file_it_names() {
        let text = b"# 2020-01-07 16:39\n\nscreen=webgl-cubemap_time=40s | a_b/1920x1080 | rate=32000_mode=a_b_fps=30.5\n";
        let matrix = parse(text);
        assert_eq!(matrix.comments, ["2020-01-07 16:39"]);
        let entry = &matrix.entries[0];
        assert_eq!(entry.file, Path::new("a_b/1920x1080/rate=32000_mode=a_b_fps=30.5.rec"));
        let said: Vec<_> = entry.settings.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        assert_eq!(
            said,
            [
                "fps=Float(30.5)",
                "mode=Text(\"a_b\")",
                "rate=Int(32000)",
                "screen=Text(\"webgl-cubemap\")",
                "time=Text(\"40s\")"
            ]
        );
        assert!(matrix.skips.is_empty() && looks_like(text));
    }

    #[test]
    fn lines_that_are_none_are_counted_with_the_reason() {
        let text = b"a=1 | x\na=1 | ../x | b=2\na=1 | /x | b=2\nx | y | b=2\na=1 | x | a=2\na=1 | x | \xff\n";
        let facts = parse(text).skips.into_facts();
        let said: Vec<_> = facts.iter().map(|(what, n)| format!("{n} {what}")).collect();
        assert_eq!(
            said,
            [
                "1 line of matrix.csv that is not UTF-8 (first: line 6)",
                "1 line of matrix.csv: 'a' has two levels (first: line 5)",
                "1 line of matrix.csv: 2 fields instead of 'settings | folder | settings' (first: line 1)",
                "1 line of matrix.csv: its first field is not 'k=v_k=v' (first: line 4)",
                "2 line of matrix.csv: its path leads out of the folder (first: line 2)",
            ]
        );
    }
}
