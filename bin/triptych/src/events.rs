//! What goes on in a study as JSON Lines, for programs that watch it (`triptych run --events`). docs/studies.md lists the events.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bench::{Left, Progress, RunEnd, StudyOutcome};
use recording::facts::{PlannedRun, RunStatus, StudyFacts};
use recording::spec::Levels;
use serde_json::{Value, json};

use crate::bar::Bar;

/// Where events go.
pub(crate) struct Events {
    out: Box<dyn Write>,
    /// It could not be written once: nobody listens any more, which is no reason to end a study.
    broken: bool,
}

impl Events {
    /// A file, which is made anew, or `-` for stdout. A FIFO does too.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(
                File::create(path).with_context(|| format!("cannot write events to {}", path.display()))?,
            )
        };
        Ok(Self { out, broken: false })
    }

    fn tell(&mut self, mut event: Value) {
        if self.broken {
            return;
        }
        event["at"] = json!(recording::facts::now());
        let told = writeln!(self.out, "{event}").and_then(|()| self.out.flush());
        if let Err(error) = told {
            tracing::warn!("events are not written any further: {error}");
            self.broken = true;
        }
    }
}

/// The bar, and events where they are wanted.
pub(crate) struct Told {
    pub(crate) bar: Bar,
    pub(crate) events: Option<Events>,
}

impl Told {
    fn tell(&mut self, event: impl FnOnce() -> Value) {
        if let Some(events) = &mut self.events {
            events.tell(event());
        }
    }

    /// The study is over, for now.
    pub(crate) fn ended(&mut self, outcome: &StudyOutcome) {
        self.tell(|| {
            json!({
                "event": "study_ended",
                "planned": outcome.planned,
                "complete": outcome.complete,
                "failed": outcome.failed.len(),
                "interrupted": outcome.interrupted,
            })
        });
    }
}

fn seconds(left: Left) -> Value {
    let seconds = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
    json!({ "seconds": seconds(left.time), "measured": left.measured })
}

impl Progress for Told {
    fn study_started(&mut self, dir: &Path, study: &StudyFacts, done: usize) {
        self.bar.study_started(dir, study, done);
        self.tell(|| {
            json!({
                "event": "study_started",
                "study": dir,
                "name": study.name,
                "points": study.points.len(),
                "planned": study.runs.len(),
                "complete": done,
                "seed": study.seed,
            })
        });
    }

    fn run_started(&mut self, run: &PlannedRun, levels: &Levels) {
        self.bar.run_started(run, levels);
        self.tell(|| {
            json!({
                "event": "run_started",
                "run": run.id,
                "point": run.point,
                "repeat": run.repeat,
                "levels": levels,
            })
        });
    }

    fn tick(&mut self, left: Left) {
        self.bar.tick(left);
    }

    fn run_ended(&mut self, end: &RunEnd, left: Left) {
        self.bar.run_ended(end, left);
        self.tell(|| {
            let quality = end.summary.as_ref().and_then(|summary| summary.facts.quality.as_ref());
            json!({
                "event": "run_ended",
                "run": end.run.id,
                "status": end.status,
                "reason": end.reason,
                "disturbed": quality.filter(|q| q.disturbed).map(store::reasons).unwrap_or_default(),
                "responses": end.summary.as_ref().filter(|_| end.status == RunStatus::Complete).map(|s| &s.responses),
                "left": seconds(left),
            })
        });
    }
}
