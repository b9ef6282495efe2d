//! What reading others' records costs: `cargo bench --workspace --bench import`.
//!
//! - `rec/parse`: bytes of a `.rec` in memory to columns in memory;
//! - `rec/parse+write`: a file to a run's Parquet files (parsing, SHA-1, compression; not synced);
//! - `rec/python`: `json.loads` of each line of the same file by `python3`, reading included in neither of the two: it is
//!   the bar, and only makes lists of it;
//! - `results/1000`, `results/10000`: finding and reading a tree of so many runs with one extractor.
//!
//! Times are CPU times of the working thread (of Python: of its process), so that what else the machine does counts little.
//!
//! The `.rec` is made of a fixture by repeating the rows of each table until it has 50 MB.
#![allow(clippy::unwrap_used)] // a benchmark may fail loudly
#![allow(missing_docs)] // criterion's macros make items without

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use recording::import::extract::Extractors;
use recording::import::{Import, Options, rec, survey};
use rustix::time::{ClockId, clock_gettime};

const SIZE: usize = 50_000_000;
const PYTHON: &str = "
import json, sys, time
lines = [line for line in open(sys.argv[1]) if line[0] == '[']
start = time.process_time()
for _ in range(int(sys.argv[2])):
    for line in lines:
        json.loads(line)
print(time.process_time() - start)
";

fn fixture() -> PathBuf {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/import/study_keyframes"));
    dir.join("webgl_cubemap/1920x1080/bitrate=32000_rate-control=cbr_keyframe-period=150_framerate=30.rec")
}

/// The fixture with the rows of each table repeated until it has about [`SIZE`] bytes.
fn large() -> Vec<u8> {
    let text = fs::read_to_string(fixture()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let rows: usize = lines.iter().skip(2).step_by(3).map(|l| l.len()).sum();
    let times = SIZE / rows + 1;
    let mut out = String::with_capacity(SIZE + SIZE / 8);
    for (i, line) in lines.iter().enumerate() {
        match line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            Some(inner) if i % 3 == 2 && !inner.is_empty() => {
                out.push('[');
                out.push_str(&vec![inner; times].join(", "));
                out.push(']');
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    assert!(out.len() >= SIZE);
    out.into_bytes()
}

/// CPU time that `n` times `work` take.
fn cpu<T>(n: u64, mut work: impl FnMut() -> T) -> Duration {
    let now = || {
        let t = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(t.tv_sec.try_into().unwrap(), t.tv_nsec.try_into().unwrap())
    };
    let start = now();
    for _ in 0..n {
        drop(std::hint::black_box(work()));
    }
    now() - start
}

fn rec_files(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, path) = (large(), dir.path().join("large.rec"));
    fs::write(&path, &bytes).unwrap();
    let mut group = c.benchmark_group("rec");
    group.sample_size(10).throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("parse", |b| b.iter_custom(|n| cpu(n, || rec::parse(&bytes, &path).unwrap())));
    group.bench_function("parse+write", |b| {
        let options = Options::default();
        let source = survey(std::slice::from_ref(&path), &options).unwrap().sources.remove(0);
        b.iter_custom(|n| {
            cpu(n, || {
                let mut import = Import::begin(&dir.path().join("study"), false, 1).unwrap();
                import.add(source.read(&options).unwrap()).unwrap()
            })
        });
    });
    if Command::new("python3").arg("--version").output().is_ok() {
        group.bench_function("python", |b| b.iter_custom(|n| python(&path, n)));
    } else {
        eprintln!("no python3 here: its figure is left out");
    }
    group.finish();
}

fn python(path: &Path, times: u64) -> Duration {
    let output =
        Command::new("python3").args(["-c", PYTHON]).arg(path).arg(times.to_string()).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    Duration::from_secs_f64(told.trim().parse().unwrap())
}

fn results_trees(c: &mut Criterion) {
    let mut group = c.benchmark_group("results");
    group.sample_size(10);
    for runs in [1_000, 10_000] {
        let dir = tempfile::tempdir().unwrap();
        for run in 0..runs {
            let folder = dir.path().join(format!("mode_{}/run_{run}", run % 10));
            fs::create_dir_all(&folder).unwrap();
            fs::write(
                folder.join("settings"),
                format!("run={}\nmode={}\nsize={}\n", run / 100, run % 10, run / 10 % 10),
            )
            .unwrap();
            fs::write(folder.join("exit_code"), "0\n").unwrap();
            fs::write(folder.join("stdout"), format!("begin\nelapsed: {}.5 s\nend\n", run)).unwrap();
        }
        let text =
            "[[extract]]\nname = 'elapsed'\nfile = 'stdout'\nregex = 'elapsed: ([\\d.]+) s'\nunit = 's'\n";
        let options = Options {
            extractors: Extractors::parse(text, Path::new("bench")).unwrap(),
            ..Options::default()
        };
        group.throughput(Throughput::Elements(runs));
        group.bench_function(BenchmarkId::from_parameter(runs), |b| {
            b.iter_custom(|n| {
                cpu(n, || {
                    let found = survey(&[dir.path().to_owned()], &options).unwrap();
                    found.sources.iter().map(|s| s.read(&options).unwrap().tables.len()).sum::<usize>()
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rec_files, results_trees);
criterion_main!(benches);
