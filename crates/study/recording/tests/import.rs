//! Imports of the fixtures give what stands in them: values compared by hand with the files (`tests/fixtures`).
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::fs;
use std::path::{Path, PathBuf};

use recording::facts::{RunFacts, RunStatus, StudyFacts, read_plan, read_run};
use recording::import::extract::Extractors;
use recording::import::{CsvOptions, Import, ImportError, Options, Summary, Survey, set_window, survey};
use recording::reader::{Columns, read_table, tables};
use recording::spec::{Domain, Level};

fn fixtures(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/import")).join(name)
}

fn import(
    path: &Path,
    into: &Path,
    options: &Options,
    again: bool,
) -> Result<(Summary, Survey), ImportError> {
    let mut found = survey(&[path.to_owned()], options)?;
    let mut import = Import::begin(into, again, found.sources.len())?;
    for source in std::mem::take(&mut found.sources) {
        import.add(source.read(options)?)?;
    }
    Ok((import.commit(&found)?, found))
}

struct Study {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Study {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { path: dir.path().join("study"), _dir: dir }
    }

    fn plan(&self) -> StudyFacts {
        read_plan(&self.path.join("plan.toml")).unwrap()
    }

    fn run_dir(&self, i: usize) -> PathBuf {
        self.path.join("runs").join(&self.plan().runs[i].id)
    }

    fn facts(&self, i: usize) -> RunFacts {
        read_run(&self.run_dir(i).join("run.toml")).unwrap()
    }

    fn table(&self, i: usize, name: &str) -> Columns {
        read_table(&self.run_dir(i), name).unwrap()
    }
}

#[track_caller]
fn ends<T: PartialEq + std::fmt::Debug + Copy>(cells: &[T], rows: usize, first: T, last: T) {
    assert_eq!((cells.len(), cells[0], cells[cells.len() - 1]), (rows, first, last));
}

#[test]
fn recordings_of_a_matrix_become_runs_with_the_values_of_their_files() {
    let study = Study::new();
    let (summary, found) =
        import(&fixtures("study_keyframes"), &study.path, &Options::default(), false).unwrap();
    assert_eq!((summary.runs.len(), summary.new_points), (2, 2));
    assert_eq!(found.notes, ["2020-01-07 16:39:24.554939"]);
    assert_eq!(summary.missing.len(), 1, "the fixture has two of the three recordings");
    assert!(summary.missing[0].starts_with("webgl_cubemap/1366x768"));

    let frames = study.table(0, "guest.frames");
    ends(frames.i64("t_ns").unwrap(), 40, 1_578_412_126_931_400_000, 1_578_412_128_685_036_000);
    ends(frames.i64("time_ns").unwrap(), 40, 1_578_412_126_888_426_000, 1_578_412_128_642_372_000);
    ends(frames.u64("size_bytes").unwrap(), 40, 147_888, 165_418);
    ends(frames.i64("capture_ns").unwrap(), 40, 42_847_000, 42_556_000);
    ends(frames.i64("encode_ns").unwrap(), 40, 0, 0);
    ends(frames.i64("send_ns").unwrap(), 40, 127_000, 108_000);
    ends(frames.f64("actual_fps").unwrap(), 40, 24.651_092_851_600_506, 23.591_620_505_596_968);
    ends(frames.f64("requested_fps").unwrap(), 40, 30.0, 30.0);
    let host = study.table(0, "host.frames");
    ends(host.i64("t_ns").unwrap(), 40, 1_578_412_132_836_778_000, 1_578_412_134_590_456_000);
    ends(host.u64("mm_time_ms").unwrap(), 40, 17_853_411, 17_855_165);
    let client = study.table(0, "client.frames");
    ends(client.i64("decode_ns").unwrap(), 40, 1_167_000, 371_000);
    ends(client.i64("creation_ns").unwrap(), 40, 354_237_161_027_000, 354_238_914_741_000);
    ends(client.u64("queue").unwrap(), 40, 1, 1);
    ends(client.bool("keyframe").unwrap(), 40, false, false);
    let memory = study.table(0, "guest.mem");
    ends(memory.i64("t_ns").unwrap(), 20, 1_578_412_127_000_000_000, 1_578_412_146_000_000_000);
    ends(memory.u64("free_bytes").unwrap(), 20, 1_090_756 * 1024, 1_100_348 * 1024);
    ends(study.table(0, "host.gpu").f64("video_percent").unwrap(), 20, 13.791025, 19.51247);
    ends(study.table(0, "client.client-pid").f64("cpu_user_percent").unwrap(), 20, 4.95, 4.0);
    ends(study.table(0, "client.frames_time_to_drop").i64("in_queue_ns").unwrap(), 40, 1_231_000, 388_000);
    ends(
        study.table(0, "guest.capture").i64("t_ns").unwrap(),
        40,
        1_578_412_126_931_406_000,
        1_578_412_128_685_041_000,
    );
    assert_eq!(tables(&study.run_dir(0)).unwrap().len(), 18, "19 tables, one without rows");
}

#[test]
fn a_recording_says_where_it_comes_from_and_what_was_assumed() {
    let study = Study::new();
    import(&fixtures("study_keyframes/matrix.csv"), &study.path, &Options::default(), false).unwrap();
    let run = study.facts(0);
    assert_eq!((run.id.as_str(), run.status), ("r0001-p00-k0", RunStatus::Complete));
    assert_eq!(run.window_ns, Some([1_578_412_126_931_400_000, 1_578_412_152_000_000_001]));
    assert_eq!((run.started.as_str(), run.ended.as_str()), ("2020-01-07T15:48:46Z", "2020-01-07T15:49:12Z"));
    assert_eq!(run.asked["display"], Level::Text("webgl-cubemap".into()));
    assert_eq!(run.asked["bitrate"], Level::Int(32_000));
    let import = run.import.unwrap();
    assert_eq!(import.format, "rec");
    assert!(
        import
            .assumptions
            .iter()
            .any(|a| a.contains("how the three clocks lie to each other is not in the file"))
    );
    assert_eq!(
        import.skipped.keys().collect::<Vec<_>>(),
        ["table without rows (first: client.frames_dropped, line 51)"]
    );
    // Line 1, from its end: five lines of a script without an instant, then what guest and client said.
    assert_eq!(run.markers.len(), 13);
    assert_eq!(
        (run.markers[0].t_ns, run.markers[0].text.as_str()),
        (run.started_ns, "script: codec: gst.vp8.vaapivp8enc")
    );
    let last = run.markers.last().unwrap();
    assert_eq!((last.t_ns, last.kind.as_str()), (1_578_412_135_038_336_000, "setting"));
    assert_eq!(last.text, "resolution: height=1920 width=1080");
    let log = fs::read_to_string(study.run_dir(0).join("messages.log")).unwrap();
    assert_eq!(log.lines().filter(|l| l.contains("#pipeline:digraph")).count(), 2);
    let study_file = fs::read_to_string(study.path.join("study.toml")).unwrap();
    assert!(study_file.contains("2020-01-07 16:39:24.554939") && study_file.contains("sha1"));
}

#[test]
fn the_plan_varies_what_differs_and_joins_frames_by_their_size() {
    let study = Study::new();
    import(&fixtures("study_keyframes"), &study.path, &Options::default(), false).unwrap();
    let plan = study.plan();
    assert_eq!(plan.varied, ["display", "keyframe-period"]);
    assert_eq!(plan.fixed["resolution"], Level::Text("1920x1080".into()));
    let keyframes = plan.subject.factors.iter().find(|f| f.name == "keyframe-period").unwrap();
    assert_eq!(keyframes.domain, Domain::Int { min: 150, max: 600 });
    let join = &plan.subject.joins[0];
    assert_eq!(
        (join.key.as_str(), join.parts.len(), join.also.as_slice()),
        ("size_bytes", 3, ["mm_time_ms".to_owned()].as_slice())
    );
    let names: Vec<_> = plan.subject.responses.iter().map(|r| r.name.as_str()).collect();
    for wanted in [
        "guest_fps",
        "guest_frame_size",
        "guest_encode_p50",
        "client_decode_p95",
        "guest_cpu_user",
        "client_longest_queue",
        "host_cpu_cpu_idle",
    ] {
        assert!(names.contains(&wanted), "{wanted} of {names:?}");
    }
}

#[test]
fn what_the_study_has_is_refused_unless_again_and_more_is_added() {
    let study = Study::new();
    let matrix = fixtures("study_keyframes");
    import(&matrix, &study.path, &Options::default(), false).unwrap();
    let before = fs::read(study.path.join("plan.toml")).unwrap();
    let error = import(&matrix, &study.path, &Options::default(), false).unwrap_err();
    assert!(
        error.to_string().contains("as run r0001-p00-k0") && error.to_string().contains("--again"),
        "{error}"
    );
    assert_eq!(fs::read(study.path.join("plan.toml")).unwrap(), before, "a refused import changes nothing");
    assert_eq!(fs::read_dir(study.path.join("runs")).unwrap().count(), 2);
    assert!(!study.path.join(".import").exists());

    let (summary, _) = import(&matrix, &study.path, &Options::default(), true).unwrap();
    let ids: Vec<_> = summary.runs.iter().map(|r| r.id.as_str()).collect();
    assert_eq!((ids, summary.new_points), (vec!["r0003-p00-k1", "r0004-p01-k1"], 0));

    // A new setting makes what was fixed so far a factor.
    let options =
        Options { settings: [("host".to_owned(), Level::Text("b".into()))].into(), ..Options::default() };
    import(&matrix, &study.path, &options, true).unwrap();
    let plan = study.plan();
    assert_eq!((plan.points.len(), plan.runs.len(), plan.repeats), (4, 6, 2));
    assert_eq!(plan.varied, ["display", "keyframe-period", "host"]);
    assert_eq!(plan.points[0].levels.get("host"), None);
}

#[test]
fn an_import_that_is_dropped_leaves_nothing() {
    let study = Study::new();
    let options = Options::default();
    let found = survey(&[fixtures("study_keyframes")], &options).unwrap();
    let mut import = Import::begin(&study.path, false, 2).unwrap();
    let staged = import.add(found.sources[0].read(&options).unwrap()).unwrap();
    assert!(staged.join("run.toml").exists() && !study.path.join("plan.toml").exists());
    assert!(
        matches!(Import::begin(&study.path, false, 1), Err(ImportError::Study { .. })),
        "one import at a time"
    );
    drop(import);
    assert!(!study.path.exists());
}

#[test]
fn studies_that_were_recorded_and_folders_of_others_are_left_alone() {
    let study = Study::new();
    fs::create_dir_all(&study.path).unwrap();
    fs::write(study.path.join("letter.txt"), "mine").unwrap();
    let error = import(&fixtures("study_keyframes"), &study.path, &Options::default(), false).unwrap_err();
    assert!(error.to_string().contains("neither a study nor empty"), "{error}");
    fs::remove_file(study.path.join("letter.txt")).unwrap();
    import(&fixtures("study_keyframes"), &study.path, &Options::default(), false).unwrap();
    let mut plan = study.plan();
    plan.subject.name = "streaming".into();
    recording::facts::write_plan(&study.path.join("plan.toml"), &plan).unwrap();
    let error = import(&fixtures("study_keyframes"), &study.path, &Options::default(), true).unwrap_err();
    assert!(error.to_string().contains("was recorded, not imported"), "{error}");
}

#[test]
fn a_results_tree_gives_points_with_repeats_and_extracted_values() {
    let text = "[[extract]]\nname = 'free'\nfile = 'memfree'\nregex = '(\\d+)'\nunit = 'kB'\ntype = 'int'\n";
    let extractors = Extractors::parse(text, Path::new("extract.toml")).unwrap();
    let options = Options { extractors, ..Options::default() };
    let study = Study::new();
    let (summary, _) = import(&fixtures("results"), &study.path, &options, false).unwrap();
    assert_eq!((summary.runs.len(), summary.new_points), (6, 2));
    let plan = study.plan();
    assert_eq!((plan.varied.as_slice(), plan.repeats), (["operation".to_owned()].as_slice(), 3));
    assert_eq!(plan.fixed["node_count"], Level::Int(2));
    assert!(!plan.fixed.contains_key("run"), "the number of a run is no factor");
    let values: Vec<_> = (0..6).map(|i| study.table(i, "host.results").i64("free").unwrap()[0]).collect();
    assert_eq!(values, [393_040, 400_648, 392_520, 399_568, 386_480, 406_848]);
    assert_eq!(study.facts(4).panels["host"].facts["run"], "2");
    assert_eq!(
        plan.subject.responses.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
        ["host_results_free"]
    );
}

#[test]
fn a_csv_file_becomes_a_table_and_its_words_are_told() {
    let study = Study::new();
    let file = study.path.with_file_name("load.csv");
    fs::write(&file, "at,cpu [%],state\n0.5,12.5,idle\n1.0,80,busy\n1.5,x,idle\n").unwrap();
    let csv = CsvOptions { time: Some("at:s".parse().unwrap()), ..CsvOptions::default() };
    let options = Options { csv, ..Options::default() };
    import(&file, &study.path, &options, false).unwrap();
    let table = study.table(0, "host.load");
    assert_eq!(table.i64("t_ns").unwrap(), [500_000_000, 1_000_000_000]);
    assert_eq!((table.f64("cpu").unwrap(), table.unit("cpu")), ([12.5, 80.0].as_slice(), Some("%")));
    assert_eq!(table.u64("state").unwrap(), [0, 1]);
    let run = study.facts(0);
    assert_eq!(run.panels["host"].facts["words of load.state"], "0 = idle; 1 = busy");
    assert_eq!(run.asked["source"], Level::Text("load".into()));
    assert_eq!(run.import.unwrap().skipped.values().sum::<u64>(), 1);
}

#[test]
fn a_window_follows_the_clocks_that_were_found_later() {
    let study = Study::new();
    import(&fixtures("study_keyframes"), &study.path, &Options::default(), false).unwrap();
    let path = study.run_dir(0).join("run.toml");
    let mut facts = study.facts(0);
    for panel in ["guest", "client"] {
        let clock = recording::facts::ClockFacts {
            offset_ns: 6_000_000_000,
            drift_ppm: 0.0,
            reference_ns: 0,
            uncertainty_ns: 1,
            exchanges: 0,
            from_ns: None,
            later: Vec::new(),
            ..recording::facts::ClockFacts::default()
        };
        facts.panels.get_mut(panel).unwrap().clock = Some(clock);
    }
    recording::facts::write_run(&path, &facts).unwrap();
    set_window(&study.run_dir(0)).unwrap();
    // The first is now of the host's CPU, the last of the guest's memory, six seconds later than it says itself.
    assert_eq!(study.facts(0).window_ns, Some([1_578_412_132_000_000_000, 1_578_412_152_000_000_001]));
}

#[test]
fn paths_without_anything_to_import_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("picture.png"), b"\x89PNG\r\n\x1a\n\0\0").unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (name, expected) in [
        ("picture.png", "is of no known format"),
        ("empty", "is of no known format"),
        ("folder", "holds nothing to import"),
        ("nothing", "cannot read"),
    ] {
        let error = survey(&[dir.path().join(name)], &Options::default()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
}
