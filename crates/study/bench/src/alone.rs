//! Runs of which nothing reports to a collector: commands. A campaign may have ten thousand of them and each take a
//! millisecond, so that what the engine does for one counts.
//!
//! A run's files are written at once and synced together with those of other runs, a second later at the latest. Only then
//! its `run.toml` says that it is complete: a run that is said to be there is there, whatever happens to the machine. Whoever
//! kills the study in between has the runs of that second done again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use recording::facts::{
    self, ClockFacts, FactsError, HostFacts, PanelFacts, PlannedRun, RunFacts, RunStatus,
};
use recording::spec::Panel;

use crate::campaign::Campaign;
use crate::engine::{chain, drive, levels};
use crate::plan::WRITER;
use crate::progress::RunEnd;
use crate::sink::{Link, Machine, RunSink};
use crate::subject::{EventSink, Point, Subject};

/// The longest that a run that has ended waits to be complete.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Makes such runs.
pub(crate) struct Alone<'c> {
    campaign: &'c Campaign,
    /// The machine, whose load alone changes from run to run.
    host: HostFacts,
    ended: Ended,
}

impl<'c> Alone<'c> {
    pub(crate) fn new(campaign: &'c Campaign) -> Self {
        let ended = Ended { runs: Vec::new(), committed: Instant::now() };
        Self { campaign, host: HostFacts::read(), ended }
    }

    /// One run from its folder to its end.
    pub(crate) fn run(
        &mut self,
        run: &PlannedRun,
        subject: &mut dyn Subject,
        cancel: &AtomicBool,
        tick: &mut dyn FnMut(),
        machine: &mut Option<&mut dyn Machine>,
        again: Option<&str>,
    ) -> RunEnd {
        let failed =
            |reason: String| RunEnd { run: run.clone(), status: RunStatus::Failed, reason, summary: None };
        // Its folder moves away: what is said of the earlier attempt goes with it.
        if again.is_some()
            && let Err(error) = self.commit()
        {
            return failed(chain(&error));
        }
        let dir = match self.campaign.fresh_run_dir(run) {
            Ok(dir) => dir,
            Err(error) => return failed(chain(&error)),
        };
        let study = &self.campaign.facts;
        let mut settings = study.fixed.clone();
        settings.extend(levels(self.campaign, run));
        let host = HostFacts { load: load().unwrap_or(self.host.load), ..self.host.clone() };
        let mut facts = RunFacts::on(host, run, settings.clone(), WRITER);
        if let Err(error) = facts::write_run_unsynced(&dir.join("run.toml"), &facts) {
            return failed(chain(&error));
        }
        // The rows are stamped by the collector's own clock, of which nothing is unknown.
        let own = ClockFacts { reference_ns: facts.started_ns, exchanges: 1, ..ClockFacts::default() };
        let panel = PanelFacts {
            program: "triptych".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            clock: Some(own),
            ..PanelFacts::default()
        };
        facts.panels.insert(Panel::Host.name().into(), panel);
        let point = Point { index: run.point, settings };
        let seconds = Duration::from_secs_f64;
        // Each reborrowed for this run only.
        let machine: Option<&mut dyn Machine> = match machine {
            Some(machine) => Some(&mut **machine),
            None => None,
        };
        // Also while this run goes on for long.
        let (ended, study_dir) = (&mut self.ended, &self.campaign.dir);
        let mut tick = || {
            tick();
            if ended.is_due()
                && let Err(error) = ended.commit(study_dir)
            {
                tracing::warn!("{}", chain(&error));
            }
        };
        let mut sink = RunSink::new(
            Link::alone(),
            dir.clone(),
            seconds(study.warmup_s),
            seconds(study.record_s),
            cancel,
            &mut tick,
            machine,
        );
        if let Some(why) = again {
            sink.event(None, "retry", why);
        }
        drive(subject, &point, &mut sink, &mut facts);
        if facts.status == RunStatus::Failed {
            let reason = facts.reason.clone();
            sink.event(None, "fault", &reason);
        }
        facts.markers = sink.markers();
        facts.ended = facts::now();
        let mut end =
            RunEnd { run: run.clone(), status: facts.status, reason: facts.reason.clone(), summary: None };
        match store::summarise_closed(&dir, &mut facts, study) {
            Ok(summary) => end.summary = Some(summary),
            Err(error) if end.status == RunStatus::Complete => end.reason = chain(&error),
            Err(error) => tracing::debug!(run = run.id, %error, "no summary"),
        }
        self.ended.runs.push((dir, facts));
        if self.ended.is_due()
            && let Err(error) = self.commit()
        {
            end.status = RunStatus::Failed;
            end.reason = chain(&error);
            // It is said to have failed, so it must not be complete later.
            if let Some((_, facts)) = self.ended.runs.iter_mut().find(|(_, facts)| facts.id == end.run.id) {
                facts.status = RunStatus::Failed;
                facts.reason.clone_from(&end.reason);
            }
        }
        end
    }

    /// Makes every run that has ended safe, and says of each how it ended.
    ///
    /// # Errors
    /// The disk is full or gone; what could not be said is tried again with the next call.
    pub(crate) fn commit(&mut self) -> Result<(), FactsError> {
        self.ended.commit(&self.campaign.dir)
    }
}

/// Runs that have ended and are not said to be complete yet.
struct Ended {
    runs: Vec<(PathBuf, RunFacts)>,
    committed: Instant,
}

impl Ended {
    fn is_due(&self) -> bool {
        !self.runs.is_empty() && self.committed.elapsed() >= COMMIT_EVERY
    }

    fn commit(&mut self, study: &Path) -> Result<(), FactsError> {
        self.committed = Instant::now();
        if self.runs.is_empty() {
            return Ok(());
        }
        let sync = || -> io::Result<()> { Ok(rustix::fs::syncfs(&File::open(study)?)?) };
        let failed = |source| FactsError::Io { what: "sync", path: study.to_owned(), source };
        sync().map_err(failed)?;
        while let Some((dir, facts)) = self.runs.last() {
            facts::write_run_unsynced(&dir.join("run.toml"), facts)?;
            self.runs.pop();
        }
        sync().map_err(failed)
    }
}

/// Load averages now.
fn load() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}
