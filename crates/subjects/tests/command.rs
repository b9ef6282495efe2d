//! Studies of commands, run for real.
#![allow(clippy::unwrap_used)] // a test may

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use bench::{Campaign, Point, Silent, StudyFile, StudyOutcome};
use recording::reader::{Columns, read_table};
use recording::spec::Level;

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
fn exit_codes_that_are_expected_are_no_failure() {
    let results = tempfile::tempdir().unwrap();
    let (outcome, dir) = run("[command]\nrun = \"exit 3\"\nexit_codes = [0, 3]\n", results.path());
    assert_eq!((outcome.failed.len(), outcome.complete), (0, 1));
    assert_eq!(numbers(&read_table(&dir, "host.command").unwrap(), "exit_code"), [3.0]);
}

#[test]
fn the_studies_that_ship_are_valid() {
    for file in ["compress", "encode"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../studies/{file}.toml"));
        let study = parse(&fs::read_to_string(path).unwrap());
        assert!(study.points(0).len() >= 6 && study.command.is_some(), "{file}");
    }
}
