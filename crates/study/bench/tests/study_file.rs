//! Study files, right and wrong, through the public API.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::collections::BTreeSet;

use bench::StudyFile;
use bench::plan::plan;
use proptest::prelude::*;
use recording::spec::{Better, Domain, Factor, Level, Response, Statistic, SubjectSpec};

fn factor(name: &str, unit: &str, domain: Domain, default: Level) -> Factor {
    Factor { name: name.into(), unit: unit.into(), description: String::new(), domain, default }
}

fn response(name: &str) -> Response {
    Response {
        name: name.into(),
        label: name.into(),
        table: "guest.frames".into(),
        column: "t_ns".into(),
        statistic: Statistic::Count,
        scale: 1.0,
        unit: "1".into(),
        better: Better::Neutral,
    }
}

fn subject() -> SubjectSpec {
    let codecs = ["mjpeg", "vp8", "h264"].map(String::from).to_vec();
    SubjectSpec {
        name: "streaming".into(),
        description: "a stream".into(),
        factors: vec![
            factor("codec", "", Domain::Enum { values: codecs }, Level::Text("h264".into())),
            factor("encoder", "", Domain::Text, Level::Text(String::new())),
            factor("fps", "Hz", Domain::Int { min: 1, max: 240 }, Level::Int(30)),
            factor("bitrate", "Mbit/s", Domain::Float { min: 0.05, max: 200.0 }, Level::Float(4.0)),
            factor("cursor", "", Domain::Bool, Level::Bool(true)),
        ],
        responses: vec![response("delivered_fps"), response("latency_p50")],
        joins: Vec::new(),
    }
}

fn parse(text: &str) -> Result<StudyFile, bench::Faults> {
    StudyFile::parse(text, "studies/x.toml", &[subject()])
}

#[test]
fn a_whole_file_is_read_with_its_levels_in_order() {
    let study = parse(
        "subject = \"streaming\"\ntitle = \"t\"\nrepeats = 2\nseed = 7\nwarmup_s = 0.5\nrecord_s = 4\nresponses = \
         [\"latency_p50\"]\n[factors]\nfps = [30, 15]\nbitrate = [1, 2.5]\n[fixed]\ncodec = \"vp8\"\n",
    )
    .unwrap();
    assert_eq!((study.repeats, study.seed, study.warmup_s, study.record_s), (2, Some(7), 0.5, 4.0));
    assert_eq!(study.factors[0], ("fps".into(), vec![Level::Int(30), Level::Int(15)]));
    assert_eq!(study.factors[1], ("bitrate".into(), vec![Level::Float(1.0), Level::Float(2.5)]));
    assert_eq!(study.fixed["codec"], Level::Text("vp8".into()));
    assert_eq!(study.fixed["cursor"], Level::Bool(true), "defaults of the subject are recorded too");
    assert!(!study.fixed.contains_key("fps"));
    assert_eq!(study.subject.responses.len(), 1);
    assert_eq!(study.points(0).len(), 4);
}

#[test]
fn the_least_file_is_one_point_at_the_defaults() {
    let study = parse("subject = \"streaming\"").unwrap();
    assert_eq!((study.points(0).len(), study.repeats, study.seed), (1, 3, None));
    assert_eq!(study.subject.responses.len(), 2);
}

/// (file, line, column, part of the message, part of what is expected, nearest)
type Wrong = (&'static str, usize, usize, &'static str, &'static str, Option<&'static str>);

#[test]
fn every_fault_names_its_place_what_was_expected_and_the_nearest_valid() {
    const S: &str = "subject = \"streaming\"\n";
    #[rustfmt::skip]
    let table: &[Wrong] = &[
        ("", 1, 1, "`subject` is missing", "`streaming`", None),
        ("subject = \"straeming\"", 1, 11, "no subject `straeming`", "`streaming`", Some("streaming")),
        ("subject = 3", 1, 11, "`subject` is a whole number", "a text", None),
        ("subject = \"streaming\"\nrepeat = 3", 2, 1, "field `repeat` is unknown", "`repeats`", Some("repeats")),
        ("@repeats = 0", 2, 11, "0 is out of range", "from 1 to 10000", Some("1")),
        ("@repeats = 2.5", 2, 11, "2.5 is not whole", "whole number", Some("3")),
        ("@repeats = \"3\"", 2, 11, "this is a text", "whole number", None),
        ("@seed = -1", 2, 8, "-1 is out of range", "from 0", Some("0")),
        ("@warmup_s = -0.5", 2, 12, "-0.5 is out of range", "seconds", Some("0")),
        ("@record_s = nan", 2, 12, "NaN is not finite", "a finite number of seconds", None),
        ("@record_s = 0", 2, 12, "0 is out of range", "from 0.1", Some("0.1")),
        ("@title = 2026-01-01", 2, 9, "`title` is a date", "a text", None),
        ("@responses = [\"latency\"]", 2, 14, "gives no `latency`", "`latency_p50`", Some("latency_p50")),
        ("@responses = \"latency_p50\"", 2, 13, "`responses` is a text", "a list", Some("[\"latency_p50\"]")),
        ("@responses = [\"latency_p50\", \"latency_p50\"]", 2, 29, "stands twice", "once", None),
        ("@[factors]\nencoders = [\"x264enc\"]", 3, 1, "field `encoders`", "`encoder`", Some("encoder")),
        ("@[factors]\ncodec = [\"h264\", \"vp7\"]", 3, 18, "`vp7` is unknown", "\"mjpeg\", \"vp8\", \"h264\"", Some("\"vp8\"")),
        ("@[factors]\ncodec = []", 3, 9, "empty list", "one entry", None),
        ("@[factors]\nfps = 30", 3, 7, "`fps` is a whole number", "a list", Some("[30]")),
        ("@[factors]\nfps = [15, 300]", 3, 12, "300 is out of range", "from 1 to 240 Hz", Some("240")),
        ("@[factors]\nfps = [29.97]", 3, 8, "29.97 is not whole", "whole number", Some("30")),
        ("@[factors]\nfps = [\"30\"]", 3, 8, "is a text", "whole number", Some("30")),
        ("@[factors]\nfps = [15, 15]", 3, 12, "level 15 stands twice", "once", None),
        ("@[factors]\nbitrate = [1, 1.0]", 3, 15, "level 1 stands twice", "once", None),
        ("@[factors]\nbitrate = [0]", 3, 12, "0 is out of range", "Mbit/s", Some("0.05")),
        ("@[factors]\ncursor = [\"True\"]", 3, 11, "\"True\" is a text", "true or false", Some("true")),
        ("@[factors]\ncursor = [1]", 3, 11, "1 is of another type", "true or false", None),
        ("@[factors]\nencoder = [264]", 3, 12, "264 is not a text", "a text", Some("\"264\"")),
        ("@[factors]\nfps = [[15], [30]]", 3, 8, "is a list", "whole number", None),
        ("@factors = 3", 2, 11, "`factors` is a whole number", "[factors]", None),
        ("@[fixed]\nfps = [30]", 3, 7, "`fps` is a list", "[factors]", None),
        ("@[factors]\nfps = [15]\n[fixed]\nfps = 30", 5, 1, "both in [factors] and in [fixed]", "one place", None),
        ("@[fixed]\nfsp = 30", 3, 1, "field `fsp` of [fixed]", "`fps`", Some("fps")),
        ("@[fixed]\nfps = 0x1ff", 3, 7, "511 is out of range", "whole", Some("240")),
        ("@fps = [15", 2, 10, "unclosed array", "TOML", None),
        ("@repeats = 3\nrepeats = 4", 3, 1, "duplicate key", "TOML", None),
    ];
    for (text, line, column, message, expected, nearest) in table {
        let text = text.replace('@', S);
        let faults = parse(&text).expect_err(&text).faults;
        let fault = faults
            .iter()
            .find(|f| (f.line, f.column) == (*line, *column))
            .unwrap_or_else(|| panic!("no fault at {line}:{column} of {text:?}, but {faults:?}"));
        assert!(fault.message.contains(message), "{text:?}: {}", fault.message);
        assert!(fault.expected.contains(expected), "{text:?}: {}", fault.expected);
        assert_eq!(fault.nearest.as_deref(), *nearest, "{text:?}");
    }
}

#[test]
fn all_faults_are_told_at_once_in_order() {
    let faults = parse("subject = \"streaming\"\nrepaets = 1\n[factors]\nfps = [0]\ncodecs = [\"vp8\"]\n")
        .unwrap_err();
    let lines: Vec<_> = faults.faults.iter().map(|f| f.line).collect();
    assert_eq!(lines, [2, 4, 5]);
    let shown = faults.to_string();
    assert!(shown.contains("studies/x.toml:4:8: error: setting `fps`: 0 is out of range"), "{shown}");
    assert!(shown.contains("4 | fps = [0]\n  |        ^\n"), "{shown}");
}

#[test]
fn a_matrix_that_would_never_end_is_refused() {
    let levels = (1..=240).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!("subject = \"streaming\"\nrepeats = 10000\n[factors]\nfps = [{levels}]\n");
    let faults = parse(&text).unwrap_err();
    assert!(faults.faults[0].message.contains("2400000 runs"), "{faults}");
}

fn study(repeats: u32) -> StudyFile {
    let text = format!(
        "subject = \"streaming\"\nrepeats = {repeats}\n[factors]\ncodec = [\"vp8\", \"h264\"]\nfps = [15, 30]\nbitrate = [1, 4]\n"
    );
    parse(&text).unwrap()
}

#[test]
fn a_plan_is_the_product_in_blocks_and_its_seed_is_its_order() {
    let facts = plan(&study(3), "x", String::new(), 42);
    assert_eq!((facts.points.len(), facts.runs.len()), (8, 24));
    assert_eq!(facts.varied, ["codec", "fps", "bitrate"]);
    assert_eq!(facts.points[1].levels["bitrate"], Level::Float(4.0));
    for (block, runs) in facts.runs.chunks(8).enumerate() {
        assert!(runs.iter().all(|r| r.repeat == block as u32));
        assert_eq!(runs.iter().map(|r| r.point).collect::<BTreeSet<_>>().len(), 8);
    }
    let first = &facts.runs[0];
    assert_eq!(first.id, format!("r0001-p{:02}-k0", first.point));
    assert!(facts.runs.is_sorted_by_key(|r| &r.id), "folders sort in order of execution");
    assert_eq!(facts.runs, plan(&study(3), "x", String::new(), 42).runs);
    assert_ne!(facts.runs, plan(&study(3), "x", String::new(), 43).runs);
    // Golden: the order of a seed must never change, or recorded seeds would lose their meaning.
    let order: Vec<_> = facts.runs[..8].iter().map(|r| r.point).collect();
    assert_eq!(order, GOLDEN_ORDER_OF_42);
}

const GOLDEN_ORDER_OF_42: [u32; 8] = [7, 1, 5, 4, 6, 0, 3, 2];

#[test]
fn a_fresh_seed_survives_toml() {
    for _ in 0..100 {
        assert!(bench::plan::fresh_seed() < 1 << 53);
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = parse(&text).map_err(|f| f.to_string());
    }

    #[test]
    fn no_mutation_of_a_valid_file_makes_the_reader_panic(at in 0usize..120, put in "[\\[\\]=\"a-z0-9.\n\té]{0,3}") {
        let mut text = String::from("subject = \"streaming\"\ntitle = \"tä\"\nrepeats = 2\n[factors]\nfps = [30, 15]\n[fixed]\ncodec = \"vp8\"\n");
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) { at -= 1; }
        text.insert_str(at, &put);
        if let Err(faults) = parse(&text) {
            prop_assert!(!faults.faults.is_empty());
            let _ = faults.to_string();
        }
    }
}

#[test]
fn what_can_only_fail_is_told_at_its_place_in_the_file() {
    let text = "subject = \"streaming\"\n[factors]\nfps = [10, 15]\n[fixed]\nbitrate = 3\n";
    let study = parse(text).unwrap();
    let conflict = |setting: &str, wrong: &str| bench::Conflict {
        setting: setting.into(),
        wrong: wrong.into(),
        expected: "another".into(),
        nearest: Some("14".into()),
    };
    let faults = study
        .check("x.toml", 0, &|settings| match (&settings["fps"], &settings["bitrate"]) {
            (Level::Int(15), Level::Float(3.0)) => {
                vec![conflict("fps", "15 is odd"), conflict("bitrate", "3 is odd"), conflict("codec", "odd")]
            }
            _ => Vec::new(),
        })
        .unwrap_err()
        .faults;
    let places: Vec<_> = faults.iter().map(|f| (f.line, f.column, f.message.as_str())).collect();
    let expected = [
        (1, 1, "setting `codec`: odd"),
        (3, 12, "setting `fps`: 15 is odd"),
        (5, 11, "setting `bitrate`: 3 is odd"),
    ];
    assert_eq!(places, expected);
    assert!(study.check("x.toml", 0, &|_| Vec::new()).is_ok());
}

const COMMAND: &str = "subject = \"command\"\n[command]\nrun = [\"xz\", \"-{level}\", \"{mode}\"]\n";

#[test]
fn a_commands_settings_have_the_domains_that_their_levels_tell() {
    let text = format!(
        "{COMMAND}[[extract]]\nname = \"ratio\"\nfile = \"stdout\"\nregex = '([\\d.]+)'\nunit = \"%\"\n[factors]\n\
         level = {{ levels = \"1..7 step 3\", unit = \"l\", description = \"effort\" }}\n[fixed]\nmode = \"fast\"\n"
    );
    let study = parse(&text).unwrap();
    assert_eq!(study.factors, [("level".into(), [1, 4, 7].map(Level::Int).to_vec())]);
    let level = &study.subject.factors[0];
    assert_eq!((level.unit.as_str(), level.description.as_str()), ("l", "effort"));
    assert_eq!(level.domain, Domain::Int { min: 1, max: 7 });
    let ratio = &study.subject.responses[0];
    assert_eq!(
        (ratio.name.as_str(), ratio.table.as_str(), ratio.unit.as_str()),
        ("ratio", "host.results", "%")
    );
    assert_eq!((study.warmup_s, study.record_s), (0.0, 0.0));
}

#[test]
fn what_is_wrong_with_a_command_is_told_with_the_remedy() {
    for (text, expected) in [
        ("subject = \"command\"\n".to_owned(), "section [command] is missing"),
        (format!("{COMMAND}[factors]\nlevel = [1]\n"), "there is no setting `mode`"),
        (
            format!("{COMMAND}[factors]\nlevel = [1]\nmode = [\"a\"]\nmore = [1]\n"),
            "factor `more` stands nowhere in [command]",
        ),
        (
            format!("{COMMAND}[factors]\nlevel = [1, \"a\"]\n[fixed]\nmode = 1\n"),
            "factor `level`: its levels are of several types",
        ),
        (
            format!("{COMMAND}[factors]\nlevel = \"1..9 step 3\"\n[fixed]\nmode = 1\n"),
            "steps of 3 from 1 do not reach 9",
        ),
        (
            format!("record_s = 3\n{COMMAND}[factors]\nlevel = [1]\n[fixed]\nmode = 1\n"),
            "a command takes the time that it takes",
        ),
        (
            format!("{COMMAND}executions = 0\n[factors]\nlevel = [1]\n[fixed]\nmode = 1\n"),
            "field `executions` of [command]: 0 is not",
        ),
        (format!("{COMMAND}rnu = 0\n"), "unknown field `rnu`"),
        (
            format!("{COMMAND}[factors]\nlevel = [1]\nrun_dir = [1, 2]\n[fixed]\nmode = 1\n"),
            "a setting cannot be called `run_dir`",
        ),
        (
            format!(
                "{COMMAND}[[extract]]\nname = \"x\"\nfile = \"a\"\nregex = \"(a)\"\n[[extract]]\nname = \"x\"\nfile = \"b\"\nregex = \"(b)\"\n"
            ),
            "`x` stands twice",
        ),
        (
            format!(
                "{COMMAND}[[extract]]\nname = \"x\"\nfile = \"a\"\nregex = \"(a)\"\ntable = \"command\"\n"
            ),
            "`x` goes to the table host.command",
        ),
        (
            "subject = \"streaming\"\n[command]\nrun = \"x\"\n".to_owned(),
            "field `command` is only for `subject = \"command\"`",
        ),
    ] {
        let told = parse(&text).unwrap_err().to_string();
        assert!(told.contains(expected), "{text}\n{told}");
    }
}

#[test]
fn ranges_exclusions_and_points_make_the_design() {
    let points = |text: &str| {
        let study = parse(&format!("subject = \"streaming\"\n{text}"));
        let study = study.unwrap_or_else(|faults| panic!("{faults}"));
        let told = |point: &recording::spec::Levels| {
            point.values().map(Level::to_string).collect::<Vec<_>>().join(" ")
        };
        study.points(0).iter().map(told).collect::<Vec<_>>()
    };
    let factors = "[factors]\ncodec = [\"vp8\", \"h264\"]\nfps = \"20..60 step 20\"\n";
    assert_eq!(points(factors).len(), 6);
    let excluded = format!("exclude = [\"codec == 'vp8' and fps > 20\", \"fps == 40\"]\n{factors}");
    assert_eq!(points(&excluded), ["vp8 20", "h264 20", "h264 60"]);
    let more = "[[points]]\ncodec = \"mjpeg\"\nfps = 240\n[[points]]\ncodec = \"vp8\"\nfps = 20\n";
    assert_eq!(points(&format!("{excluded}{more}")), ["vp8 20", "h264 20", "h264 60", "mjpeg 240"]);
    let only = format!("{factors}{more}[design]\nkind = \"points\"\n");
    assert_eq!(points(&only), ["mjpeg 240", "vp8 20"]);
}

#[test]
fn what_is_wrong_with_a_design_is_told_with_its_place() {
    let factors = "[factors]\nfps = [20, 40]\n";
    for (text, expected) in [
        (
            format!("exclude = [\"fsp > 3\"]\n{factors}"),
            "x.toml:2:13: error: field `exclude`: there is no setting `fsp`",
        ),
        (format!("exclude = [\"fps > 3\"]\n{factors}"), "no point is left to be run"),
        (
            format!("{factors}[[points]]\nfps = 20\nbitrate = 2\n"),
            "field `bitrate` of [[points]]: it is not varied",
        ),
        (format!("{factors}[[points]]\n"), "a point has no level of `fps`"),
        (format!("{factors}[[points]]\nfps = 900\n"), "900 is out of range"),
        (format!("{factors}[design]\nkind = \"latin\"\n"), "unknown variant `latin`"),
        ("[factors]\nfps = \"900..1000 step 50\"\n".to_owned(), "900 is out of range"),
        (
            "[factors]\nfps = { levels = [20], unit = \"Hz\" }\n".to_owned(),
            "its unit and description are the subject's",
        ),
    ] {
        let told = parse(&format!("subject = \"streaming\"\n{text}")).unwrap_err().to_string();
        assert!(told.contains(expected), "{text}\n{told}");
    }
}

#[test]
fn a_study_makes_responses_of_its_own() {
    let response = |text: &str| {
        let text =
            format!("subject = \"streaming\"\n[factors]\nfps = [20]\n[[response]]\nname = \"x\"\n{text}");
        parse(&text)
            .map(|study| study.subject.responses.last().unwrap().clone())
            .map_err(|faults| faults.to_string())
    };
    let made = response(
        "indicator = \"client.frames.queue\"\nstatistic = \"p99\"\nunit = \"1\"\nbetter = \"lower\"\n",
    )
    .unwrap();
    assert_eq!((made.table.as_str(), made.column.as_str()), ("client.frames", "queue"));
    assert_eq!((made.statistic, made.better), (Statistic::P99, Better::Lower));
    let like = response("indicator = \"delivered_fps\"\nstatistic = \"max\"\n").unwrap();
    assert_eq!(
        (like.table.as_str(), like.column.as_str(), like.unit.as_str()),
        ("guest.frames", "t_ns", "1")
    );
    for (text, expected) in [
        ("indicator = \"deliverd_fps\"\n", "nearest valid: delivered_fps"),
        ("indicator = \"guest.frames.t_ns\"\nscale = 0\n", "its scale is 0"),
        ("indicator = \"guest.frames.t_ns\"\nstatistic = \"p42\"\n", "unknown variant `p42`"),
        ("indicator = \"guest.frames.t_ns\"\nunti = \"s\"\n", "unknown field `unti`"),
    ] {
        let told = response(text).unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn hostile_files_end_quickly_and_are_told_briefly() {
    let many = vec!["10"; 9_000].join(",");
    let told = parse(&format!("subject = \"streaming\"\n[factors]\nfps = [{many}]\n")).unwrap_err();
    assert!(told.faults.len() <= 50 && told.to_string().len() < 100_000, "{}", told.faults.len());
    let wide = parse(&format!("subject = \"streaming\"\n[factors]\nfps = [{many},{many}]\n")).unwrap_err();
    assert!(wide.to_string().contains("has 18000 levels"));
    let pairs = "subject = \"command\"\n[command]\nrun = \"x {a} {b}\"\n[factors]\na = \"1..2000 step 1\"\nb = \"1..2000 step 1\"\n[design]\nkind = \"pairwise\"\n";
    assert!(parse(pairs).unwrap_err().to_string().contains("makes at least 4000000 points"));
}

#[test]
fn designs_of_fewer_points_have_what_they_promise() {
    let factors = "[factors]\ncodec = [\"mjpeg\", \"vp8\", \"h264\"]\nfps = \"20..60 step 20\"\nbitrate = [1, 2, 4]\ncursor = [true, false]\n";
    let study = |text: &str| parse(&format!("subject = \"streaming\"\nrepeats = 1\n{text}"));
    let points = |text: &str| study(text).unwrap_or_else(|faults| panic!("{faults}")).points(7);
    let pairwise = points(&format!(
        "exclude = [\"codec == 'vp8' and fps == 60\"]\n{factors}[design]\nkind = \"pairwise\"\n"
    ));
    assert!((9..=16).contains(&pairwise.len()), "{} of 54 points", pairwise.len());
    let mut pairs = BTreeSet::new();
    for point in &pairwise {
        let set: Vec<_> = point.iter().map(|(name, level)| format!("{name}={level}")).collect();
        assert!(!(set.contains(&"codec=vp8".into()) && set.contains(&"fps=60".into())));
        pairs.extend(set.iter().flat_map(|a| set.iter().map(move |b| format!("{a} {b}"))).filter(|pair| {
            let (a, b) = pair.split_once(' ').unwrap();
            a < b
        }));
    }
    // 9 + 9 + 6 + 9 + 6 + 6 pairs of levels of two factors, less the excluded one.
    assert_eq!(pairs.len(), 44);
    let latin = points(&format!("{factors}[design]\nkind = \"latin-hypercube\"\nsamples = 9\n"));
    for (name, levels) in [("codec", 3), ("fps", 3), ("bitrate", 3)] {
        let mut counts = std::collections::BTreeMap::new();
        latin.iter().for_each(|point| *counts.entry(point[name].to_string()).or_insert(0) += 1);
        assert_eq!(counts.len(), levels, "{name}");
        assert!(latin.len() < 9 || counts.values().all(|n| *n == 3), "{counts:?}");
    }
    assert_eq!(
        latin,
        points(&format!("{factors}[design]\nkind = \"latin-hypercube\"\nsamples = 9\n")),
        "the seed decides"
    );
    let two =
        "[factors]\ncodec = [\"mjpeg\", \"vp8\"]\nfps = [20, 40]\nbitrate = [1, 2]\ncursor = [true, false]\n";
    assert_eq!(points(&format!("{two}[design]\nkind = \"fractional\"\n")).len(), 8, "resolution IV of 16");
    for (text, expected) in [
        (format!("{factors}[design]\nkind = \"fractional\"\n"), "has 3 levels; a fraction needs two of each"),
        (format!("{factors}[design]\nkind = \"latin-hypercube\"\n"), "`samples` is for"),
        (format!("{factors}[design]\nsamples = 3\n"), "`samples` is for"),
        (format!("{factors}[design]\nkind = \"pairwise\"\nresolution = 3\n"), "`resolution` is for"),
    ] {
        let told = study(&text).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}
