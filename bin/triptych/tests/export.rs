//! `triptych export` and `triptych show` of records, as `docs/export.md` says it, on a study with a known truth.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use recording::hold::Hold;
use serde_json::Value;
use store::synthetic::{Recipe, write};

const PROGRAM: &str = env!("CARGO_BIN_EXE_triptych");

fn study(dir: &Path, recipe: Recipe) {
    write(&dir.join("results/synthetic"), recipe).unwrap();
}

fn triptych(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).current_dir(dir).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}

#[test]
fn the_examples_of_the_document_work_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path(), Recipe { repeats: 1, seconds: 2.0, failed: 0, running: false });
    let text = include_str!("../../../docs/export.md");
    let examples: Vec<_> =
        text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    for example in examples {
        let mut command = Command::new("bash");
        let done =
            command.args(["-e", "-c", example]).current_dir(dir.path()).env("PATH", &path).output().unwrap();
        assert!(done.status.success(), "{example}{}", String::from_utf8_lossy(&done.stderr));
    }
    let out = |name: &str| dir.path().join("out").join(name);
    let lines = |path: std::path::PathBuf| fs::read_to_string(path).unwrap().lines().count();
    assert_eq!(lines(out("csv/runs.csv")), 1 + 8, "a run for each point");
    assert!(fs::read_to_string(out("csv/columns.csv")).unwrap().contains(",presented_ns,i64,ns,"));
    assert_eq!(lines(out("jsonl/runs.jsonl")), 8);
    assert_eq!(
        lines(out("jsonl/tables.jsonl")),
        8 * 3,
        "three tables of frames; the joined ones are not among them"
    );
    assert_eq!(fs::read_dir(out("traces")).unwrap().count(), 8);
    assert!(out("parquet/columns.parquet").is_file());
}

#[test]
fn what_is_in_a_study_a_run_and_a_table_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path(), Recipe { repeats: 1, seconds: 2.0, failed: 1, running: true });
    let runs = dir.path().join("results/synthetic/runs");
    let mut ids: Vec<_> =
        fs::read_dir(&runs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    ids.sort();
    let (first, running) = (&ids[0], &ids[ids.len() - 1]);

    let shown = json(&triptych(dir.path(), &["show", "synthetic", "--run", first, "--json"]));
    assert_eq!(shown["facts"]["status"], "complete");
    assert_eq!(shown["clocks"]["client"]["uncertainty_ns"], 31_000);
    let tables = shown["tables"].as_array().unwrap();
    let table = |name: &str| tables.iter().find(|t| t["name"] == name).unwrap();
    assert_eq!(table("guest.process")["indicators"][0]["unit"], "%");
    assert!(
        (table("guest.process")["rate_hz"].as_f64().unwrap() - 4.0).abs() < 0.01,
        "four samples a second"
    );

    let text = triptych(dir.path(), &["show", runs.join(first).to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    for part in
        ["guest: synthetic-guest 0", "offset 123000000456 ns", "window_start", "guest.frames.encode_ns"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    let hold = Hold::take(&dir.path().join("results/synthetic")).unwrap().unwrap();
    let shown = || json(&triptych(dir.path(), &["show", "synthetic", "--run", running, "--json"]));
    let listed = || json(&triptych(dir.path(), &["list", "--json"]))[0].clone();
    assert_eq!(shown()["facts"]["status"], "running");
    assert!(shown()["tables"].as_array().unwrap().iter().all(|t| t["rows"].as_u64() > Some(0)));
    assert_eq!((&listed()["under_way"], &listed()["interrupted"]), (&Value::Bool(true), &0.into()));
    drop(hold);
    assert_eq!(shown()["facts"]["status"], "interrupted");
    assert_eq!((&listed()["under_way"], &listed()["interrupted"]), (&Value::Bool(false), &1.into()));
    let text = triptych(dir.path(), &["show", runs.join(running).to_str().unwrap()]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("interrupted: broken off"));

    let file = runs.join(first).join("guest.frames.parquet");
    let file = json(&triptych(dir.path(), &["show", file.to_str().unwrap(), "--json"]));
    assert_eq!(file["indicators"][0]["name"], "seq");

    let all = json(&triptych(dir.path(), &["show", "synthetic", "--tables", "--json"]));
    let frames = all["tables"].as_array().unwrap().iter().find(|t| t["name"] == "guest.frames").unwrap();
    assert_eq!(frames["runs"], 8);
}

#[test]
fn wrong_requests_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    study(dir.path(), Recipe { repeats: 1, seconds: 1.0, failed: 0, running: false });
    for (arguments, told) in [
        (["synthetic", "--run=r9999", "--out=out"], "r9999"),
        (["synthetic", "--table=nothing", "--out=out"], "no table is called nothing"),
        (["synthetic", "--force", "--out=results/synthetic/runs"], "part of the record"),
        (["synthetic", "--clock=panel", "--out=results"], "--force"),
        (["elsewhere", "--clock=panel", "--out=out"], "triptych list"),
    ] {
        let output = triptych(dir.path(), &[&["export", "--format=csv"], &arguments[..]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(told), "{arguments:?}: {error}");
    }
}
