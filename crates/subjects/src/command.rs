//! Any program as a subject: its command line with the settings in it, executed once or several times in each run, and what
//! it took and said.
//!
//! A row of `host.command` for each execution: time from the start of the program until its end, the CPU time and memory of it
//! and all its descendants that it waited for (wait4(2)), its exit code. What extractors find in its output is a row of their
//! table, on the same instant. The program runs in a process group of its own, which is gone when the execution is over.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bench::command::{CommandStudy, Invocation, NAME, TABLE, substituted};
use bench::{EventSink, Outcome, Point, StudyFile, Subject, SubjectError};
use probe::{Column, ColumnType, Table, Value};
use recording::import::extract::Extractors;
use recording::reader::Column as Cells;
use recording::spec::{Levels, Panel, SubjectSpec};
use units::{Clock, MonotonicClock};

use crate::execution::{Execution, Used};

/// Files of the run's folder that hold what the last execution said.
const OUTPUTS: [&str; 2] = ["stdout", "stderr"];
/// Time that a preparation or a clean-up may take.
const HOOK: Duration = Duration::from_secs(600);
/// Time that a clean-up has once the person wants to stop.
const LAST_HOOK: Duration = Duration::from_secs(10);

/// The subject. Holds what a study file says of its command.
pub struct Command {
    study: CommandStudy,
    spec: SubjectSpec,
    extractors: Arc<Extractors>,
    settings: Option<Levels>,
    running: Option<Execution>,
}

impl Command {
    /// The subject of `study`, which is one of this command.
    pub fn new(command: CommandStudy, study: &StudyFile) -> Self {
        let (spec, extractors) = (study.subject.clone(), Arc::clone(&study.extractors));
        Self { study: command, spec, extractors, settings: None, running: None }
    }

    /// One shell command that is not measured, if there is one.
    fn hook(&mut self, name: &str, settings: &Levels, sink: &mut dyn EventSink) -> Result<(), SubjectError> {
        let text = match name {
            "prepare" => self.study.prepare.clone(),
            _ => self.study.cleanup.clone(),
        };
        let Some(text) = text else { return Ok(()) };
        let run_dir = absolute(sink.run_dir())?;
        let text =
            substituted(&text, settings, &run_dir.display().to_string()).map_err(SubjectError::Setting)?;
        let mut shell = Process::new("sh");
        shell.args(["-c", &text]);
        let log = format!("{name}.log");
        // A clean-up is done also when the person wants to stop, and is given a moment for it.
        let used = match sink.cancelled() {
            true => self.execute(shell, settings, [&log; 2], LAST_HOOK, false, sink)?,
            false => self.execute(shell, settings, [&log; 2], HOOK, name == "prepare", sink)?,
        };
        if used.code != Some(0) {
            let log = run_dir.join(format!("{name}.log"));
            return Err(used.failure(name, &log));
        }
        Ok(())
    }

    /// Executes a process to its end; its outputs go to files of the run's folder.
    fn execute(
        &mut self,
        mut process: Process,
        settings: &Levels,
        outputs: [&str; 2],
        limit: Duration,
        stoppable: bool,
        sink: &mut dyn EventSink,
    ) -> Result<Used, SubjectError> {
        let run_dir = absolute(sink.run_dir())?;
        let dir_text = run_dir.display().to_string();
        let text = |text: &str| substituted(text, settings, &dir_text).map_err(SubjectError::Setting);
        let directory = match &self.study.directory {
            Some(directory) => PathBuf::from(text(directory)?),
            None => run_dir.clone(),
        };
        for (name, value) in &self.study.env {
            process.env(name, text(value)?);
        }
        let [stdout, stderr] = outputs.map(|name| run_dir.join(name));
        let create = |path: &Path| {
            File::create(path).map_err(|source| SubjectError::Io {
                what: format!("cannot write {}", path.display()),
                source,
            })
        };
        let out = create(&stdout)?;
        let err = if stderr == stdout {
            out.try_clone()
                .map_err(|source| SubjectError::Io { what: "cannot share a log".into(), source })?
        } else {
            create(&stderr)?
        };
        process.current_dir(&directory).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let execution = self.running.insert(Execution::start(process)?);
        let ended = execution.wait(limit, &mut || match sink.look() {
            Err(SubjectError::Cancelled) if !stoppable => Ok(()),
            other => other,
        });
        self.running = None;
        ended
    }

    /// The command at a point, as a process.
    fn process(&self, settings: &Levels, run_dir: &Path) -> Result<Process, SubjectError> {
        let dir = run_dir.display().to_string();
        let text = |text: &str| substituted(text, settings, &dir).map_err(SubjectError::Setting);
        match &self.study.run {
            Invocation::Shell(line) => {
                let mut shell = Process::new("sh");
                shell.args(["-c", &text(line)?]);
                Ok(shell)
            }
            Invocation::Words(words) => {
                let mut words = words.iter().map(|word| text(word));
                let mut process = Process::new(words.next().transpose()?.unwrap_or_default());
                for word in words {
                    process.arg(word?);
                }
                Ok(process)
            }
        }
    }

    /// One execution from preparation to clean-up; `measured` ones leave their rows.
    fn once(
        &mut self,
        settings: &Levels,
        measured: bool,
        sink: &mut dyn EventSink,
    ) -> Result<(), SubjectError> {
        let run_dir = absolute(sink.run_dir())?;
        sink.look()?;
        // What an earlier execution left would be taken for what this one says.
        for file in self.extractors.files() {
            let _ = std::fs::remove_file(run_dir.join(file));
        }
        self.hook("prepare", settings, sink)?;
        let process = self.process(settings, &run_dir)?;
        let limit = Duration::from_secs_f64(self.study.timeout_s);
        let ended = self.execute(process, settings, OUTPUTS, limit, true, sink).and_then(|used| {
            if used.code.is_some_and(|code| self.study.exit_codes.contains(&code)) {
                Ok(used)
            } else {
                Err(used.failure("the command", &run_dir.join("stderr")))
            }
        });
        let ended = ended.and_then(|used| if measured { self.record(&used, &run_dir, sink) } else { Ok(()) });
        // Also after a failure, whose reason counts.
        let cleaned = self.hook("cleanup", settings, sink);
        ended.and(cleaned)
    }

    fn all(&mut self, settings: &Levels, sink: &mut dyn EventSink) -> Result<(), SubjectError> {
        for _ in 0..self.study.warmup {
            self.once(settings, false, sink)?;
        }
        sink.begin_window();
        for _ in 0..self.study.executions {
            self.once(settings, true, sink)?;
        }
        sink.end_window();
        Ok(())
    }

    fn record(&self, used: &Used, run_dir: &Path, sink: &mut dyn EventSink) -> Result<(), SubjectError> {
        // Within the window, whose end comes later.
        let at = MonotonicClock.now();
        sink.row(Panel::Host, &table(), at, &used.values())?;
        let (tables, skips) = self.extractors.read_run(run_dir);
        let expected = self.extractors.columns();
        for (panel, name, columns) in by_table(&expected) {
            let found = tables.iter().find(|table| table.panel == panel && table.table.name == name);
            let rows = found.map_or(0, |table| table.t_ns.len());
            let cells: Vec<_> =
                columns.iter().map(|column| found.and_then(|table| table.get(&column.name))).collect();
            if let Some((column, _)) =
                columns.iter().zip(&cells).find(|(_, cells)| cells.is_none() || rows == 0)
            {
                let why: Vec<_> = skips.iter().map(|(what, _)| what.to_owned()).collect();
                let why = if why.is_empty() { "nothing matches".to_owned() } else { why.join("; ") };
                return Err(SubjectError::Setting(format!("`{}` is not in the output: {why}", column.name)));
            }
            let table = Table {
                columns: columns.into_iter().cloned().collect(),
                ..Table::new(name, "what the command said")
            };
            for row in 0..rows {
                let values: Vec<_> = cells.iter().map(|cells| Value::F64(number(*cells, row))).collect();
                sink.row(panel, &table, at, &values)?;
            }
        }
        Ok(())
    }
}

/// A command has a working directory of its own.
fn absolute(dir: &Path) -> Result<PathBuf, SubjectError> {
    std::path::absolute(dir)
        .map_err(|source| SubjectError::Io { what: "no working directory".into(), source })
}

/// Columns that belong together, in order.
fn by_table(columns: &[(Panel, String, Column)]) -> Vec<(Panel, &str, Vec<&Column>)> {
    let mut tables: Vec<(Panel, &str, Vec<&Column>)> = Vec::new();
    for (panel, table, column) in columns {
        match tables.iter_mut().find(|(p, t, _)| p == panel && t == table) {
            Some((_, _, columns)) => columns.push(column),
            None => tables.push((*panel, table, vec![column])),
        }
    }
    tables
}

fn number(cells: Option<&Cells>, row: usize) -> f64 {
    let cell = match cells {
        Some(Cells::I64(v)) => v.get(row).map(|x| *x as f64),
        Some(Cells::U64(v)) => v.get(row).map(|x| *x as f64),
        Some(Cells::F64(v)) => v.get(row).copied(),
        Some(Cells::Bool(v)) => v.get(row).map(|x| f64::from(u8::from(*x))),
        None => None,
    };
    cell.unwrap_or(f64::NAN)
}

fn table() -> Table {
    let all = "of the command and all its descendants that it waited for";
    Table::new(TABLE, "what each execution took")
        .column("wall_ns", ColumnType::U64, "ns", "time from its start until its end")
        .column("user_ns", ColumnType::U64, "ns", &format!("CPU time in user mode {all}"))
        .column("system_ns", ColumnType::U64, "ns", &format!("CPU time in the kernel {all}"))
        .column("cpu_percent", ColumnType::F64, "%", "CPU time divided by the time it took; 100 is one core")
        .column("max_rss_bytes", ColumnType::U64, "B", "largest resident size of one of its processes")
        .column("major_faults", ColumnType::U64, "1", "page faults that had to wait for a disk")
        .column("voluntary_switches", ColumnType::U64, "1", "context switches because it waited")
        .column("involuntary_switches", ColumnType::U64, "1", "context switches because its time was over")
        .column("exit_code", ColumnType::I64, "1", "as it ended")
}

impl Used {
    fn values(&self) -> [Value; 9] {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let cpu = (self.user + self.system).as_secs_f64();
        [
            Value::U64(ns(self.wall)),
            Value::U64(ns(self.user)),
            Value::U64(ns(self.system)),
            Value::F64(100.0 * cpu / self.wall.as_secs_f64().max(1e-9)),
            Value::U64(self.max_rss_bytes),
            Value::U64(self.major_faults),
            Value::U64(self.voluntary_switches),
            Value::U64(self.involuntary_switches),
            Value::I64(self.code.unwrap_or(-1).into()),
        ]
    }
}

impl Subject for Command {
    fn spec(&self) -> Result<SubjectSpec, SubjectError> {
        Ok(self.spec.clone())
    }

    fn reports(&self) -> bool {
        false
    }

    fn prepare(&mut self, point: &Point) -> Result<(), SubjectError> {
        self.teardown()?;
        // What cannot be substituted is told before anything is started.
        for text in self.study.texts() {
            substituted(text, &point.settings, "").map_err(SubjectError::Setting)?;
        }
        self.settings = Some(point.settings.clone());
        Ok(())
    }

    fn run(&mut self, sink: &mut dyn EventSink) -> Result<Outcome, SubjectError> {
        let settings = self
            .settings
            .take()
            .ok_or_else(|| SubjectError::Setting(format!("{NAME}: run without prepare")))?;
        match self.all(&settings, sink) {
            Ok(()) => Ok(Outcome::Complete),
            Err(SubjectError::Cancelled) => Ok(Outcome::Cancelled),
            Err(error) => Err(error),
        }
    }

    fn teardown(&mut self) -> Result<(), SubjectError> {
        self.running = None;
        self.settings = None;
        Ok(())
    }
}
