//! Small real studies: what lies on disk afterwards, and what interruption leaves.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

mod campaign;

use std::fs;

use campaign::{Bench, until};
use recording::facts::RunStatus;
use recording::spec::Panel;
use rustix::process::Signal;
use store::Study;

const THREE_RUNS: &str = "subject = \"streaming\"\nrepeats = 3\nwarmup_s = 0.5\nrecord_s = 2\n\
                          [fixed]\nsource = \"scene\"\ncodec = \"mjpeg\"\nfps = 15\nscene = \"scroll\"\n";

/// The first TOML block of the documentation.
fn example_of_the_docs() -> String {
    let doc = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/studies.md")).unwrap();
    let (_, rest) = doc.split_once("```toml\n").expect("docs/studies.md has a worked example");
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_worked_example_of_the_docs_gives_a_complete_study() {
    let bench = Bench::new(&example_of_the_docs());
    let ended = bench.run(&["run", "small.toml", "--json"]);
    ended.assert_code(0);
    let json = ended.json();
    assert_eq!((&json["complete"], &json["planned"]), (&2.into(), &2.into()), "{json}");
    bench.nothing_is_left();

    let dir = bench.study().unwrap();
    assert_eq!(fs::read_to_string(dir.join("study.toml")).unwrap(), example_of_the_docs());
    let study = Study::open(&dir).unwrap();
    for run in study.runs().unwrap() {
        let (id, fps) = (run.facts.id.as_str(), run.facts.asked["fps"].as_f64().unwrap());
        assert_eq!(run.facts.status, RunStatus::Complete);
        for panel in Panel::ALL {
            let facts = &run.facts.panels[panel.name()];
            assert!(facts.clock.is_some(), "{id}: {panel} has a clock estimate");
            assert!(facts.lost.values().all(|n| *n == 0), "{id}: {panel} lost rows: {:?}", facts.lost);
            let folder = dir.join("runs").join(id);
            for table in ["frames", "process"] {
                let file = folder.join(format!("{panel}.{table}.parquet"));
                assert!(file.is_file(), "{} is missing", file.display());
            }
            assert!(folder.join(format!("{panel}.log")).is_file());
        }
        let joined = study.joined(id).unwrap();
        let [start, end] = run.facts.window_ns.expect("a complete run has a window");
        let inside = joined.t_ns.iter().zip(&joined.rows).filter(|(t, _)| (start..end).contains(*t));
        let partners: Vec<_> = inside.map(|(_, row)| row.iter().flatten().count()).collect();
        assert!(partners.len() as f64 > 0.8 * fps * study.plan.record_s, "{id}: {} frames", partners.len());
        assert!(partners.iter().all(|n| *n == 3), "{id}: every frame finds its partners: {partners:?}");
        assert_eq!(joined.mismatched, 0, "{id}: sizes agree");
        let delivered = run.responses["delivered_fps"];
        assert!((delivered - fps).abs() < 0.15 * fps, "{id}: {delivered} frames/s delivered of {fps}");
        let (p50, p95) = (run.responses["latency_p50"], run.responses["latency_p95"]);
        assert!(p50 > 0.0 && p50 <= p95 && p95 < 1_000.0, "{id}: latency {p50} / {p95} ms");
    }

    let table = bench.run(&["show", "latest"]);
    table.assert_code(0);
    assert!(table.stdout.contains("delivered fps") && table.stdout.contains("p95"), "{}", table.stdout);
    let listed = bench.run(&["list", "--json"]).json();
    assert_eq!((&listed[0]["complete"], &listed[0]["runs"]), (&2.into(), &2.into()));
}

#[test]
fn after_kill_9_the_study_is_readable_and_resumes() {
    let bench = Bench::new(THREE_RUNS);
    let started = bench.start(&["run", "small.toml"]);
    bench.recording("triptych-client");
    started.signal(Signal::KILL);
    let killed = started.end();
    assert_eq!(killed.status.code(), None, "{}", killed.stderr);
    bench.nothing_is_left();

    let run = bench.running().expect("the run is still marked as running");
    let columns = recording::reader::read_table(&run, "client.frames").unwrap();
    assert!(columns.rows > 0);
    let torn = Study::open(&bench.study().unwrap()).unwrap().runs().unwrap().pop().unwrap().facts;
    assert_eq!(torn.status, RunStatus::Interrupted);
    assert!(torn.reason.starts_with("broken off"), "{}", torn.reason);
    let listed = bench.run(&["list", "--json"]).json();
    assert_eq!((&listed[0]["interrupted"], &listed[0]["under_way"]), (&1.into(), &false.into()));

    let resumed = bench.run(&["run", "--resume", "latest", "--json"]);
    resumed.assert_code(0);
    assert_eq!(resumed.json()["complete"], 3);
    assert!(bench.facts().iter().all(|f| f.status == RunStatus::Complete));
    assert!(bench.study().unwrap().join("superseded").is_dir(), "the torn run is kept");
    bench.nothing_is_left();
}

#[test]
fn ctrl_c_stops_everything_and_says_how_to_go_on() {
    let bench = Bench::new(THREE_RUNS);
    let started = bench.start(&["run", "small.toml"]);
    bench.recording("triptych-client");
    started.signal(Signal::INT);
    let ended = started.end();
    ended.assert_code(130);
    bench.nothing_is_left();
    let facts = recording::facts::read_run(
        &bench.study().unwrap().join("runs").join(first_run(&bench)).join("run.toml"),
    );
    assert_eq!(facts.unwrap().status, RunStatus::Interrupted);

    let (_, command) = ended.stderr.split_once("go on with:  ").expect("the command to resume");
    let words: Vec<_> = command.lines().next().unwrap().split(' ').collect();
    assert!(words[0].ends_with("triptych"), "the program as it was called: {}", words[0]);
    assert_eq!(words[1..3], ["run", "--resume"]);
    let resumed = bench.run(&words[1..]);
    resumed.assert_code(0);
    assert!(bench.facts().iter().all(|f| f.status == RunStatus::Complete));
}

fn first_run(bench: &Bench) -> String {
    let study = bench.study().unwrap();
    let runs = fs::read_dir(study.join("runs")).unwrap();
    runs.map(|e| e.unwrap().file_name().into_string().unwrap()).min().unwrap()
}

#[test]
fn ctrl_c_at_any_moment_of_the_start_leaves_nothing_behind() {
    let bench = Bench::new(THREE_RUNS);
    let started = bench.start(&["run", "small.toml"]);
    until("the host to start", || bench.processes("triptych-host").first().copied());
    started.signal(Signal::INT);
    started.end().assert_code(130);
    bench.nothing_is_left();
}

#[test]
fn a_display_is_captured_and_taken_down() {
    let bench = Bench::new(&THREE_RUNS.replace("\"scene\"", "\"x11\"").replace("repeats = 3", "repeats = 1"));
    let ended = bench.run(&["run", "small.toml", "--json"]);
    ended.assert_code(0);
    let run = &bench.facts()[0];
    assert_eq!(run.asked["source"].to_string(), "x11");
    let study = Study::open(&bench.study().unwrap()).unwrap();
    let delivered = study.runs().unwrap()[0].responses["delivered_fps"];
    assert!(delivered > 10.0, "{delivered} frames/s of the display");
    bench.nothing_is_left();
}

#[test]
fn the_streaming_subject_conforms() {
    let results = tempfile::tempdir().unwrap();
    let programs = system_tests::program("triptych-guest").parent().unwrap().to_owned();
    let mut subject = subjects::streaming::Streaming::new(programs);
    let wrong =
        bench::Point { index: 0, settings: [("fps".to_owned(), recording::spec::Level::Int(0))].into() };
    let text = THREE_RUNS.replace("repeats = 3", "repeats = 1");
    bench::conformance::check(&mut subject, &text, &wrong, results.path()).unwrap();
}
