//! The real agent as a process, and what a process uses.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recording::collector::Collector;
use rustix::process::{Pid, Signal, kill_process};

/// An agent's process that ends with this value.
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts it with its folders in `dir`, and waits until the collector has welcomed it.
    pub(crate) fn start(dir: &Path, collector: &Collector, arguments: &[&str]) -> Self {
        let probes = dir.join("probes");
        let agent = Command::new(env!("CARGO_BIN_EXE_triptych-agent"))
            .args(["run", "--collector", &collector.address().to_string()])
            .arg("--probes")
            .arg(&probes)
            .arg("--spool")
            .arg(dir.join("spool"))
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self(agent);
        let begin = Instant::now();
        while !probes.join("agent.lock").exists() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the agent did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        // What is emitted before the record begins is none of it.
        while collector.next_event(Duration::from_millis(300)).is_some() {}
        agent
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it in order.
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success(), "the agent sends what it has before it ends");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has used.
pub(crate) struct Used {
    /// CPU time of the threads that it has now, in seconds, to the nanosecond.
    pub(crate) cpu: f64,
    /// Its largest resident size in MB.
    pub(crate) rss: f64,
}

pub(crate) fn used(pid: u32) -> Used {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ran = |thread: std::io::Result<fs::DirEntry>| -> Option<f64> {
        let schedstat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        schedstat.split_whitespace().next()?.parse().ok()
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    Used { cpu: threads.filter_map(ran).sum::<f64>() / 1e9, rss: kilobytes / 1e3 }
}
