//! What the engine adds to a run, and what it takes to go on with a campaign: `cargo bench --workspace --bench engine [-- RUNS]`.
//!
//! A campaign of runs of `true`. What a run takes beyond the time that its record says the program took, from its start until
//! its end, is the engine's: folder, process, samples of the machine, tables, facts, and its share of syncing. Then a folder of
//! the same campaign with nothing left to do is opened again, in a fresh process's state of mind: the files are in the page cache.
#![allow(clippy::unwrap_used)] // a benchmark may fail loudly

use std::io::{Write, stdout};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bench::{Campaign, Left, Progress, RunEnd, StudyFile};
use recording::facts::{PlannedRun, RunStatus};
use recording::spec::Levels;

const RUNS: u32 = 10_000;

/// Time of each run, and what of it was the program's.
#[derive(Default)]
struct Times {
    started: Option<Instant>,
    beyond_us: Vec<f64>,
}

impl Progress for Times {
    fn run_started(&mut self, _: &PlannedRun, _: &Levels) {
        self.started = Some(Instant::now());
    }

    fn run_ended(&mut self, end: &RunEnd, _: Left) {
        let all = self.started.unwrap().elapsed();
        assert_eq!(end.status, RunStatus::Complete, "{}", end.reason);
        let wall_ms = end.summary.as_ref().unwrap().responses["wall"];
        self.beyond_us.push(all.as_secs_f64() * 1e6 - wall_ms * 1e3);
    }
}

fn main() {
    // Cargo says `--bench` to benchmarks and `--test` when it only tries them.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let trial = arguments.iter().any(|a| a == "--test");
    let runs = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(if trial { 3 } else { RUNS });
    let text = format!("subject = \"command\"\nrepeats = {runs}\n[command]\nrun = [\"true\"]\n");
    let study = StudyFile::parse(&text, "true.toml", &[]).unwrap();
    let results = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let campaign = Campaign::create(results.path(), "true", &study, 1).unwrap();
    let (mut times, begin) = (Times::default(), Instant::now());
    let mut subject = subjects::of(Some(&study), "/nowhere".into());
    let outcome = bench::run_study(&campaign, subject.as_mut(), &AtomicBool::new(false), &mut times).unwrap();
    assert_eq!(outcome.complete, outcome.planned);
    let all = begin.elapsed();
    let beyond = &mut times.beyond_us;
    let mean = beyond.iter().sum::<f64>() / beyond.len() as f64;
    beyond.sort_by(f64::total_cmp);
    let quantile = |q: f64| beyond[((beyond.len() - 1) as f64 * q) as usize];
    let mut out = stdout();
    writeln!(
        out,
        "{runs} runs of `true` in {:.1} s: the engine adds {mean:.0} us to a run (median {:.0}, 99 % below {:.0})",
        all.as_secs_f64(),
        quantile(0.5),
        quantile(0.99)
    )
    .unwrap();
    let dir = campaign.dir.clone();
    drop(campaign);
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let begin = Instant::now();
        let campaign = Campaign::reopen(&dir).unwrap();
        assert_eq!(campaign.pending(), []);
        least = least.min(begin.elapsed());
    }
    writeln!(out, "going on with it where nothing is left to do: {:.0} ms", least.as_secs_f64() * 1e3)
        .unwrap();
}
