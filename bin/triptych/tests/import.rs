//! The worked examples of `docs/import.md`, run as they stand there, and the command's exits.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::path::Path;
use std::process::{Command, Output};

fn triptych() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_triptych"))
}

fn bash(script: &str, folder: &Path) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", triptych().parent().unwrap().display());
    Command::new("bash").args(["-e", "-c", script]).current_dir(folder).env("PATH", path).output().unwrap()
}

fn json(folder: &Path, script: &str) -> serde_json::Value {
    let output = bash(script, folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_examples_of_the_documentation_work_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let text = include_str!("../../../docs/import.md");
    let examples: Vec<_> =
        text.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(examples.len(), 3, "one for each format");
    let mut told = Vec::new();
    for example in examples {
        let output = bash(example, folder.path());
        told.push(String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{example}\n{}", told[told.len() - 1]);
    }
    assert!(told[0].contains("missing: still/bitrate=8000.rec"), "{}", told[0]);
    assert!(told[0].contains("row, actual_fps without a value"), "{}", told[0]);

    let rec = json(folder.path(), "triptych show imported --json");
    let responses = &rec["runs"][0]["responses"];
    let number = |name: &str| responses[name].as_f64().unwrap();
    assert_eq!(number("guest_fps"), 29.5);
    assert!((number("guest_frame_size") - 4.15).abs() < 1e-9, "{responses}");
    assert!((4.2..=4.4).contains(&number("guest_encode_p50")), "{responses}");
    let tree = json(folder.path(), "triptych show from-tree --json");
    let values: Vec<_> = tree["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["responses"]["host_results_user"].as_f64().unwrap())
        .collect();
    assert_eq!(values, [1.1, 1.2, 1.10], "runs 1, 2 and 10, in this order");
    let repeats: Vec<_> =
        tree["runs"].as_array().unwrap().iter().map(|r| r["repeat"].as_u64().unwrap()).collect();
    assert_eq!(repeats, [0, 1, 2], "three repeats of one point");
    assert_eq!(tree["runs"][0]["responses"]["host_steps_steps"], 4.0);
    let load = json(folder.path(), "triptych show load --json");
    assert_eq!(load["runs"][0]["responses"]["guest_load_load"], 56.0);
}

#[test]
fn what_was_imported_is_told_as_json_and_a_second_time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "x,y\n1,2\n3,\n").unwrap();
    let summary = json(folder.path(), "triptych import a.csv --into s --json");
    assert_eq!(summary["runs"][0]["tables"]["host.a"], 1);
    assert_eq!(summary["runs"][0]["skipped"].as_object().unwrap().len(), 1);
    let again = bash("triptych import a.csv --into s", folder.path());
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--again"));
    let broken = bash("printf 'x\\n' > b.csv; triptych import b.csv --into t", folder.path());
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("b.csv"));
    assert!(!folder.path().join("t").exists(), "an import that failed makes no study");
}
