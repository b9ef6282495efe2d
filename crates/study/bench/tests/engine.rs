//! The engine with a subject that needs no program: order, failure, interruption, resume.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::{
    BenchError, Campaign, EventSink, Left, Outcome, Point, Progress, RunEnd, Silent, StudyFile, Subject,
    SubjectError, conformance, run_study,
};
use recording::facts::{RunStatus, read_run};
use recording::spec::{Domain, Factor, Level, Panel, SubjectSpec};

/// Does at each point what the factor `what` says, and counts.
#[derive(Default)]
struct Fake {
    prepared: Vec<Point>,
    running: bool,
    leftovers: usize,
}

fn spec() -> SubjectSpec {
    let words = ["works", "fails", "cannot", "forgets", "absent", "sticks"].map(String::from).to_vec();
    SubjectSpec {
        name: "fake".into(),
        description: "a subject without programs".into(),
        factors: vec![
            Factor {
                name: "what".into(),
                unit: String::new(),
                description: "what happens".into(),
                domain: Domain::Enum { values: words },
                default: Level::Text("works".into()),
            },
            Factor {
                name: "n".into(),
                unit: String::new(),
                description: "a number".into(),
                domain: Domain::Int { min: 0, max: 9 },
                default: Level::Int(0),
            },
        ],
        ..SubjectSpec::default()
    }
}

impl Subject for Fake {
    fn spec(&self) -> Result<SubjectSpec, SubjectError> {
        Ok(spec())
    }

    fn prepare(&mut self, point: &Point) -> Result<(), SubjectError> {
        self.leftovers += usize::from(self.running);
        match point.settings["what"].to_string().as_str() {
            "cannot" => Err(SubjectError::Setting("this point cannot be reached".into())),
            _ => {
                self.running = true;
                self.prepared.push(point.clone());
                Ok(())
            }
        }
    }

    fn run(&mut self, sink: &mut dyn EventSink) -> Result<Outcome, SubjectError> {
        let point = self.prepared.last().unwrap();
        match point.settings["what"].to_string().as_str() {
            "fails" => return Err(SubjectError::Setting("it failed".into())),
            "forgets" => return Ok(Outcome::Complete),
            "absent" => {
                let none = &mut || Ok(());
                sink.wait_ready(&[Panel::Client], Duration::from_millis(20), none)?;
            }
            _ => {}
        }
        sink.watch(sink.warmup(), &mut || Ok(()))?;
        sink.begin_window();
        sink.watch(sink.record(), &mut || Ok(()))?;
        sink.end_window();
        Ok(Outcome::Complete)
    }

    fn teardown(&mut self) -> Result<(), SubjectError> {
        let stuck =
            self.running && self.prepared.last().unwrap().settings["what"] == Level::Text("sticks".into());
        self.running = false;
        if stuck { Err(SubjectError::Setting("it would not go".into())) } else { Ok(()) }
    }
}

fn study(factors: &str, repeats: u32) -> StudyFile {
    let text = format!(
        "subject = \"fake\"\nrepeats = {repeats}\nwarmup_s = 0\nrecord_s = 0.1\n[factors]\n{factors}\n"
    );
    StudyFile::parse(&text, "x.toml", &[spec()]).unwrap()
}

fn statuses(campaign: &Campaign) -> Vec<(RunStatus, String)> {
    let facts = campaign.facts.runs.iter().map(|r| read_run(&campaign.run_dir(r).join("run.toml")).unwrap());
    facts.map(|f| (f.status, f.reason)).collect()
}

/// Remembers how runs ended and stops the study once `stop_after` have.
struct Watcher<'a> {
    cancel: &'a AtomicBool,
    stop_after: usize,
    ended: Vec<RunEnd>,
}

impl Progress for Watcher<'_> {
    fn tick(&mut self, _left: Left) {
        if self.ended.len() == self.stop_after {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }

    fn run_ended(&mut self, end: &RunEnd, _left: Left) {
        self.ended.push(end.clone());
    }
}

#[test]
fn the_fake_subject_conforms() {
    let results = tempfile::tempdir().unwrap();
    let text = "subject = \"fake\"\nrepeats = 2\nwarmup_s = 0.2\nrecord_s = 0.1\n";
    let wrong = Point { index: 0, settings: [("what".to_owned(), Level::Text("cannot".into()))].into() };
    conformance::check(&mut Fake::default(), text, &wrong, results.path()).unwrap();
}

#[test]
fn failed_runs_are_marked_with_their_reason_and_the_study_goes_on() {
    let results = tempfile::tempdir().unwrap();
    let words = ["works", "fails", "cannot", "forgets", "absent", "sticks"];
    let reasons = [
        "",
        "it failed",
        "this point cannot be reached",
        "the subject ended without recording a window",
        "client was not ready after 0 s; see client.log in the run's folder",
        "teardown: it would not go",
    ];
    let study = study(&format!("what = {words:?}"), 1);
    let campaign = Campaign::create(results.path(), "x", &study, 1).unwrap();
    let mut fake = Fake::default();
    let outcome = run_study(&campaign, &mut fake, &AtomicBool::new(false), &mut Silent).unwrap();
    assert_eq!((outcome.planned, outcome.complete, outcome.failed.len()), (6, 1, 5));
    assert!(!outcome.interrupted);
    assert_eq!(fake.leftovers, 0, "teardown comes after every prepare");
    for run in &campaign.facts.runs {
        let facts = read_run(&campaign.run_dir(run).join("run.toml")).unwrap();
        let level = &campaign.facts.points[run.point as usize].levels["what"];
        let expected = reasons[words.iter().position(|w| *w == level.to_string()).unwrap()];
        assert_eq!(facts.reason, expected, "{level}");
        assert_eq!(facts.status == RunStatus::Complete, expected.is_empty(), "{level}");
        assert_eq!(&facts.asked["what"], level);
        assert_eq!(facts.asked["n"], Level::Int(0), "fixed settings and defaults are recorded too");
        assert!(!facts.ended.is_empty());
    }
}

#[test]
fn an_interrupted_study_resumes_and_repeats_nothing_that_is_done() {
    let results = tempfile::tempdir().unwrap();
    let study = study("n = [1, 2, 3]", 2);
    let campaign = Campaign::create(results.path(), "x", &study, 1).unwrap();
    let cancel = AtomicBool::new(false);
    let mut fake = Fake::default();
    let mut watcher = Watcher { cancel: &cancel, stop_after: 2, ended: Vec::new() };
    let outcome = run_study(&campaign, &mut fake, &cancel, &mut watcher).unwrap();
    assert!(outcome.interrupted);
    assert_eq!((outcome.complete, watcher.ended.len()), (2, 3));
    assert_eq!(watcher.ended[2].status, RunStatus::Interrupted);
    let (dir, first) = (campaign.dir.clone(), campaign.run_dir(&campaign.facts.runs[0]).join("run.toml"));
    let before = fs::read_to_string(&first).unwrap();
    drop(campaign);

    let campaign = Campaign::reopen(&dir).unwrap();
    assert_eq!(campaign.pending(), campaign.facts.runs[2..]);
    let outcome = run_study(&campaign, &mut fake, &AtomicBool::new(false), &mut Silent).unwrap();
    assert_eq!((outcome.complete, outcome.failed.len()), (6, 0));
    assert_eq!(fake.prepared.len(), 3 + 4);
    assert_eq!(fs::read_to_string(&first).unwrap(), before, "what was done is not touched");
    let old = dir.join("superseded").join(format!("{}.1", campaign.facts.runs[2].id));
    assert_eq!(read_run(&old.join("run.toml")).unwrap().status, RunStatus::Interrupted);
    assert!(statuses(&campaign).iter().all(|(status, _)| *status == RunStatus::Complete));
}

#[test]
fn a_run_that_was_never_closed_is_done_again() {
    let results = tempfile::tempdir().unwrap();
    let campaign = Campaign::create(results.path(), "x", &study("n = [1, 2]", 1), 1).unwrap();
    run_study(&campaign, &mut Fake::default(), &AtomicBool::new(false), &mut Silent).unwrap();
    let dir = campaign.dir.clone();
    // As kill -9 leaves it: the first run is still marked as running, the second has a torn file of facts.
    let file = |run: usize| campaign.run_dir(&campaign.facts.runs[run]).join("run.toml");
    let text = fs::read_to_string(file(0)).unwrap();
    fs::write(file(0), text.replace("\"complete\"", "\"running\"")).unwrap();
    fs::write(file(1), &text[..text.len() / 2]).unwrap();
    drop(campaign);
    let campaign = Campaign::reopen(&dir).unwrap();
    assert_eq!(campaign.pending().len(), 2);
    let outcome = run_study(&campaign, &mut Fake::default(), &AtomicBool::new(false), &mut Silent).unwrap();
    assert_eq!(outcome.complete, 2);
}

#[test]
fn a_study_is_run_by_one_process_at_a_time() {
    let results = tempfile::tempdir().unwrap();
    let campaign = Campaign::create(results.path(), "x", &study("n = [1]", 1), 1).unwrap();
    assert!(matches!(Campaign::reopen(&campaign.dir), Err(BenchError::Busy(_))));
    let dir = campaign.dir.clone();
    drop(campaign);
    assert!(Campaign::reopen(&dir).is_ok());
}

#[test]
fn two_studies_of_one_second_get_two_folders() {
    let results = tempfile::tempdir().unwrap();
    let study = study("n = [1]", 1);
    let dirs: Vec<_> =
        (0..3).map(|_| Campaign::create(results.path(), "x", &study, 1).unwrap().dir.clone()).collect();
    assert_eq!(fs::read_dir(results.path()).unwrap().count(), 3, "{dirs:?}");
    assert_eq!(fs::read_to_string(dirs[0].join("study.toml")).unwrap(), study.text);
}

#[test]
fn a_folder_that_cannot_be_made_fails_the_runs_and_not_the_engine() {
    let results = tempfile::tempdir().unwrap();
    let campaign = Campaign::create(results.path(), "x", &study("n = [1, 2]", 1), 1).unwrap();
    fs::remove_dir(campaign.dir.join("runs")).unwrap();
    fs::write(campaign.dir.join("runs"), "in the way").unwrap();
    let outcome = run_study(&campaign, &mut Fake::default(), &AtomicBool::new(false), &mut Silent).unwrap();
    assert_eq!((outcome.complete, outcome.failed.len()), (0, 2));
    assert!(outcome.failed[0].1.starts_with("cannot make "), "{:?}", outcome.failed);
}

#[test]
fn a_plan_cannot_lead_out_of_its_folder() {
    let results = tempfile::tempdir().unwrap();
    let campaign = Campaign::create(results.path(), "x", &study("n = [1]", 1), 1).unwrap();
    let (dir, id) = (campaign.dir.clone(), campaign.facts.runs[0].id.clone());
    drop(campaign);
    let plan = dir.join("plan.toml");
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, text.replace(&id, "../../elsewhere")).unwrap();
    assert!(matches!(Campaign::reopen(&dir), Err(BenchError::RunId { .. })));
    assert!(Campaign::reopen(Path::new("/nonexistent")).is_err());
}
