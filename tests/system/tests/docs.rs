//! The worked examples of `docs/streaming.md`, `docs/recording.md`, `docs/commands.md` and `docs/compare.md`, run as they stand there.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use system_tests::program;

#[test]
fn the_example_of_streaming_by_hand_works_as_it_is_written() {
    let text = include_str!("../../../docs/streaming.md");
    let example = example(text);
    // The port of the text may be somebody's; this one was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let example = example.replace(":5900", &format!(":{free}"));
    let folder = tempfile::tempdir().unwrap();
    let output = run(&example, folder.path());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = told.lines().find(|l| l.starts_with('{') && l.contains("arrival_to_present"));
    let summary: serde_json::Value =
        serde_json::from_str(summary.unwrap_or_else(|| panic!("{told}"))).unwrap();
    let frames = summary["frames"].as_u64().unwrap();
    assert!((10..=95).contains(&frames), "three seconds of at most 30 frames a second: {summary}");
    assert!(summary["arrival_to_present_p50_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{summary}");
}

#[test]
fn the_example_of_recording_works_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(example(include_str!("../../../docs/recording.md")), folder.path());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    for expected in ["all is quiet", "guest.cpu", "busy_percent", "guest.pressure"] {
        assert!(told.contains(expected), "no {expected} in:\n{told}");
    }
    let frames = recording::reader::read_table(&folder.path().join("demo/runs/r0001-p00-k0"), "guest.cpu");
    let rows = frames.unwrap().rows;
    assert!((5..=65).contains(&rows), "{rows} rows in six seconds of at most ten a second");
}

#[test]
fn the_example_of_commands_works_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(example(include_str!("../../../docs/commands.md")), folder.path());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    for expected in ["block", "512", "2048", "8192", "speed", "as dd says", "time", "memory"] {
        assert!(told.contains(expected), "no {expected} in:\n{told}");
    }
}

#[test]
fn the_example_of_comparing_works_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(example(include_str!("../../../docs/compare.md")), folder.path());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    let (first, second) = told.split_at(told.rfind("\nA ").unwrap());
    assert!(first.contains("WORSE") && !second.contains("WORSE"), "{told}");
    let time = first.lines().find(|line| line.contains("time") && line.contains('%')).unwrap();
    assert!(time.contains("+3") || time.contains("+4") || time.contains("+5"), "a half more: {time}");
}

#[test]
fn a_plan_says_what_a_study_would_be_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.toml"), include_str!("../../../studies/compress.toml")).unwrap();
    let output = run("triptych plan x.toml --json --seed 3; triptych plan x.toml; ls", folder.path());
    let told = String::from_utf8(output.stdout).unwrap();
    let json: serde_json::Value =
        serde_json::Deserializer::from_str(&told).into_iter().next().unwrap().unwrap();
    assert_eq!((&json["points"], &json["runs"], &json["seed"]), (&11.into(), &33.into(), &3.into()));
    assert!(json["factors"][0]["resolves_sd"].as_f64().is_some_and(|sd| (0.5..3.0).contains(&sd)), "{json}");
    let others = "cat > y.toml <<'END'\nsubject = 'command'\nrepeats = 1\n[command]\nrun = 'true'\nEND\n\
                  triptych run y.toml --out r > /dev/null; echo \"subject = 'streaming'\" > z.toml\n\
                  triptych plan z.toml --like latest --results r || echo refused $?\n\
                  triptych compare latest --self-test --results r || echo too few $?\n\
                  triptych compare latest:x=1 latest --results r || echo wrong $?\n";
    let refused = String::from_utf8(run(others, tempfile::tempdir().unwrap().path()).stdout).unwrap();
    for expected in ["refused 2", "1 runs of point 0 are too few to tell", "too few 1", "wrong 2"] {
        assert!(refused.contains(expected), "no {expected} in: {refused}");
    }
    assert!(
        told.contains("11 points (full design of 12 combinations)") && told.ends_with("x.toml\n"),
        "{told}"
    );
}

#[test]
fn events_tell_what_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let study = "subject = 'command'\nrepeats = 2\n[command]\nrun = ['sh', '-c', 'exit {code}']\n[factors]\ncode = [0, 1]\n";
    std::fs::write(folder.path().join("x.toml"), study).unwrap();
    let output = run("triptych run x.toml --events - || test $? = 1", folder.path());
    let told = String::from_utf8(output.stdout).unwrap();
    let events: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let runs = ["run_started", "run_ended"].repeat(4);
    assert_eq!(kinds, [&["study_started"][..], &runs, &["study_ended"]].concat());
    assert_eq!((&events[9]["complete"], &events[9]["failed"]), (&2.into(), &2.into()));
    for pair in events[1..9].chunks(2) {
        let (code, status) = (&pair[0]["levels"]["code"], &pair[1]["status"]);
        assert_eq!(status, if *code == 0 { "complete" } else { "failed" }, "{pair:?}");
        assert_eq!(pair[1]["responses"]["wall"].is_f64(), *code == 0);
    }
}

/// The studies of well-known programs, with one run of each point.
#[test]
fn the_studies_that_ship_run_and_tell_what_they_promise() {
    for (file, text, response, least) in [
        ("compress", include_str!("../../../studies/compress.toml"), "size", 11),
        ("encode", include_str!("../../../studies/encode.toml"), "rate", 6),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let once = text.replace("repeats = 3", "repeats = 1");
        assert_ne!(once, text);
        std::fs::write(folder.path().join(format!("{file}.toml")), once).unwrap();
        let output = run(&format!("triptych run {file}.toml --json"), folder.path());
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&told["failed"], &told["complete"]),
            (&serde_json::json!([]), &told["planned"]),
            "{file}"
        );
        let cells = told["table"]["responses"][response]["cells"].as_array().unwrap();
        assert_eq!(cells.len(), least, "{file}");
        for cell in cells {
            assert!(cell["mean"].as_f64().is_some_and(|mean| mean > 0.0), "{file}: {cell}");
        }
    }
}

/// The first example of a document.
fn example(text: &str) -> &str {
    text.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0
}

/// Runs an example with our programs at hand; whatever becomes of it, nothing of it is left running.
fn run(example: &str, folder: &Path) -> Output {
    let example = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{example}");
    let programs = program("triptych-client").parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("bash")
        .args(["-e", "-c", &example])
        .current_dir(folder)
        .env("PATH", path)
        .stderr(Stdio::inherit())
        .output()
        .unwrap()
}
