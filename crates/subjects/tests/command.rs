//! Studies of commands, run for real.
#![allow(clippy::unwrap_used)] // a test may

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use bench::{Campaign, Left, Machine, Manner, Point, Progress, Silent, StudyFile, StudyOutcome};
use probe::{ColumnType, Table, Value};
use recording::facts::{PlannedRun, RunStatus, read_run};
use recording::reader::{Columns, read_table};
use recording::spec::{Level, Levels};
use units::{Clock, MonotonicClock, Nanos};

fn parse(text: &str) -> StudyFile {
    StudyFile::parse(text, "x.toml", &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Runs a study of one run; gives how it ended and the run's folder.
fn run(text: &str, results: &Path) -> (StudyOutcome, std::path::PathBuf) {
    let study = parse(&format!("subject = \"command\"\nrepeats = 1\n{text}"));
    let campaign = Campaign::create(results, "x", &study, 1).unwrap();
    let mut subject = subjects::of(Some(&study), "/nowhere".into());
    let outcome =
        bench::run_study(&campaign, subject.as_mut(), &AtomicBool::new(false), &mut Silent).unwrap();
    let dir = campaign.run_dir(&campaign.facts.runs[0]);
    (outcome, dir)
}

fn numbers(table: &Columns, name: &str) -> Vec<f64> {
    table.get(name).unwrap().numbers()
}

#[test]
fn a_command_does_what_every_subject_must() {
    let text = "subject = \"command\"\nrepeats = 2\n[command]\nrun = \"sleep 0.01; echo {n}\"\n[factors]\nn = [1, 2]\n";
    let study = parse(text);
    let mut subject = subjects::of(Some(&study), "/nowhere".into());
    let wrong = Point { index: 0, settings: [("m".into(), Level::Int(1))].into() };
    let results = tempfile::tempdir().unwrap();
    bench::conformance::check(subject.as_mut(), text, &wrong, results.path()).unwrap();
}

#[test]
fn each_execution_is_a_row_of_what_it_took_and_said() {
    let results = tempfile::tempdir().unwrap();
    let (outcome, dir) = run(
        "[command]
prepare = \"echo made >> '{run_dir}/order'\"
run = \"echo run >> {run_dir}/order; i=0; while [ $i -lt {n} ]; do i=$((i+1)); done; \
            echo \\\"speed: $i.5 MB/s\\\"; echo '{{\\\"a\\\": [1, 7]}}' > {run_dir}/out.json; echo $TOKEN >&2\"
cleanup = \"echo gone >> {run_dir}/order\"
executions = 3
warmup = 1
env = { TOKEN = \"t-{n}\" }
[[extract]]
name = 'speed'
file = 'stdout'
regex = 'speed: ([\\d.]+) MB/s'
unit = 'MB/s'
[[extract]]
name = 'last'
file = 'out.json'
json = '$.a[-1]'
[fixed]
n = 2000
",
        results.path(),
    );
    assert_eq!(outcome.failed, []);
    let took = read_table(&dir, "host.command").unwrap();
    assert_eq!(took.rows, 3, "a warm-up leaves no row");
    for name in ["wall_ns", "max_rss_bytes"] {
        assert!(numbers(&took, name).iter().all(|x| *x > 0.0), "{name}");
    }
    assert_eq!(numbers(&took, "exit_code"), [0.0; 3]);
    let said = read_table(&dir, "host.results").unwrap();
    assert_eq!((numbers(&said, "speed"), numbers(&said, "last")), (vec![2000.5; 3], vec![7.0; 3]));
    assert_eq!(said.unit("speed"), Some("MB/s"));
    assert_eq!(fs::read_to_string(dir.join("order")).unwrap(), "made\nrun\ngone\n".repeat(4));
    assert_eq!(fs::read_to_string(dir.join("stderr")).unwrap(), "t-2000\n");
}

#[test]
fn a_run_that_fails_says_why_and_is_cleaned_up() {
    let extract = "[[extract]]\nname = 'speed'\nfile = 'stdout'\nregex = 'speed: (\\d+)'\n";
    for (text, reason) in [
        (
            "[command]\nrun = \"echo 'no such device' >&2; exit 3\"\n".to_owned(),
            "the command ended early (exit status 3): no such device",
        ),
        (
            "[command]\nrun = \"kill -9 $$\"\n".to_owned(),
            "the command ended early (killed by signal 9): it left no message",
        ),
        ("[command]\nrun = [\"/nowhere/tool\"]\n".to_owned(), "cannot start /nowhere/tool"),
        (
            "[command]\nrun = \"sleep 1000\"\ntimeout_s = 0.1\n".to_owned(),
            "sh did not end within 0.1 s and was killed",
        ),
        (
            "[command]\nrun = \"true\"\nprepare = \"echo full; exit 1\"\n".to_owned(),
            "prepare ended early (exit status 1): full",
        ),
        (
            format!("[command]\nrun = \"echo speed: fast\"\n{extract}"),
            "`speed` is not in the output: extractor 'speed': no match",
        ),
    ] {
        let results = tempfile::tempdir().unwrap();
        let text = text.replacen('\n', "\ncleanup = \"touch {run_dir}/cleaned\"\n", 1);
        let (outcome, dir) = run(&text, results.path());
        let [(_, told)] = outcome.failed.as_slice() else { panic!("{text}: {outcome:?}") };
        assert!(told.starts_with(reason), "{text}: {told}");
        assert!(dir.join("cleaned").exists() || text.contains("prepare"), "{text}");
    }
}

#[test]
fn a_run_that_fails_in_the_end_keeps_the_rows_of_before() {
    let results = tempfile::tempdir().unwrap();
    let text = "[command]\nexecutions = 3\nrun = \"test $(ls {run_dir}/n.* | wc -l) -lt 3 && mktemp {run_dir}/n.XXX\"\n\
                prepare = \"mktemp {run_dir}/n.XXX\"\n";
    let (outcome, dir) = run(text, results.path());
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
    assert_eq!(read_table(&dir, "host.command").unwrap().rows, 1, "the second execution failed");
    let left = fs::read_dir(&dir)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "arrows"));
    assert_eq!(left.count(), 0, "closed as every run is");
}

#[test]
fn what_an_earlier_execution_left_is_not_taken_for_this_ones() {
    let results = tempfile::tempdir().unwrap();
    let text = "[command]\nexecutions = 2\nrun = \"test -e once || echo 7 > {run_dir}/n; touch once\"\n\
                [[extract]]\nname = 'n'\nfile = 'n'\nregex = '(\\d+)'\n";
    let (outcome, _) = run(text, results.path());
    let [(_, told)] = outcome.failed.as_slice() else { panic!("{outcome:?}") };
    assert!(told.starts_with("`n` is not in the output"), "{told}");
}

#[test]
fn exit_codes_that_are_expected_are_no_failure() {
    let results = tempfile::tempdir().unwrap();
    let (outcome, dir) = run("[command]\nrun = \"exit 3\"\nexit_codes = [0, 3]\n", results.path());
    assert_eq!((outcome.failed.len(), outcome.complete), (0, 1));
    assert_eq!(numbers(&read_table(&dir, "host.command").unwrap(), "exit_code"), [3.0]);
}

/// Counts the runs that were started, and how they ended.
#[derive(Default)]
struct Ends {
    started: Rc<Cell<u32>>,
    ended: Vec<bench::RunEnd>,
}

impl Progress for Ends {
    fn run_started(&mut self, _: &PlannedRun, _: &Levels) {
        self.started.set(self.started.get() + 1);
    }

    fn run_ended(&mut self, end: &bench::RunEnd, _: Left) {
        self.ended.push(end.clone());
    }
}

/// A machine that has no memory left while the first `bad` runs go on.
struct Full {
    started: Rc<Cell<u32>>,
    bad: u32,
    stalled_us: u64,
    last: Option<Nanos>,
}

impl Machine for Full {
    fn sample(&mut self, row: &mut dyn FnMut(&Table, Nanos, &[Value])) {
        let now = MonotonicClock.now();
        if self.started.get() <= self.bad {
            self.stalled_us += self.last.map_or(0, |last| (now.0 - last.0) as u64 / 1000);
        }
        self.last = Some(now);
        let table =
            Table::new("pressure", "made up").column("memory_full_us", ColumnType::U64, "us", "stalled");
        row(&table, now, &[Value::U64(self.stalled_us)]);
    }
}

/// Runs a study in front of such a machine.
fn run_before(
    bad: u32,
    retries: u32,
    fail_fast: bool,
    text: &str,
) -> (StudyOutcome, Vec<bench::RunEnd>, Campaign) {
    let results = tempfile::tempdir().unwrap().keep();
    let study = parse(&format!("subject = \"command\"\n{text}"));
    let campaign = Campaign::create(&results, "x", &study, 1).unwrap();
    let mut subject = subjects::of(Some(&study), "/nowhere".into());
    let mut ends = Ends::default();
    let mut machine = Full { started: Rc::clone(&ends.started), bad, stalled_us: 0, last: None };
    let mut nobody = |_: &recording::Address| None;
    let manner = Manner { agent: &mut nobody, machine: Some(&mut machine), retries, fail_fast };
    let cancel = AtomicBool::new(false);
    let outcome = bench::run_study_watched(&campaign, subject.as_mut(), &cancel, &mut ends, manner).unwrap();
    (outcome, ends.ended, campaign)
}

#[test]
fn a_disturbed_run_is_done_again_as_often_as_is_wanted_and_says_so() {
    let text = "repeats = 1\n[command]\nrun = [\"sleep\", \"1.1\"]\n";
    for (bad, retries, attempts, disturbed) in
        [(0, 2, 1, false), (1, 2, 2, false), (9, 2, 3, true), (9, 0, 1, true)]
    {
        let (outcome, ended, campaign) = run_before(bad, retries, false, text);
        assert_eq!((outcome.complete, ended.len()), (1, attempts), "{bad} {retries}");
        let run = &campaign.facts.runs[0];
        let facts = read_run(&campaign.run_dir(run).join("run.toml")).unwrap();
        assert_eq!(facts.quality.unwrap().disturbed, disturbed, "{bad} {retries}");
        let said =
            facts.markers.iter().find(|marker| marker.kind == "retry").map(|marker| marker.text.as_str());
        assert_eq!(said.is_some(), attempts > 1, "{said:?}");
        assert!(said.is_none_or(|said| said.contains("disturbed: pressure on host")), "{said:?}");
        let kept = campaign.dir.join("superseded");
        assert_eq!(fs::read_dir(&kept).map_or(0, Iterator::count), attempts - 1);
        for entry in fs::read_dir(&kept).into_iter().flatten() {
            let first = read_run(&entry.unwrap().path().join("run.toml")).unwrap();
            assert!(first.quality.unwrap().disturbed && first.status == RunStatus::Complete);
        }
        fs::remove_dir_all(campaign.dir.parent().unwrap()).unwrap();
    }
}

#[test]
fn the_first_failure_ends_a_study_only_where_that_is_wanted() {
    let text = "repeats = 3\n[command]\nrun = \"exit 1\"\n";
    for (fail_fast, failed) in [(true, 1), (false, 3)] {
        let (outcome, ended, campaign) = run_before(0, 0, fail_fast, text);
        assert_eq!((outcome.failed.len(), ended.len(), outcome.complete), (failed, failed, 0));
        assert_eq!(campaign.pending().len(), 3);
        fs::remove_dir_all(campaign.dir.parent().unwrap()).unwrap();
    }
}

#[test]
fn the_studies_that_ship_are_valid() {
    for file in ["compress", "encode"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../studies/{file}.toml"));
        let study = parse(&fs::read_to_string(path).unwrap());
        assert!(study.points(0).len() >= 6 && study.command.is_some(), "{file}");
    }
}
