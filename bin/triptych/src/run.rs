//! `triptych run`.

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use agent::catalogue;
use agent::recorder::{self, RecorderOptions};
use anyhow::bail;
use bench::{Campaign, Machine, Manner, StudyFile, StudyOutcome};
use probe::{Table, Value};
use recording::Address;
use recording::collector::AGENT;
use recording::spec::Panel;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use store::Study;
use subjects::streaming::programs_folder;
use thiserror::Error;
use units::Nanos;

use crate::Exit;
use crate::args;
use crate::bar::Bar;
use crate::events::{Events, Told};
use crate::locate::locate;
use crate::show;
use crate::table::{self, Columns};

/// Samples of this machine per second during a run.
const SAMPLE_HZ: f64 = 2.0;

pub(crate) fn run(options: &args::Run) -> anyhow::Result<Exit> {
    let (campaign, study) = match (&options.resume, &options.study) {
        (Some(name), _) => {
            let campaign = Campaign::reopen(&locate(name, &options.out)?)?;
            // Of other subjects the plan says all.
            let command = campaign.facts.subject.name == bench::command::NAME;
            let seed = campaign.facts.seed;
            let study = command.then(|| read(&campaign.dir.join("study.toml"), Some(seed))).transpose()?;
            (campaign, study.map(|(study, _)| study))
        }
        (None, Some(file)) => {
            let (study, seed) = read(file, options.seed)?;
            let name = name_of(file);
            if options.dry_run {
                return dry_run(&study, &name, seed, options.json);
            }
            (Campaign::create(&options.out, &name, &study, seed)?, Some(study))
        }
        (None, None) => bail!("a study file is needed"),
    };
    let cancel = watch_signals()?;
    let mut subject = subjects::of(study.as_ref(), programs_folder());
    let (mut agent, mut machine) = (|collector: &Address| watch(collector), ThisMachine::default());
    let manner = Manner {
        agent: &mut agent,
        machine: Some(&mut machine),
        retries: options.retry_disturbed,
        fail_fast: options.fail_fast,
    };
    let mut progress =
        Told { bar: Bar::default(), events: options.events.as_deref().map(Events::open).transpose()? };
    let outcome = bench::run_study_watched(&campaign, subject.as_mut(), &cancel, &mut progress, manner)?;
    progress.ended(&outcome);
    let dir = campaign.dir.clone();
    drop(campaign);
    if options.events.as_deref() != Some(Path::new("-")) {
        report(options, &dir, &outcome)?;
    }
    if outcome.interrupted {
        return Ok(Exit::Interrupted);
    }
    if options.view && std::io::stderr().is_terminal() {
        show::serve(&dir, None, None)?;
    }
    Ok(if outcome.failed.is_empty() { Exit::Success } else { Exit::Failure })
}

/// The agent of this machine, which stands for the host's: what else goes on here belongs to each run's record.
fn watch(collector: &Address) -> Option<Box<dyn std::any::Any>> {
    let started = recorder::start(RecorderOptions {
        collector: collector.clone(),
        panel: Panel::Host,
        source: AGENT.into(),
        token: None,
        samplers: catalogue::chosen(false, &[], SAMPLE_HZ).unwrap_or_default(),
        probes: None,
        spool: None,
        keep: 16 << 20,
    });
    match started {
        Ok(agent) => Some(Box::new(agent)),
        Err(error) => {
            tracing::warn!("this machine is not sampled: {}", bench::chain(&error));
            None
        }
    }
}

/// This machine as the engine samples it where no agent does: the samplers stay open from run to run.
#[derive(Default)]
struct ThisMachine(Vec<Box<dyn agent::sampler::Sampler>>);

impl Machine for ThisMachine {
    fn sample(&mut self, row: &mut dyn FnMut(&Table, Nanos, &[Value])) {
        if self.0.is_empty() {
            // Lag is how late an agent wakes, and here is none.
            self.0 =
                catalogue::defaults().into_iter().filter(|sampler| sampler.info().name != "lag").collect();
        }
        let mut rows = RowsOnly(row);
        self.0.iter_mut().for_each(|sampler| sampler.sample(&mut rows));
    }
}

/// Facts and marks of samplers are an agent's to tell.
struct RowsOnly<'a>(&'a mut dyn FnMut(&Table, Nanos, &[Value]));

impl agent::sampler::Rows for RowsOnly<'_> {
    fn row(&mut self, table: &Table, at: Nanos, values: &[Value]) {
        (self.0)(table, at, values);
    }
    fn mark(&mut self, _: &str, _: &str) {}
    fn fact(&mut self, _: &str, _: &str) {}
}

/// A study is called like its file.
pub(crate) fn name_of(file: &Path) -> String {
    file.file_stem().map_or("study".into(), |s| s.to_string_lossy().into_owned())
}

/// The study file is not there, or is no text.
#[derive(Debug, Error)]
#[error("cannot read the study file {}", file.display())]
pub(crate) struct Unreadable {
    file: PathBuf,
    source: std::io::Error,
}

pub(crate) fn read(file: &Path, seed: Option<u64>) -> anyhow::Result<(StudyFile, u64)> {
    let text = fs::read_to_string(file).map_err(|source| Unreadable { file: file.into(), source })?;
    let name = file.display().to_string();
    let study = StudyFile::parse(&text, &name, &subjects::specs()?)?;
    let seed = seed.or(study.seed).unwrap_or_else(bench::plan::fresh_seed);
    study.check(&name, seed, &|settings| subjects::conflicts(&study.subject.name, settings))?;
    Ok((study, seed))
}

/// The first signal asks the work to end in order; the second ends this process, and with it all others.
pub(crate) fn watch_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            Exit::Interrupted as i32,
            Arc::clone(&cancel),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&cancel))?;
    }
    Ok(cancel)
}

fn dry_run(study: &StudyFile, name: &str, seed: u64, json: bool) -> anyhow::Result<Exit> {
    let facts = bench::plan::plan(study, name, String::new(), seed);
    if json {
        writeln!(stdout(), "{}", serde_json::to_string_pretty(&facts)?)?;
        return Ok(Exit::Success);
    }
    for run in &facts.runs {
        let levels = facts.points.iter().find(|p| p.index == run.point).map(|p| &p.levels);
        let said: Vec<_> =
            facts.varied.iter().filter_map(|name| Some(format!("{name} = {}", levels?.get(name)?))).collect();
        writeln!(stdout(), "{}  {}", run.id, said.join(", "))?;
    }
    let least = facts.runs.len() as f64 * (facts.warmup_s + facts.record_s);
    eprintln!(
        "{} points × {} runs, seed {seed}: at least {least:.0} s, and the time that programs take to start",
        facts.points.len(),
        facts.repeats
    );
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct Report<'a> {
    study: &'a Path,
    planned: usize,
    complete: usize,
    interrupted: bool,
    /// Runs that something outside disturbed, those of an earlier time included.
    disturbed: usize,
    failed: Vec<Failed<'a>>,
    resume: Option<String>,
    table: serde_json::Value,
}

#[derive(Serialize)]
struct Failed<'a> {
    run: &'a str,
    reason: &'a str,
}

fn report(options: &args::Run, dir: &Path, outcome: &StudyOutcome) -> anyhow::Result<()> {
    let study = Study::open(dir)?;
    let resume =
        (outcome.complete < outcome.planned).then(|| format!("{} run --resume {}", show::me(), quoted(dir)));
    let flagged = |run: &store::RunSummary| run.facts.quality.as_ref().is_some_and(|q| q.disturbed);
    let disturbed = study.runs()?.iter().filter(|run| flagged(run)).count();
    if options.json {
        let failed = outcome.failed.iter().map(|(run, reason)| Failed { run, reason }).collect();
        let result = Report {
            study: dir,
            planned: outcome.planned,
            complete: outcome.complete,
            interrupted: outcome.interrupted,
            disturbed,
            failed,
            resume,
            table: show::json(&study)?,
        };
        writeln!(stdout(), "{}", serde_json::to_string_pretty(&result)?)?;
        return Ok(());
    }
    if outcome.complete > 0 {
        table::print(&study, false, Columns::fitting())?;
    }
    if !outcome.failed.is_empty() {
        eprintln!("{} of {} runs failed; their folders say why", outcome.failed.len(), outcome.planned);
    }
    if disturbed > 0 {
        eprintln!("{disturbed} of {} runs were disturbed from outside (docs/quality.md)", outcome.planned);
    }
    if let Some(resume) = resume {
        eprintln!("{} of {} runs are done; go on with:  {resume}", outcome.complete, outcome.planned);
    }
    if !options.view || !std::io::stderr().is_terminal() {
        writeln!(stdout(), "{}    then http://{}", show::look_at(dir), show::PAGE)?;
    }
    Ok(())
}

/// As a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
