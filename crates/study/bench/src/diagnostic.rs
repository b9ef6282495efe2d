//! What is wrong with a study file, said as a compiler would: file, line, column, the line itself, what was expected
//! and the nearest thing that would have been valid.

use std::fmt;
use std::ops::Range;

/// Most characters of a line that are shown.
const MAX_SHOWN: usize = 400;

/// One fault in a study file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The thing and what is wrong with it (``field `encoders`: unknown``).
    pub message: String,
    /// What would be valid.
    pub expected: String,
    /// The nearest valid name or value.
    pub nearest: Option<String>,
    text: String,
    width: usize,
}

impl Diagnostic {
    /// A fault at the bytes `span` of `source`. A span outside the text points at its end.
    pub(crate) fn new(source: &str, span: Range<usize>, message: String, expected: String) -> Self {
        let start = floor_boundary(source, span.start);
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let text = source[line_start..].lines().next().unwrap_or("");
        let column = source[line_start..start].chars().count() + 1;
        // A line that no screen shows whole is cut behind the fault.
        let cut = text.char_indices().nth(column + MAX_SHOWN).map_or(text.len(), |(at, _)| at);
        let text = if column > MAX_SHOWN { "" } else { &text[..cut] };
        let end = floor_boundary(source, span.end.max(start));
        let marked = source[start..end].lines().next().unwrap_or("").chars().count().min(MAX_SHOWN);
        Self {
            line: before.matches('\n').count() + 1,
            column,
            message,
            expected,
            nearest: None,
            text: text.into(),
            width: marked.max(1),
        }
    }

    pub(crate) fn nearest(mut self, nearest: Option<String>) -> Self {
        self.nearest = nearest;
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        let gutter = self.line.to_string().len();
        writeln!(f, "{file}:{}:{}: error: {}", self.line, self.column, self.message)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{} | {}", self.line, self.text)?;
        // Tabs are kept so that the caret stands below its column whatever their width.
        let lead: String =
            self.text.chars().take(self.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
        writeln!(f, "{:gutter$} | {lead}{}", "", "^".repeat(self.width))?;
        write!(f, "{:gutter$} = expected: {}", "", self.expected)?;
        if let Some(nearest) = &self.nearest {
            write!(f, "\n{:gutter$} = nearest valid: {nearest}", "")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a study file, in order of appearance; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The file as the person named it.
    pub file: String,
    /// The faults.
    pub faults: Vec<Diagnostic>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            fault.write(f, &self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The candidate that resembles `word` most, where any does.
pub fn nearest_word<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&word, c).max(strsim::normalized_damerau_levenshtein(&word, c)), c))
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_shown_with_its_line_and_a_caret_below_it() {
        let source = "title = \"ä\"\n[factors]\n\tencoders = [1]\n";
        let at = source.find("encoders").unwrap();
        let fault = Diagnostic::new(source, at..at + 8, "field `encoders`: unknown".into(), "codec".into())
            .nearest(Some("encoder".into()));
        let faults = Faults { file: "studies/x.toml".into(), faults: vec![fault] };
        assert_eq!(
            faults.to_string(),
            "studies/x.toml:3:2: error: field `encoders`: unknown\n  |\n3 | \tencoders = [1]\n  | \t^^^^^^^^\n  \
             = expected: codec\n  = nearest valid: encoder"
        );
    }

    #[test]
    fn a_span_past_the_end_points_at_the_last_line() {
        let fault = Diagnostic::new("a = 1\nb", 100..200, "m".into(), "e".into());
        assert_eq!((fault.line, fault.column), (2, 2));
    }

    #[test]
    fn the_nearest_word_resembles_or_is_absent() {
        for (word, expected) in
            [("h246", Some("h264")), ("VP8", Some("vp8")), ("h.264", Some("h264")), ("zzz", None)]
        {
            assert_eq!(nearest_word(word, ["mjpeg", "h264", "vp8", "vp9"]), expected, "{word}");
        }
    }
}
