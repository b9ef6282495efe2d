//! `triptych record`: a collector for agents and programs that are already there, without a study file.

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::catalogue::{self, Choice};
use agent::recorder::{self, Recorder, RecorderOptions};
use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use recording::collector::{Collector, CollectorEvent, CollectorOptions};
use recording::facts::{
    self, FORMAT, FORMAT_MINOR, PlannedPoint, PlannedRun, RunFacts, RunStatus, StudyFacts,
};
use recording::files::Reserve;
use recording::hold::Hold;
use recording::spec::{Better, Levels, Panel, Response, Statistic, SubjectSpec};
use recording::{Address, read_token};
use serde_json::json;

use crate::Exit;
use crate::run::{quoted, watch_signals};
use crate::show;

/// How often the bar and the wish to stop are looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  triptych record --for 60                         this machine, for a minute
  triptych record --listen tcp:10.0.0.1:7381 --token-file token
  triptych record --into results/night             once more into the same study

Agents and programs report to one of the addresses that it prints: `triptych-agent run --collector …`. Ctrl-C ends the
record in order. An agent that was cut off brings what it has kept when the same study is recorded again.")]
pub(crate) struct Record {
    /// The study's folder; a further record of it becomes its next run [default: results/record-TIME]
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Listen here too: unix:PATH, tcp:ADDRESS:PORT or vsock:CID:PORT; what other machines reach needs --token-file
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<Address>,
    /// File whose first line is what agents must know
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// End after so many seconds instead of by Ctrl-C
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// What the record is about
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) title: String,
    /// The panel that this machine is
    #[arg(long, value_name = "PANEL", default_value = "host")]
    pub(crate) panel: Panel,
    /// Sample this too on this machine, see `triptych-agent list`; may be repeated
    #[arg(long = "sample", value_name = "NAME[=TARGET][@HZ]")]
    pub(crate) samplers: Vec<Choice>,
    /// Samples of this machine per second
    #[arg(long, value_name = "HZ", default_value = "2", value_parser = rate)]
    pub(crate) rate: f64,
    /// Do not sample this machine
    #[arg(long, conflicts_with_all = ["samplers"])]
    pub(crate) no_agent: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let valid = |s: &f64| (0.1..=1e7).contains(s);
    text.parse()
        .ok()
        .filter(valid)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("'{text}' is no length: write seconds, from 0.1 on"))
}

fn rate(text: &str) -> Result<f64, String> {
    catalogue::rate(text).ok_or_else(|| format!("'{text}' is no rate: write a number from 0.01 to 100"))
}

pub(crate) fn record(options: &Record) -> anyhow::Result<Exit> {
    let token = options.token_file.as_deref().map(read_token).transpose()?;
    let (dir, mut plan, _hold) = study(options)?;
    let planned = next_run(&mut plan);
    let run_dir = dir.join("runs").join(&planned.id);
    fs::create_dir_all(&run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
    let mut facts = RunFacts::begin(&planned, Levels::new(), bench::plan::WRITER);
    facts::write_run(&run_dir.join("run.toml"), &facts)?;
    facts::write_plan(&dir.join("plan.toml"), &plan)?;
    let reserve = Reserve::take(&run_dir);
    // Not in the run's folder: the path of a Unix socket is at most 107 bytes.
    let sockets = tempfile::Builder::new().prefix("triptych-").tempdir()?;
    let own = Address::Unix(sockets.path().join("collector"));
    let collector = Collector::start(CollectorOptions {
        also: options.listen.clone(),
        token: token.clone(),
        record: dir.canonicalize().unwrap_or_else(|_| dir.clone()).display().to_string(),
        ..CollectorOptions::new(own.clone(), run_dir.clone())
    })?;
    let cancel = watch_signals()?;
    let agent = if options.no_agent { None } else { Some(local_agent(options, &own, token.as_deref())?) };
    tell_addresses(&collector);
    let start = facts.started_ns;
    let failed = watch(&collector, options.duration, &cancel, agent.as_ref());
    if let Some(agent) = agent {
        agent.finish();
    }
    facts.window_ns = Some([start, now_ns()]);
    facts.ended = facts::now();
    (facts.status, facts.reason) = match failed {
        None => (RunStatus::Complete, String::new()),
        Some(reason) => (RunStatus::Failed, reason),
    };
    drop(reserve);
    let facts = collector.close(facts)?;
    describe(&mut plan, &run_dir);
    // The run is in it already; on a full disk it is only not described.
    if let Err(error) = facts::write_plan(&dir.join("plan.toml"), &plan) {
        tracing::warn!("the study keeps its old description: {error}");
    }
    if let Err(error) = store::summarise(&run_dir, &plan) {
        tracing::warn!("no summary: {error}");
    }
    report(options, &dir, &facts)
}

fn now_ns() -> i64 {
    use units::Clock;
    units::MonotonicClock.now().0
}

/// The study's folder and plan, new or as it is, held.
fn study(options: &Record) -> anyhow::Result<(PathBuf, StudyFacts, Hold)> {
    let created = facts::now();
    let dir = options.into.clone().unwrap_or_else(|| {
        PathBuf::from("results").join(format!("record-{}", created.replace(['-', ':'], "")))
    });
    let path = dir.join("plan.toml");
    if path.is_file() {
        let hold = hold(&dir)?;
        let plan = facts::read_plan(&path)?;
        if plan.subject.name != "record" {
            bail!(
                "{} is a study of '{}': a record needs a folder of its own",
                dir.display(),
                plan.subject.name
            );
        }
        return Ok((dir, plan, hold));
    }
    if dir.exists() && fs::read_dir(&dir)?.next().is_some() {
        bail!("{} is neither empty nor a study: name another folder with --into", dir.display());
    }
    fs::create_dir_all(dir.join("runs")).with_context(|| format!("cannot make {}", dir.display()))?;
    let hold = hold(&dir)?;
    let name = dir.file_name().map_or("record".into(), |n| n.to_string_lossy().into_owned());
    let title = &options.title;
    fs::write(
        dir.join("study.toml"),
        format!("# Made by `triptych record`; there is no study file.\ntitle = {}\n", json!(title)),
    )?;
    let description = if title.is_empty() { "what agents reported".to_owned() } else { title.clone() };
    let plan = StudyFacts {
        format: FORMAT,
        minor: FORMAT_MINOR,
        writer: bench::plan::WRITER.into(),
        name,
        description,
        created,
        seed: 0,
        warmup_s: 0.0,
        record_s: 0.0,
        repeats: 1,
        varied: Vec::new(),
        fixed: Levels::new(),
        points: vec![PlannedPoint { index: 0, levels: Levels::new() }],
        runs: Vec::new(),
        subject: SubjectSpec {
            name: "record".into(),
            description: "What agents and programs report, without a study file".into(),
            ..SubjectSpec::default()
        },
    };
    Ok((dir, plan, hold))
}

fn hold(dir: &Path) -> anyhow::Result<Hold> {
    Hold::take(dir)
        .with_context(|| format!("cannot lock {}", dir.display()))?
        .with_context(|| format!("another process records into {}: name another with --into", dir.display()))
}

fn next_run(plan: &mut StudyFacts) -> PlannedRun {
    let repeat = plan.runs.len() as u32;
    let run = PlannedRun { id: format!("r{:04}-p00-k{repeat}", repeat + 1), point: 0, repeat };
    plan.runs.push(run.clone());
    plan.repeats = plan.runs.len() as u32;
    run
}

fn local_agent(options: &Record, collector: &Address, token: Option<&str>) -> anyhow::Result<Recorder> {
    let agent = |probes| -> anyhow::Result<RecorderOptions> {
        Ok(RecorderOptions {
            collector: collector.clone(),
            panel: options.panel,
            source: recording::collector::AGENT.into(),
            token: token.map(str::to_owned),
            samplers: catalogue::chosen(false, &options.samplers, options.rate)?,
            probes,
            spool: None,
            keep: 64 << 20,
        })
    };
    match recorder::start(agent(Some(probe::readers_folder()))?) {
        Err(recorder::RecorderError::Probes(error)) => {
            eprintln!("programs' probes are left to the agent that runs here already ({error})");
            Ok(recorder::start(agent(None)?)?)
        }
        other => Ok(other?),
    }
}

fn tell_addresses(collector: &Collector) {
    for address in collector.addresses() {
        eprintln!("agents report to it with:  triptych-agent run --panel PANEL --collector {address}");
    }
}

/// Until the time is over, the person stops it, or nothing can be written any more; the reason in that case.
fn watch(
    collector: &Collector,
    duration: Option<Duration>,
    cancel: &Arc<AtomicBool>,
    agent: Option<&Recorder>,
) -> Option<String> {
    let bar = bar(duration);
    let started = Instant::now();
    loop {
        if cancel.load(Ordering::Relaxed) || duration.is_some_and(|d| started.elapsed() >= d) {
            bar.finish_and_clear();
            return None;
        }
        let left = duration.map_or(LOOK, |d| d.saturating_sub(started.elapsed()).min(LOOK));
        match collector.next_event(left) {
            Some(CollectorEvent::WriteFailed { path, error }) => {
                bar.finish_and_clear();
                let path = path.display();
                return Some(format!("{path} cannot be written: {error}; what was recorded before is kept"));
            }
            Some(CollectorEvent::Hello { panel, source }) => say(&bar, &format!("{panel}: {source} reports")),
            Some(CollectorEvent::Gone { panel, source, .. }) => {
                say(&bar, &format!("{panel}: {source} has gone"));
            }
            Some(CollectorEvent::Fault { panel, source, reason }) => {
                say(&bar, &format!("{panel}: {source}: {reason}"));
            }
            _ => {}
        }
        if agent.is_some_and(Recorder::has_ended) {
            say(&bar, "the agent of this machine has ended");
        }
        bar.set_position(started.elapsed().as_secs());
    }
}

fn say(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() { eprintln!("{text}") } else { bar.println(text) }
}

fn bar(duration: Option<Duration>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match duration {
        Some(d) => (ProgressBar::new(d.as_secs()), "recording  {bar:24}  {pos}/{len} s   Ctrl-C ends it"),
        None => (ProgressBar::new_spinner(), "recording  {spinner}  {pos} s   Ctrl-C ends it"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar
}

/// What the record can be asked for, from the tables that it has.
fn describe(plan: &mut StudyFacts, run_dir: &Path) {
    let tables = recording::reader::tables(run_dir).unwrap_or_default();
    let streaming = subjects::streaming::spec();
    let has = |table: &str| tables.iter().any(|t| t == table);
    let joined = |parts: &[(Panel, String)]| parts.iter().all(|(p, t)| has(&format!("{p}.{t}")));
    let subject = &mut plan.subject;
    for join in streaming.joins {
        if joined(&join.parts) && !subject.joins.contains(&join) {
            subject.joins.push(join);
        }
    }
    let known = |name: &str, subject: &SubjectSpec| subject.responses.iter().any(|r| r.name == name);
    for response in streaming.responses {
        let possible = has(&response.table) || subject.joins.iter().any(|j| j.name == response.table);
        if possible && !known(&response.name, subject) {
            subject.responses.push(response);
        }
    }
    for panel in Panel::ALL {
        let (name, table) = (format!("{panel}_cpu_busy"), format!("{panel}.cpu"));
        if has(&table) && !known(&name, subject) {
            subject.responses.push(Response {
                label: format!("{panel} CPU busy"),
                name,
                table,
                column: "busy_percent".into(),
                statistic: Statistic::Mean,
                scale: 1.0,
                unit: "%".into(),
                better: Better::Neutral,
            });
        }
    }
}

fn report(options: &Record, dir: &Path, facts: &RunFacts) -> anyhow::Result<Exit> {
    let failed = facts.status != RunStatus::Complete;
    if options.json {
        let result = json!({ "study": dir, "run": facts.id, "status": facts.status, "reason": facts.reason });
        writeln!(stdout(), "{}", serde_json::to_string_pretty(&result)?)?;
    } else {
        if failed {
            eprintln!("{} failed: {}", facts.id, facts.reason);
        }
        writeln!(
            stdout(),
            "what is in it:  {} show {}",
            show::me(),
            quoted(&dir.join("runs").join(&facts.id))
        )?;
        writeln!(stdout(), "{}    then http://{}", show::look_at(dir), show::PAGE)?;
    }
    Ok(if failed { Exit::Failure } else { Exit::Success })
}
