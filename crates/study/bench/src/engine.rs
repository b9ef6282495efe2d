//! Runs what is planned and not yet done, one run after the other. A run that fails is marked and the study goes on;
//! a wish to stop ends the run under way, marks it interrupted and ends the study.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use recording::Address;
use recording::collector::{Collector, CollectorOptions};
use recording::facts::{self, PlannedRun, RunFacts, RunStatus};
use recording::files::Reserve;
use recording::spec::Levels;

use crate::alone::Alone;
use crate::campaign::Campaign;
use crate::error::BenchError;
use crate::estimate::Estimate;
use crate::plan::WRITER;
use crate::progress::{Progress, RunEnd};
use crate::sink::{Link, Machine, RunSink};
use crate::subject::{EventSink, Outcome, Point, Subject, SubjectError};

/// A window below this tells nothing of the machine, in nanoseconds.
const SHORT_NS: i64 = 500_000_000;

/// How a study ended.
#[derive(Clone, Debug, Default)]
pub struct StudyOutcome {
    /// The study's folder.
    pub dir: PathBuf,
    /// Runs planned.
    pub planned: usize,
    /// Runs complete, those of an earlier time included.
    pub complete: usize,
    /// Runs that failed this time, with their reasons.
    pub failed: Vec<(String, String)>,
    /// The person stopped it.
    pub interrupted: bool,
}

/// Makes something that watches a run from outside, such as an agent of the machine. It is given the collector's address
/// once that listens, and what it made is dropped before the record is closed.
pub type Watch<'a> = dyn FnMut(&Address) -> Option<Box<dyn Any>> + 'a;

/// How a study is run.
pub struct Manner<'a> {
    /// Watches runs whose programs report to a collector.
    pub agent: &'a mut Watch<'a>,
    /// Samples the machine in runs of which nothing reports.
    pub machine: Option<&'a mut dyn Machine>,
    /// How often a run that something outside disturbed is done again; the earlier attempts are kept in `superseded/`.
    pub retries: u32,
    /// The first run that fails ends the study.
    pub fail_fast: bool,
}

/// As [`run_study_watched`], with nobody watching.
///
/// # Errors
/// As there.
pub fn run_study(
    campaign: &Campaign,
    subject: &mut dyn Subject,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<StudyOutcome, BenchError> {
    let mut nobody = |_: &Address| None;
    let manner = Manner { agent: &mut nobody, machine: None, retries: 0, fail_fast: false };
    run_study_watched(campaign, subject, cancel, progress, manner)
}

/// Runs every run of `campaign` that is not complete; sets aside what earlier attempts left.
/// Once `cancel` is true, the run under way is ended and marked interrupted.
///
/// # Errors
/// The study is not about this subject. What goes wrong within a run is in the outcome.
pub fn run_study_watched(
    campaign: &Campaign,
    subject: &mut dyn Subject,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
    mut manner: Manner<'_>,
) -> Result<StudyOutcome, BenchError> {
    let spec = subject.spec().map_err(BenchError::Spec)?;
    let study = &campaign.facts;
    if spec.name != study.subject.name {
        return Err(BenchError::Subject { study: study.subject.name.clone(), subject: spec.name });
    }
    let pending = campaign.pending();
    let planned = study.runs.len();
    let mut outcome = StudyOutcome {
        dir: campaign.dir.clone(),
        planned,
        complete: planned - pending.len(),
        ..StudyOutcome::default()
    };
    progress.study_started(&campaign.dir, study, outcome.complete);
    let mut estimate = Estimate::new(Duration::from_secs_f64(study.warmup_s + study.record_s));
    let mut alone = (!subject.reports()).then(|| Alone::new(campaign));
    'runs: for (i, run) in pending.iter().enumerate() {
        let left = (pending.len() - i).try_into().unwrap_or(u32::MAX);
        // Why it is done once more.
        let mut again: Option<String> = None;
        for attempt in 0..=manner.retries {
            if cancel.load(Ordering::Relaxed) {
                outcome.interrupted = true;
                break 'runs;
            }
            let started = Instant::now();
            let end = {
                progress.run_started(run, &levels(campaign, run));
                let mut tick = || progress.tick(estimate.left(left, started.elapsed()));
                let why = again.as_deref();
                match &mut alone {
                    Some(alone) => alone.run(run, subject, cancel, &mut tick, &mut manner.machine, why),
                    None => one_run(campaign, run, subject, cancel, &mut tick, manner.agent, why),
                }
            };
            estimate.measured(started.elapsed());
            let disturbance = disturbance(&end).filter(|_| attempt < manner.retries);
            let rest = if disturbance.is_some() { left } else { left - 1 };
            progress.run_ended(&end, estimate.left(rest, Duration::ZERO));
            if let Some(disturbance) = disturbance {
                again = Some(format!("attempt {}: the one before was disturbed: {disturbance}", attempt + 2));
                continue;
            }
            match end.status {
                RunStatus::Complete => outcome.complete += 1,
                RunStatus::Interrupted => outcome.interrupted = true,
                RunStatus::Failed | RunStatus::Running => {
                    outcome.failed.push((run.id.clone(), end.reason.clone()));
                    if manner.fail_fast {
                        break 'runs;
                    }
                }
            }
            break;
        }
    }
    if let Some(alone) = &mut alone {
        alone.commit().map_err(BenchError::Facts)?;
    }
    Ok(outcome)
}

/// What disturbed a complete run, if anything did.
fn disturbance(end: &RunEnd) -> Option<String> {
    let quality = end.summary.as_ref()?.facts.quality.as_ref()?;
    let told = end.status == RunStatus::Complete && quality.disturbed;
    told.then(|| store::reasons(quality).join("; "))
}

pub(crate) fn levels(campaign: &Campaign, run: &PlannedRun) -> Levels {
    let point = campaign.facts.points.iter().find(|p| p.index == run.point);
    point.map(|p| p.levels.clone()).unwrap_or_default()
}

fn one_run(
    campaign: &Campaign,
    run: &PlannedRun,
    subject: &mut dyn Subject,
    cancel: &AtomicBool,
    tick: &mut dyn FnMut(),
    watch: &mut Watch<'_>,
    again: Option<&str>,
) -> RunEnd {
    let failed =
        |reason: String| RunEnd { run: run.clone(), status: RunStatus::Failed, reason, summary: None };
    let dir = match campaign.fresh_run_dir(run) {
        Ok(dir) => dir,
        Err(error) => return failed(chain(&error)),
    };
    let mut settings = campaign.facts.fixed.clone();
    settings.extend(levels(campaign, run));
    let mut facts = RunFacts::begin(run, settings.clone(), WRITER);
    if let Err(error) = facts::write_run(&dir.join("run.toml"), &facts) {
        return failed(chain(&error));
    }
    let reserve = Reserve::take(&dir);
    let point = Point { index: run.point, settings };
    let closed = execute(campaign, &dir, &mut facts, subject, &point, cancel, tick, reserve, watch, again);
    let facts = match closed {
        Ok(facts) => facts,
        Err(reason) => {
            facts.status = RunStatus::Failed;
            facts.reason = reason;
            facts.ended = facts::now();
            let written = facts::write_run(&dir.join("run.toml"), &facts);
            if let Err(error) = written {
                facts.reason = format!("{}; {}", facts.reason, chain(&error));
            }
            facts
        }
    };
    let mut end = RunEnd { run: run.clone(), status: facts.status, reason: facts.reason, summary: None };
    match store::summarise(&dir, &campaign.facts) {
        Ok(summary) => end.summary = Some(summary),
        Err(error) if end.status == RunStatus::Complete => end.reason = chain(&error),
        Err(error) => tracing::debug!(run = run.id, %error, "no summary"),
    }
    end
}

/// Collector, subject, close. `Err` is the reason why the record could not be closed.
#[allow(clippy::too_many_arguments)] // one caller; a struct for it would be read nowhere else
fn execute(
    campaign: &Campaign,
    dir: &Path,
    facts: &mut RunFacts,
    subject: &mut dyn Subject,
    point: &Point,
    cancel: &AtomicBool,
    tick: &mut dyn FnMut(),
    reserve: Reserve,
    watch: &mut Watch<'_>,
    again: Option<&str>,
) -> Result<RunFacts, String> {
    // Not in the run's folder: the path of a Unix socket is at most 107 bytes.
    let sockets = tempfile::Builder::new().prefix("triptych-").tempdir().map_err(|e| chain(&e))?;
    let address = Address::Unix(sockets.path().join("collector"));
    let collector = Collector::start(CollectorOptions::new(address, dir.into())).map_err(|e| chain(&e))?;
    let watcher = watch(collector.address());
    let seconds = Duration::from_secs_f64;
    let (warmup, record) = (seconds(campaign.facts.warmup_s), seconds(campaign.facts.record_s));
    let link = Link::Collector(&collector);
    let mut sink = RunSink::new(link, dir.into(), warmup, record, cancel, tick, None);
    if let Some(why) = again {
        sink.event(None, "retry", why);
    }
    drive(subject, point, &mut sink, facts);
    if facts.status == RunStatus::Failed {
        let reason = facts.reason.clone();
        sink.event(None, "fault", &reason);
    }
    drop(watcher);
    facts.ended = facts::now();
    drop(reserve);
    collector.close(facts.clone()).map_err(|error| match facts.reason.as_str() {
        "" => chain(&error),
        reason => format!("{reason}; then: {}", chain(&error)),
    })
}

/// Prepares, runs and tears down; closes the tables that no program fills. How it ended and the window go to `facts`.
pub(crate) fn drive(subject: &mut dyn Subject, point: &Point, sink: &mut RunSink<'_>, facts: &mut RunFacts) {
    let ended = subject.prepare(point).and_then(|()| subject.run(sink));
    let torn_down = subject.teardown();
    sink.sample_own();
    let window_ns = sink.window_ns();
    if !subject.reports() && window_ns.is_none_or(|[start, end]| end - start < SHORT_NS) {
        sink.leave_out_counters();
    }
    // Also of a run that failed: what was recorded is kept.
    let closed = sink.tables().close();
    let ended = ended.and_then(|outcome| closed.map(|()| outcome));
    facts.window_ns = window_ns;
    (facts.status, facts.reason) = match (ended, torn_down) {
        (Ok(Outcome::Complete), Ok(())) if window_ns.is_none() => {
            (RunStatus::Failed, "the subject ended without recording a window".into())
        }
        (Ok(Outcome::Complete), Ok(())) => (RunStatus::Complete, String::new()),
        (Ok(Outcome::Complete), Err(error)) => (RunStatus::Failed, format!("teardown: {}", chain(&error))),
        (Ok(Outcome::Cancelled) | Err(SubjectError::Cancelled), _) => {
            (RunStatus::Interrupted, SubjectError::Cancelled.to_string())
        }
        (Err(error), _) => (RunStatus::Failed, chain(&error)),
    };
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
