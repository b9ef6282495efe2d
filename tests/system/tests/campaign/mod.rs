//! The operator's command at work, watched from outside: its folder, its processes, its end.
#![allow(dead_code)] // each test file uses its part
#![allow(missing_docs)] // read beside its uses

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use recording::facts::{RunFacts, read_plan, read_run};
use rustix::process::{Pid, Signal, kill_process};
use system_tests::program;

/// Far above what any step takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A study file in a folder of its own, and the command that runs it. Nothing of it outlives it.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
}

/// A started `triptych`.
pub(crate) struct Started {
    child: Child,
    mark: String,
    stderr: PathBuf,
    stdout: PathBuf,
}

/// How it ended.
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub(crate) fn new(study: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("small.toml"), study).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Self { dir }
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.dir.path().join("results")
    }

    /// The one study below `results`.
    pub(crate) fn study(&self) -> Option<PathBuf> {
        let mut dirs = fs::read_dir(self.results()).ok()?.filter_map(|e| Some(e.ok()?.path()));
        dirs.find(|dir| dir.join("plan.toml").is_file())
    }

    /// Every process below carries this in its environment.
    fn mark(&self) -> String {
        format!("TRIPTYCH_TEST={}", self.dir.path().display())
    }

    /// `triptych` with its standard files in the folder.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(program("triptych"));
        self.dress(&mut command);
        command
    }

    /// Sets what every process of the test has in its environment.
    pub(crate) fn dress(&self, command: &mut Command) {
        let programs = program("triptych").parent().unwrap().to_owned();
        command.env("TRIPTYCH_TEST", self.dir.path()).env("TRIPTYCH_PROGRAMS", programs);
        command
            .env("TMPDIR", self.dir.path().join("tmp"))
            .env_remove("RUST_LOG")
            .current_dir(self.dir.path());
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Started {
        let mut command = self.command();
        command.args(arguments);
        self.start_command(command)
    }

    pub(crate) fn start_command(&self, mut command: Command) -> Started {
        let path = |name: &str| self.dir.path().join(name);
        let (stdout, stderr) = (path("stdout"), path("stderr"));
        command.stdin(Stdio::null());
        command.stdout(fs::File::create(&stdout).unwrap()).stderr(fs::File::create(&stderr).unwrap());
        Started { child: command.spawn().unwrap(), mark: self.mark(), stdout, stderr }
    }

    /// Runs the study to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }

    /// Processes of this test, by what their command line contains.
    pub(crate) fn processes(&self, needle: &str) -> Vec<Pid> {
        let mark = self.mark();
        processes(&mark).into_iter().filter(|(_, line)| line.contains(needle)).map(|(pid, _)| pid).collect()
    }

    /// Waits until the test has a process whose command line contains `needle` and whose run records rows.
    pub(crate) fn recording(&self, needle: &str) -> Pid {
        until(&format!("rows from a run with {needle}"), || {
            let run = self.running()?;
            let rows = recording::reader::read_table(&run, "client.frames").ok()?.rows;
            (rows > 0).then(|| self.processes(needle).first().copied()).flatten()
        })
    }

    /// Folder of the run under way.
    pub(crate) fn running(&self) -> Option<PathBuf> {
        let runs = fs::read_dir(self.study()?.join("runs")).ok()?;
        let mut dirs = runs.filter_map(|e| Some(e.ok()?.path()));
        dirs.find(|d| {
            read_run(&d.join("run.toml")).is_ok_and(|f| f.status == recording::facts::RunStatus::Running)
        })
    }

    /// Facts of every run, in order of execution.
    pub(crate) fn facts(&self) -> Vec<RunFacts> {
        let study = self.study().expect("a study");
        let plan = read_plan(&study.join("plan.toml")).unwrap();
        plan.runs
            .iter()
            .map(|r| read_run(&study.join("runs").join(&r.id).join("run.toml")).unwrap())
            .collect()
    }

    /// Fails when a process of this test still runs after a while.
    pub(crate) fn nothing_is_left(&self) {
        let mark = self.mark();
        until("every process to end", || processes(&mark).is_empty().then_some(()));
    }
}

impl Started {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn end(mut self) -> Ended {
        let status = until("triptych to end", || self.child.try_wait().unwrap());
        let text = |path: &Path| {
            let mut text = String::new();
            fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        Ended { status, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (pid, _) in processes(&self.mark) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Ended {
    /// The `--json` result.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", self.stdout, self.stderr))
    }

    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
    }
}

/// Polls a fact of the outside world (files, processes) that offers nothing to wait on.
pub(crate) fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = fact() {
            return value;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Living processes with `mark` in their environment, with their command lines.
fn processes(mark: &str) -> Vec<(Pid, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A zombie's environment is empty; another user's cannot be read.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|b| *b == 0).any(|v| v == mark.as_bytes()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace("\0", " ")));
        }
    }
    found
}
