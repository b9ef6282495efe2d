//! What goes wrong in a run is told, and stays in that run.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

mod campaign;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use campaign::{Bench, Ended};
use recording::facts::RunStatus;
use rustix::process::{Signal, kill_process};

const FIXED: &str = "[fixed]\nsource = \"scene\"\nfps = 15\nscene = \"scroll\"\n";

fn study(head: &str, factors: &str, fixed: &str) -> String {
    format!("subject = \"streaming\"\nwarmup_s = 0.5\n{head}\n[factors]\n{factors}\n{FIXED}{fixed}\n")
}

/// The reason of the one run that failed; the other run is complete, nothing is left running.
fn one_of_two_failed(bench: &Bench, ended: &Ended) -> String {
    ended.assert_code(1);
    bench.nothing_is_left();
    let facts = bench.facts();
    assert_eq!(facts.len(), 2);
    let failed: Vec<_> = facts.iter().filter(|f| f.status == RunStatus::Failed).collect();
    let complete = facts.iter().filter(|f| f.status == RunStatus::Complete).count();
    assert_eq!((failed.len(), complete), (1, 1), "{facts:#?}\n{}", ended.stderr);
    let reason = failed[0].reason.clone();
    assert!(ended.stderr.contains(&reason), "{}", ended.stderr);
    reason
}

/// Kills the first process of the first run whose command line contains `needle`.
fn killed_in_the_first_run(needle: &str) -> String {
    signalled_in_the_first_run(needle, Signal::KILL)
}

fn signalled_in_the_first_run(needle: &str, signal: Signal) -> String {
    let bench = Bench::new(&study("repeats = 2\nrecord_s = 3", "", "codec = \"mjpeg\""));
    let started = bench.start(&["run", "small.toml"]);
    let pid = bench.recording(needle);
    // A guest that is stopped cannot send what it holds.
    campaign::until("rows from the guest", || {
        let rows = recording::reader::read_table(&bench.running()?, "guest.frames").ok()?.rows;
        (rows > 0).then_some(())
    });
    kill_process(pid, signal).unwrap();
    let ended = started.end();
    let reason = one_of_two_failed(&bench, &ended);
    assert_eq!(bench.facts()[0].status, RunStatus::Failed, "the run under way failed, not the next");
    let run = bench.study().unwrap().join("runs").join(&bench.facts()[0].id);
    let rows = recording::reader::read_table(&run, "guest.frames").unwrap().rows;
    assert!(rows > 0, "what was recorded stays readable");
    reason
}

#[test]
fn a_client_that_is_killed_fails_its_run_only() {
    let reason = killed_in_the_first_run("triptych-client");
    assert!(reason.starts_with("client ended early (killed by signal 9)"), "{reason}");
}

#[test]
fn a_host_that_is_killed_fails_its_run_only() {
    let reason = killed_in_the_first_run("triptych-host");
    assert!(reason.starts_with("host ended early (killed by signal 9)"), "{reason}");
}

#[test]
fn a_guest_that_is_killed_fails_its_run_only() {
    let reason = killed_in_the_first_run("--panel guest");
    assert!(reason.starts_with("guest ended early (killed by signal 9)"), "{reason}");
}

/// Stopped while the window runs, or so late in it that only the end shows it.
fn hangs(reason: &str, panel: &str) -> bool {
    reason
        .strip_prefix(panel)
        .is_some_and(|rest| rest.starts_with(" did not answer for ") || rest == " did not end and was killed")
}

#[test]
fn a_client_that_hangs_fails_its_run_only() {
    let reason = signalled_in_the_first_run("--panel client", Signal::STOP);
    assert!(hangs(&reason, "client"), "{reason}");
}

#[test]
fn a_guest_that_hangs_fails_its_run_only() {
    let reason = signalled_in_the_first_run("--panel guest", Signal::STOP);
    assert!(hangs(&reason, "guest"), "{reason}");
}

#[test]
fn a_host_that_hangs_fails_its_run_only() {
    let reason = signalled_in_the_first_run("--panel host", Signal::STOP);
    assert!(hangs(&reason, "host"), "{reason}");
}

#[test]
fn an_encoder_that_dies_fails_its_run_only() {
    let reason = killed_in_the_first_run("encoder-worker");
    assert!(reason.starts_with("guest") && reason.contains("encoder"), "{reason}");
}

#[test]
fn a_port_that_is_taken_fails_the_runs_that_want_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let factors = format!("port = [{port}, 0]");
    let bench = Bench::new(&study("repeats = 1\nrecord_s = 1", &factors, "codec = \"mjpeg\""));
    let ended = bench.run(&["run", "small.toml"]);
    let reason = one_of_two_failed(&bench, &ended);
    assert!(reason.starts_with("host") && reason.contains(&port.to_string()), "{reason}");
}

/// A machine without the encoder of one of two codecs: GStreamer is shown only some of its plug-ins.
#[test]
fn an_encoder_that_is_missing_fails_the_runs_that_want_it() {
    let bench = Bench::new(&study("repeats = 1\nrecord_s = 1", "codec = [\"h264\", \"mjpeg\"]", ""));
    let plugins = bench.dir.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    for plugin in plugins_of_gstreamer() {
        let name = plugin.file_name().unwrap().to_str().unwrap();
        if ["coreelements", "app", "jpeg", "video"].iter().any(|n| name.starts_with(&format!("libgst{n}"))) {
            std::os::unix::fs::symlink(&plugin, plugins.join(name)).unwrap();
        }
    }
    let mut command = bench.command();
    command.args(["run", "small.toml"]).env("GST_PLUGIN_SYSTEM_PATH_1_0", &plugins);
    command.env("GST_REGISTRY_1_0", bench.dir.path().join("registry"));
    let ended = bench.start_command(command).end();
    let reason = one_of_two_failed(&bench, &ended);
    assert!(reason.starts_with("guest") && reason.contains("gstreamer1.0-plugins-ugly"), "{reason}");
}

fn plugins_of_gstreamer() -> Vec<PathBuf> {
    let asked = Command::new("pkg-config").args(["--variable=pluginsdir", "gstreamer-1.0"]).output().unwrap();
    let dir = String::from_utf8(asked.stdout).unwrap();
    fs::read_dir(dir.trim()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_can_only_fail_is_refused_before_anything_is_run() {
    let factors = "codec = [\"h264\", \"vp8\"]\nencoder = [\"x264enc\"]";
    let bench = Bench::new(&study("", factors, "width = 641"));
    for arguments in [&["run", "small.toml"][..], &["run", "small.toml", "--dry-run"]] {
        let ended = bench.run(arguments);
        ended.assert_code(2);
        for part in [
            "error: setting `encoder`: `x264enc` makes h264, not vp8",
            "nearest valid: \"vp8enc\"",
            "error: setting `width`: 641 is odd",
            "width = 641\n",
            "nearest valid: 640",
        ] {
            assert!(ended.stderr.contains(part), "{part} is not in:\n{}", ended.stderr);
        }
    }
    assert!(!bench.results().exists());
}

#[test]
fn a_study_file_that_cannot_be_read_is_a_mistake_of_the_command_line() {
    let bench = Bench::new("");
    fs::write(bench.dir.path().join("picture.toml"), [0xff, 0xd8, 0xff]).unwrap();
    for name in ["absent.toml", "picture.toml"] {
        let ended = bench.run(&["run", name]);
        ended.assert_code(2);
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
}

#[test]
fn a_wrong_study_file_is_refused_with_its_place_and_nothing_is_run() {
    let bench = Bench::new("subject = \"streaming\"\nrepeats = 2\n[factors]\ncodec = [\"h246\"]\n");
    let ended = bench.run(&["run", "small.toml"]);
    ended.assert_code(2);
    for part in [
        "small.toml:4:10: error: setting `codec`",
        "4 | codec = [\"h246\"]",
        "\"mjpeg\"",
        "nearest valid: \"h264\"",
    ] {
        assert!(ended.stderr.contains(part), "{part} is not in:\n{}", ended.stderr);
    }
    assert!(!bench.results().exists());
}

/// On a disk of 600 kB: the run fails with the reason, what was written is readable, and the engine goes on.
#[test]
fn a_full_disk_fails_the_run_with_its_reason() {
    let bench = Bench::new(&study("repeats = 2\nrecord_s = 3", "", "codec = \"mjpeg\""));
    let script = "mount -t tmpfs -o size=600k tmpfs \"$1\" || exit 77\nhead -c 440k /dev/zero > \"$1/filler\"\n\
                  \"$2\" run small.toml --out \"$1\" --json\ncode=$?\nrm \"$1/filler\"\ncp -r \"$1\" \"$3\"\nexit $code";
    let disk = bench.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(&disk).arg(system_tests::program("triptych")).arg(bench.results());
    bench.dress(&mut command);
    let ended = bench.start_command(command).end();
    if ended.status.code() == Some(77) || ended.stderr.contains("unshare") {
        eprintln!("skipped: no mount namespace here: {}", ended.stderr.trim());
        return;
    }
    ended.assert_code(1);
    let json = ended.json();
    let reason = json["failed"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("No space left"), "{json}");
    assert_eq!(json["failed"].as_array().unwrap().len(), 2, "the study went on: {json}");
    bench.nothing_is_left();
    let facts = recording::facts::read_run(
        &bench
            .study()
            .unwrap()
            .join("runs")
            .join(json["failed"][0]["run"].as_str().unwrap())
            .join("run.toml"),
    );
    assert_ne!(facts.unwrap().status, RunStatus::Complete);
}

#[test]
fn the_doctor_asks_for_nothing_that_is_there() {
    let ended = Bench::new("").run(&["doctor", "--json"]);
    let found = ended.json();
    let found = found.as_array().unwrap();
    assert!(found.iter().any(|f| f["present"] == true), "{found:#?}");
    for finding in found {
        assert_eq!(finding["present"] == true, finding["remedy"] == "", "{finding}");
    }
}
