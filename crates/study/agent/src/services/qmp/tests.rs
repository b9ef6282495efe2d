use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;

use super::*;
use crate::devices::testing::Collected;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}"#;
/// Longest that a test waits for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A scripted QEMU: `answer` gives what follows the id for each command, or nothing to leave it unanswered.
struct Scripted {
    folder: tempfile::TempDir,
    /// What has been asked, in order.
    asked: mpsc::Receiver<String>,
}

impl Scripted {
    fn start(answer: impl FnMut(&str) -> Option<String> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let asked = Self::listen(&folder.path().join("qmp"), answer);
        Self { folder, asked }
    }

    /// Serves one connection, which ends when `answer` gives `"close"`.
    fn listen(
        path: &Path,
        mut answer: impl FnMut(&str) -> Option<String> + Send + 'static,
    ) -> mpsc::Receiver<String> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let (tell, asked) = mpsc::channel();
        std::thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = writeln!(stream, "{GREETING}\r");
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let Ok(line) = line else { return };
                let asked: serde_json::Value = serde_json::from_str(&line).unwrap();
                let command = asked["execute"].as_str().unwrap();
                let _ = tell.send(command.to_owned());
                match answer(command).as_deref() {
                    Some("close") => return,
                    Some(text) => {
                        let text = text.replace("$ID", &asked["id"].to_string());
                        if writeln!(stream, "{text}\r").is_err() {
                            return;
                        }
                    }
                    None => {}
                }
            }
        });
        asked
    }

    fn sampler(&self) -> Qmp {
        Qmp::new(&format!("unix:{}", self.folder.path().join("qmp").display())).unwrap()
    }

    fn wait_asked(&self, command: &str) {
        while self.asked.recv_timeout(DEADLINE).expect("a question") != command {}
    }
}

fn answers(command: &str) -> Option<String> {
    let answer = match command {
        "qmp_capabilities" => "{}",
        "query-status" => r#"{"status": "running", "singlestep": false, "running": true}"#,
        "query-name" => r#"{"name": "left"}"#,
        "query-blockstats" => {
            r##"[{"device": "disk0", "node-name": "#block171", "qdev": "/machine/x", "stats":
              {"rd_bytes": 4096, "wr_bytes": 512, "rd_operations": 1, "wr_operations": 2, "flush_operations": 3,
               "rd_total_time_ns": 7000, "wr_total_time_ns": 8000, "flush_total_time_ns": 9000,
               "failed_rd_operations": 1, "failed_wr_operations": -1, "unmap_bytes": 5}},
              {"device": "", "node-name": "#block2", "stats": {}}]"##
        }
        "query-balloon" => {
            return Some(
                r#"{"error": {"class": "DeviceNotActive", "desc": "No balloon"}, "id": $ID}"#.into(),
            );
        }
        "query-spice" => {
            r#"{"enabled": true, "channels": [{"connection-id": 5, "channel-type": 1}, {"connection-id": 5, "channel-type": 2}]}"#
        }
        "query-cpus-fast" => {
            // The first is a thread of the listener, this process; the second is not.
            return Some(format!(
                r#"{{"return": [{{"cpu-index": 0, "thread-id": {}}}, {{"cpu-index": 1, "thread-id": 1}}], "id": $ID}}"#,
                std::process::id()
            ));
        }
        _ => return None,
    };
    Some(format!(r#"{{"return": {}, "id": $ID}}"#, answer.replace('\n', " ")))
}

/// Samples until `done`, or fails.
fn sample_until(sampler: &mut Qmp, rows: &mut Collected, done: impl Fn(&Collected) -> bool) {
    let start = Instant::now();
    while !done(rows) {
        assert!(start.elapsed() < DEADLINE, "{:?}", rows.marks);
        sampler.sample(rows);
        std::thread::yield_now();
    }
}

fn kinds(rows: &Collected) -> Vec<&str> {
    rows.marks.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[test]
fn a_machine_is_told_in_tables() {
    let scripted = Scripted::start(answers);
    let mut sampler = scripted.sampler();
    let mut rows = Collected::default();
    sample_until(&mut sampler, &mut rows, |rows| !rows.rows.is_empty());
    assert_eq!(rows.tables(), ["qmp", "qmp-block-block2", "qmp-block-disk0", "qmp-vcpu-0"]);
    assert_eq!(rows.rows[0].2[0], Value::Bool(true));
    assert_eq!(rows.u64("qmp", "balloon_actual_bytes"), [0]);
    assert_eq!(rows.u64("qmp", "spice_clients"), [1]);
    assert_eq!(rows.u64("qmp", "spice_channels"), [2]);
    assert_eq!(rows.u64("qmp-block-disk0", "rd_bytes"), [4096]);
    assert_eq!(rows.u64("qmp-block-disk0", "flush_time_ns"), [9000]);
    assert_eq!(rows.u64("qmp-block-disk0", "failed_operations"), [1], "a negative number is none");
    assert!(rows.u64("qmp-vcpu-0", "cpu_ns")[0] > 0);
    assert_eq!(rows.facts["qmp.version"], "7.2.22");
    assert_eq!(rows.facts["qmp.name"], "left");
    assert_eq!(rows.facts["qmp.status"], "running");
    assert_eq!(rows.facts["qmp.block.block2"], "#block2");
    assert_eq!(sampler.info().tables.len(), 4);
    // What was refused, and what hardly changes, is not asked again at once.
    while scripted.asked.try_recv().is_ok() {}
    sampler.sample(&mut rows);
    let again: Vec<String> = scripted.asked.try_iter().collect();
    assert_eq!(again, ["query-status", "query-blockstats", "query-spice"]);
}

#[test]
fn a_silent_qemu_is_waited_for_once_and_its_late_answers_are_taken() {
    let (release, held) = mpsc::channel::<()>();
    let mut first = true;
    let scripted = Scripted::start(move |command| {
        if command == "query-status" && std::mem::take(&mut first) {
            held.recv().unwrap();
        }
        answers(command)
    });
    let mut sampler = scripted.sampler();
    let mut rows = Collected::default();
    sample_until(&mut sampler, &mut rows, |rows| kinds(rows) == ["late"]);
    scripted.wait_asked("query-status");
    // From now on nothing is waited for: a hundred samples would take five seconds otherwise.
    let start = Instant::now();
    (0..100).for_each(|_| sampler.sample(&mut rows));
    assert!(start.elapsed() < 50 * PATIENCE, "{:?}", start.elapsed());
    assert!(rows.rows.is_empty());
    release.send(()).unwrap();
    sample_until(&mut sampler, &mut rows, |rows| !rows.rows.is_empty());
    assert_eq!(kinds(&rows), ["late"], "said once");
    assert!(rows.u64("qmp", "answer_ns")[0] > 0);
}

#[test]
fn a_qemu_that_starts_again_is_found_again() {
    let mut rounds = 0;
    let scripted = Scripted::start(move |command| {
        rounds += u32::from(command == "query-status");
        if rounds == 2 { Some("close".into()) } else { answers(command) }
    });
    let mut sampler = scripted.sampler();
    let mut rows = Collected::default();
    sample_until(&mut sampler, &mut rows, |rows| kinds(rows) == ["source_gone"]);
    let before = rows.rows.len();
    assert!(before > 0);
    sampler.sample(&mut rows);
    assert_eq!((rows.rows.len(), rows.marks.len()), (before, 1), "no rows, and no second mark");
    let _asked = Scripted::listen(&scripted.folder.path().join("qmp"), answers);
    sample_until(&mut sampler, &mut rows, |rows| rows.rows.len() > before);
    assert_eq!(kinds(&rows), ["source_gone", "source_back"]);
}

#[test]
fn events_are_marked_when_a_person_would_want_them() {
    let scripted = Scripted::start(|command| {
        let events = r#"{"event": "STOP", "data": {}}
{"event": "RTC_CHANGE", "data": {"offset": 1}}
"#;
        let answer = answers(command)?;
        Some(if command == "query-status" { format!("{events}{answer}") } else { answer })
    });
    let mut rows = Collected::default();
    sample_until(&mut scripted.sampler(), &mut rows, |rows| !rows.rows.is_empty());
    assert_eq!(rows.marks, [("qemu".to_owned(), "qmp: STOP".to_owned())]);
}

/// What a peer sends in place of an answer makes the sampler leave it.
#[track_caller]
fn offends(sent: impl Fn(&mut UnixStream) + Send + 'static, reason: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            sent(&mut stream);
            // Until the sampler hangs up, so that it is not the end that it sees.
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        }
    });
    let mut sampler = Qmp::new(path.to_str().unwrap()).unwrap();
    let mut rows = Collected::default();
    sample_until(&mut sampler, &mut rows, |rows| kinds(rows).contains(&"source_gone"));
    assert!(rows.rows.is_empty());
    let text = &rows.marks.iter().find(|(kind, _)| kind == "source_gone").unwrap().1;
    assert!(text.contains(reason), "{text}");
}

#[test]
fn a_peer_that_breaks_the_protocol_is_left_alone() {
    offends(|s| drop(s.write_all(b"SSH-2.0-OpenSSH\n")), "does not speak QMP");
    offends(|s| drop(s.write_all(b"{\"QMP\": 5}\n")), "does not speak QMP");
    offends(|s| while s.write_all(&[b' '; 4096]).is_ok() {}, "more than an answer can be");
    offends(|s| while s.write_all(b"[[[[[[[[").is_ok() {}, "more than an answer can be");
    offends(
        |s| {
            let deep = format!("{GREETING}\n{{\"return\": {}", "[".repeat(100_000));
            let _ = s.write_all(format!("{deep}\n").as_bytes());
        },
        "does not speak QMP",
    );
}

#[test]
fn long_lists_are_cut_off() {
    let list = format!("[{}]", vec!["{\"device\": \"x\"}"; 5000].join(","));
    let Elements(blocks): Elements<Block> = serde_json::from_str(&list).unwrap();
    assert_eq!(blocks.len(), 256);
}

#[test]
fn targets_are_paths_of_unix_sockets() {
    for (target, reason) in [
        ("unix:", "1 to 107 bytes"),
        ("tcp:127.0.0.1:4444", "only Unix sockets"),
        ("localhost:4444", "only Unix sockets"),
        ("/q,x=1", "is no option"),
    ] {
        let error = Qmp::new(target).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let sampler = Qmp::new("unix:/nowhere/qmp.sock,name=left").unwrap();
    assert_eq!(sampler.info().tables[0].name, "qmp-left");
    assert!(sampler.info().unavailable.contains("-qmp unix:/nowhere/qmp.sock,server=on"));
}
