//! Progress on stderr: a bar on a terminal, a line per run elsewhere.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use bench::{Left, Progress, RunEnd};
use indicatif::{ProgressBar, ProgressStyle};
use recording::facts::{PlannedRun, RunStatus, StudyFacts};
use recording::spec::{Factor, Levels};

/// See the module.
#[derive(Default)]
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    factors: Vec<Factor>,
    varied: Vec<String>,
    varied_now: String,
    runs: usize,
    ended: usize,
}

impl Progress for Bar {
    fn study_started(&mut self, dir: &Path, study: &StudyFacts, done: usize) {
        self.factors.clone_from(&study.subject.factors);
        self.varied.clone_from(&study.varied);
        (self.runs, self.ended) = (study.runs.len(), done);
        let head =
            format!("{}  {} points × {} runs, randomised", study.name, study.points.len(), study.repeats);
        eprintln!("{head} (seed {}) → {}", study.seed, dir.display());
        if done > 0 {
            eprintln!("{done} of {} runs are done already", self.runs);
        }
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(self.runs as u64).with_position(done as u64);
            let style = ProgressStyle::with_template("{prefix}  {bar:16}  {pos}/{len}  {wide_msg}");
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_prefix(head);
            self.bar = Some(bar);
        }
    }

    fn run_started(&mut self, _run: &PlannedRun, levels: &Levels) {
        let now = self.describe(levels);
        if let Some(bar) = &self.bar {
            bar.set_message(format!("now: {now}"));
        } else {
            eprintln!("[{}/{}] {now} …", self.ended + 1, self.runs);
        }
        self.varied_now = now;
    }

    fn tick(&mut self, left: Left) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}   now: {}", remaining(left), self.varied_now));
        }
    }

    fn run_ended(&mut self, end: &RunEnd, left: Left) {
        self.ended += 1;
        let what = match end.status {
            RunStatus::Complete if end.reason.is_empty() => None,
            RunStatus::Complete => Some(format!("{}: no summary: {}", end.run.id, end.reason)),
            RunStatus::Interrupted => Some(format!("{} interrupted", end.run.id)),
            RunStatus::Failed | RunStatus::Running => Some(format!("{} failed: {}", end.run.id, end.reason)),
        };
        let reasons: Vec<_> =
            end.summary.iter().flat_map(|s| &s.facts.quality).flat_map(store::reasons).collect();
        let what = match (what, reasons.is_empty()) {
            (what, true) => what,
            (None, false) => Some(format!("{} done, but disturbed: {}", end.run.id, reasons.join("; "))),
            (Some(what), false) => Some(format!("{what}; disturbed: {}", reasons.join("; "))),
        };
        match (&self.bar, what) {
            (Some(bar), what) => {
                if let Some(what) = what {
                    bar.println(what);
                }
                bar.inc(1);
                if self.ended == self.runs || end.status == RunStatus::Interrupted {
                    bar.finish_and_clear();
                }
            }
            (None, what) => {
                let what = what.unwrap_or_else(|| format!("{} done", end.run.id));
                eprintln!("[{}/{}] {what}; {}", self.ended, self.runs, remaining(left));
            }
        }
    }
}

impl Bar {
    /// `h264, 30 fps, 4 Mbit/s`.
    fn describe(&self, levels: &Levels) -> String {
        let said: Vec<_> = self
            .varied
            .iter()
            .filter_map(|name| {
                let unit = self.factors.iter().find(|f| f.name == *name).map_or("", |f| &f.unit);
                let level = levels.get(name)?;
                Some(if unit.is_empty() { level.to_string() } else { format!("{level} {unit}") })
            })
            .collect();
        if said.is_empty() { "the one point".into() } else { said.join(", ") }
    }
}

/// `2:24 left`, or `at least 2:00 left` while nothing was measured.
fn remaining(left: Left) -> String {
    // Half a second up: "0:00 left" is said only when nothing is left.
    let seconds = (left.time + Duration::from_millis(500)).as_secs();
    let clock = match seconds {
        0..3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
    };
    let least = if left.measured { "" } else { "at least " };
    format!("{least}{clock} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_says_what_it_rests_on() {
        for (seconds, measured, expected) in
            [(24, true, "0:24 left"), (120, false, "at least 2:00 left"), (3_725, true, "1:02:05 left")]
        {
            assert_eq!(remaining(Left { time: Duration::from_secs(seconds), measured }), expected);
        }
    }
}
