//! The server as a browser, a script and an attacker see it.
#![allow(clippy::unwrap_used)] // also in the helpers

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use store::synthetic::{Recipe, write};
use view::{ViewError, ViewOptions, serve};

const PATIENCE: Duration = Duration::from_secs(20);
const TOKEN: &str = "correct-horse-battery";

struct Page {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), ViewError>>>,
    study: tempfile::TempDir,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|l| l.split_once(": "));
        lines.find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

impl Page {
    fn of(recipe: Recipe, token: Option<&str>) -> Self {
        let study = tempfile::tempdir().unwrap();
        write(study.path(), recipe).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let options = ViewOptions {
            study: study.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            token: token.map(str::to_owned),
            stop: Arc::clone(&stop),
        };
        let (ready, address) = channel();
        let thread = std::thread::spawn(move || serve(options, |a| ready.send(a).unwrap()));
        let address = address.recv_timeout(PATIENCE).expect("the page is ready");
        Self { address, stop, thread: Some(thread), study }
    }

    fn new() -> Self {
        Self::of(Recipe { repeats: 2, seconds: 1.0, failed: 1, running: false }, None)
    }

    fn ask(&self, request: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.to_owned()
        };
        Answer { status, head: head.to_owned(), body }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[])
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    fn run(&self, position: usize) -> String {
        self.json("/api/runs")[position]["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

fn unchunked(body: &str) -> String {
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole += &after[..size];
        rest = &after[size + 2..];
    }
    whole
}

#[test]
fn the_page_and_all_that_it_needs_come_from_this_server() {
    let page = Page::new();
    let index = page.get("/");
    assert_eq!((index.status, index.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = index.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!index.body.contains("http"), "nothing from elsewhere: {}", index.body);
    let mut scripts = 0;
    for part in index.body.split(['"', ' ']).filter(|p| p.ends_with(".js") || p.ends_with(".css")) {
        let path = format!("/{}", part.trim_start_matches('/'));
        let file = page.get(&path);
        assert_eq!(file.status, 200, "{path}");
        let tag = file.header("etag").unwrap().to_owned();
        assert_eq!(page.ask(&format!("GET {path}"), &[("If-None-Match", &tag)]).status, 304);
        scripts += 1;
    }
    assert!(scripts >= 2);
}

#[test]
fn the_study_tells_factors_responses_and_how_far_it_is() {
    let page = Page::new();
    let study = page.json("/api/study");
    assert_eq!(study["factors"][1]["levels"], serde_json::json!([15, 30]));
    assert_eq!(study["responses"][1]["unit"], "%");
    let counts = &study["counts"];
    assert_eq!(
        (&counts["planned"], &counts["complete"], &counts["failed"]),
        (&16.into(), &15.into(), &1.into())
    );
    assert_eq!(page.json("/api/study/version")["version"], study["version"]);
}

#[test]
fn a_matrix_has_every_point_and_null_where_there_is_no_number() {
    let page = Page::of(Recipe { repeats: 1, seconds: 1.0, failed: 1, running: false }, None);
    let matrix = page.json("/api/matrix?response=guest_cpu");
    let cells = matrix["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 8);
    assert!(cells.iter().all(|c| c["low"].is_null()), "of one run there is no interval");
    let empty: Vec<_> = cells.iter().filter(|c| c["mean"].is_null()).collect();
    assert_eq!(empty.len(), 1);
    assert_eq!(empty[0]["without"][0]["status"], "failed");
    assert!(empty[0]["without"][0]["reason"].as_str().unwrap().contains("signal 9"));
}

#[test]
fn a_disturbed_run_is_flagged_wherever_it_is_told_of() {
    let page = Page::of(Recipe { repeats: 1, seconds: 4.0, failed: 0, running: false }, None);
    assert_eq!(page.json("/api/study")["counts"]["flagged"], 1);
    let run = page.run(store::synthetic::DISTURBED);
    let runs = page.json("/api/runs");
    for listed in runs.as_array().unwrap() {
        assert_eq!(listed["disturbed"], Value::Bool(listed["id"] == run), "{listed}");
    }
    let matrix = page.json("/api/matrix?response=latency_p50");
    let values: Vec<_> =
        matrix["cells"].as_array().unwrap().iter().flat_map(|c| c["values"].as_array().unwrap()).collect();
    for value in values {
        let flags = value["flags"].as_array().unwrap();
        assert_eq!(flags.len(), usize::from(value["run"] == run), "{value}");
    }
    assert_eq!(matrix["relative"], false);
    let timeline = page.json(&format!("/api/run/{run}/timeline?series="));
    assert!(timeline["flags"][0].as_str().unwrap().starts_with("others on host, "), "{}", timeline["flags"]);
    let window = &timeline["window_ns"];
    let span = &timeline["quality"]["disturbances"][0]["spans_ns"][0];
    let within = window[0].as_i64() < span[0].as_i64() && span[1].as_i64() <= window[1].as_i64();
    assert!(within, "{span} in {window}: nanoseconds since the start of the run");
    assert_eq!(page.json(&format!("/api/run/{}/timeline", page.run(0)))["flags"], serde_json::json!([]));
    assert_eq!(page.json(&format!("/api/run/{run}"))["quality"]["disturbed"], true);
}

#[test]
fn a_timeline_is_thinned_to_its_width_and_keeps_what_was_asked_for() {
    let page = Page::new();
    let run = page.run(0);
    let all = page.json(&format!("/api/run/{run}/timeline"));
    let names: Vec<_> =
        all["panels"].as_array().unwrap().iter().map(|p| p["panel"].as_str().unwrap()).collect();
    assert_eq!(names, ["guest", "host", "client"]);
    assert!(all["panels"][0]["uncertainty_ns"].as_i64().unwrap() > 0);
    let one = page.json(&format!("/api/run/{run}/timeline?width=4&series=guest.frames.encode_ns"));
    for series in one["panels"].as_array().unwrap().iter().flat_map(|p| p["series"].as_array().unwrap()) {
        if series["id"] == "guest.frames.encode_ns" {
            let (t, v) = (series["t"].as_array().unwrap(), series["v"].as_array().unwrap());
            assert!(t.len() == v.len() && (1..=10).contains(&t.len()), "{} samples", t.len());
        } else {
            assert!(series["t"].is_null(), "{} was not asked for", series["id"]);
        }
    }
}

#[test]
fn frames_carry_their_stages_on_one_clock() {
    let page = Page::new();
    let frames = page.json(&format!("/api/run/{}/frames", page.run(0)));
    let labels: Vec<_> =
        frames["stages"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(labels[..3], ["capture", "encode", "send"]);
    let first = &frames["frames"][0]["stages"];
    for pair in first.as_array().unwrap().windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        // Durations are counted by the panel's clock, which drifts: some hundred nanoseconds on a frame.
        assert!(
            before[1].as_i64().unwrap() <= after[0].as_i64().unwrap() + 1_000,
            "stages follow each other: {first}"
        );
    }
    assert!(frames["frames"].as_array().unwrap().iter().any(|f| f["dropped"] == true));
    assert_eq!(frames["mismatched"], 0);
}

#[test]
fn what_is_not_there_is_refused_with_words() {
    let page = Page::new();
    let run = page.run(0);
    for (path, status) in [
        ("/nothing.js".to_owned(), 404),
        ("/api/nothing".into(), 404),
        ("/api/matrix?response=nothing".into(), 404),
        ("/api/matrix".into(), 400),
        ("/api/run/r9999-p00-k0".into(), 404),
        (format!("/api/run/{run}/timeline?width=many"), 400),
        (format!("/api/run/{run}/frames?from=x"), 400),
    ] {
        let answer = page.get(&path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().len() > 10, "{path}: {}", answer.body);
    }
    assert_eq!(page.ask("POST /api/study", &[]).status, 405);
}

#[test]
fn no_question_about_time_brings_the_server_down() {
    let page = Page::new();
    let run = page.run(0);
    let (min, max) = (i64::MIN, i64::MAX);
    for cut in [
        format!("from={min}&to={max}"),
        format!("from={max}&to={min}"),
        "from=5&to=5".into(),
        format!("to={min}"),
    ] {
        for what in ["timeline", "frames"] {
            for width in ["0", "1", "18446744073709551615"] {
                let answer = page.get(&format!("/api/run/{run}/{what}?{cut}&width={width}"));
                assert_eq!(answer.status, 200, "{what} {cut} {width}: {}", answer.body);
            }
        }
    }
}

#[test]
fn no_path_leads_out_of_the_study() {
    let page = Page::new();
    std::fs::write(page.study.path().join("secret.txt"), "secret words").unwrap();
    for path in [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/run/..",
        "/api/run/..%2f..%2fsecret.txt",
        "/api/run/%2e%2e%2fplan.toml",
        "/api/run/.%00",
        "//etc/passwd",
    ] {
        let answer = page.get(path);
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.body.contains("secret words") && !answer.body.contains("root:"), "{path}");
    }
}

#[test]
fn a_name_that_points_here_is_refused() {
    let page = Page::new();
    let rebound = page.ask("GET /api/study", &[("Host", "attacker.example")]);
    assert!((400..500).contains(&rebound.status) && !rebound.body.contains("synthetic"), "{}", rebound.body);
    assert_eq!(page.ask("GET /api/study", &[("Host", "localhost")]).status, 200);
    let answer = page.ask("GET /api/study", &[("Origin", "http://attacker.example")]);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn with_a_token_nothing_is_told_without_it() {
    let page = Page::of(Recipe { repeats: 1, seconds: 1.0, failed: 0, running: false }, Some(TOKEN));
    for path in ["/", "/api/study", "/style.css", "/api/study?token=wrong-horse-battery"] {
        assert_eq!(page.get(path).status, 401, "{path}");
    }
    let first = page.get(&format!("/?token={TOKEN}"));
    assert_eq!((first.status, first.header("location")), (303, Some("/")));
    let cookie = first.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let held = cookie.split(';').next().unwrap();
    assert_eq!(page.ask("GET /api/study", &[("Cookie", held)]).status, 200);
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(page.ask("GET /api/study", &[("Authorization", &bearer)]).status, 200);
}

#[test]
fn elsewhere_than_on_loopback_it_wants_a_token() {
    let study = tempfile::tempdir().unwrap();
    let options = |token: Option<&str>| ViewOptions {
        study: study.path().to_owned(),
        listen: "0.0.0.0:0".parse().unwrap(),
        token: token.map(str::to_owned),
        stop: Arc::default(),
    };
    assert!(matches!(serve(options(None), |_| ()), Err(ViewError::NotLoopback(_))));
    assert!(matches!(serve(options(Some("short")), |_| ()), Err(ViewError::Token)));
}

#[test]
fn a_taken_port_and_a_folder_without_a_study_are_named() {
    let page = Page::new();
    let options = |study: &std::path::Path| ViewOptions {
        study: study.to_owned(),
        listen: page.address,
        token: None,
        stop: Arc::default(),
    };
    let taken = serve(options(page.study.path()), |_| ()).unwrap_err();
    assert!(matches!(taken, ViewError::Listen { .. }) && taken.to_string().contains("--listen"), "{taken}");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(serve(options(empty.path()), |_| ()), Err(ViewError::Study(_))));
}

#[test]
fn a_run_under_way_is_read_anew_each_time() {
    let page = Page::of(Recipe { repeats: 1, seconds: 1.0, failed: 0, running: true }, None);
    let _hold = recording::hold::Hold::take(page.study.path()).unwrap().unwrap();
    let run = page.run(7);
    let facts = page.json(&format!("/api/run/{run}"));
    assert_eq!(facts["status"], "running");
    assert_eq!(page.json("/api/study")["counts"]["running"], 1);
    let before = page.json(&format!("/api/run/{run}/timeline"))["panels"].as_array().unwrap().len();
    assert_eq!(before, 3);
    for table in ["frames", "process"] {
        let folder = page.study.path().join("runs").join(&run);
        std::fs::remove_file(folder.join(format!("client.{table}.arrows"))).unwrap();
    }
    let after = page.json(&format!("/api/run/{run}/timeline"))["panels"].as_array().unwrap().len();
    assert_eq!(after, 2);
}
