//! Runs are exported whole: the same numbers, on the clock asked for, with their units; and a trace is read back by a
//! reader that shares nothing with the writer.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use probe::ColumnType::{Bool, F64, I64, U64};
use probe::Table;
use recording::export::{Clock, ExportError, Exported, Format, Request, Source, export, matches};
use recording::facts::{StudyFacts, read_run};
use recording::files::{TableWriter, to_parquet};
use recording::reader::{Column, read_parquet, read_table};
use recording::spec::{Join, Panel, Span, SubjectSpec};

const ID: &str = "r0001-p00-k0";

/// The facts of the golden record with a table of extremes and one of frames; the clock of the guest is 1500 ns behind,
/// with a drift, as those facts say.
fn record(dir: &Path) -> PathBuf {
    let run = dir.join("runs").join(ID);
    fs::create_dir_all(&run).unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/run.toml");
    fs::copy(golden, run.join("run.toml")).unwrap();
    let spec = Table::new("extremes", "made up")
        .column("i", I64, "1", "an integer, with a comma")
        .column("u", U64, "B", "a size")
        .column("f", F64, "%", "a share")
        .column("on", Bool, "", "a flag")
        .column("done_ns", I64, "ns", "Instant of the end; 0: never");
    let row = |t: i64, i: i64, u: u64, f: f64, on: bool, done: i64| {
        [t as u64, i as u64, u, f.to_bits(), u64::from(on), done as u64]
    };
    let rows = [
        row(3_000_000_000, i64::MIN, u64::MAX, 0.1 + 0.2, true, 3_000_000_500),
        row(3_000_001_000, i64::MAX, 0, f64::NAN, false, 0),
        row(3_000_002_000, -1, 1 << 53 | 1, f64::NEG_INFINITY, true, 3_000_009_000),
        row(3_000_003_000, 0, 7, -0.0, false, 3_000_004_000),
    ];
    let mut writer = TableWriter::create(&run, "guest.extremes", &spec).unwrap();
    writer.write(&rows.concat()).unwrap();
    writer.finish().unwrap();
    to_parquet(&run, "guest.extremes").unwrap();
    run
}

fn request(run: &Path, out: &Path, format: Format) -> Request {
    let runs = vec![Source { dir: run.to_owned(), responses: [("fps".to_owned(), 29.5)].into() }];
    Request {
        runs,
        plan: None,
        format,
        out: out.to_owned(),
        tables: Vec::new(),
        clock: Clock::Collector,
        force: false,
    }
}

fn run(request: &Request) -> Exported {
    export(request, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

/// The cells of a plain CSV file (nothing in it is in quotes) by column.
fn csv(path: &Path) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|l| l.split(',').map(String::from).collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let rows: Vec<_> = lines.collect();
    head.iter()
        .enumerate()
        .map(|(i, name)| (name.clone(), rows.iter().map(|r| r[i].clone()).collect()))
        .collect()
}

#[test]
fn csv_json_and_parquet_hold_the_same_bits_as_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    let truth = read_table(&source, "guest.extremes").unwrap();
    let clock = read_run(&source.join("run.toml")).unwrap().panels["guest"].clock.clone().unwrap();
    let at = |t: &i64| clock.to_collector(*t);
    let t_ns: Vec<i64> = truth.i64("t_ns").unwrap().iter().map(at).collect();
    let done: Vec<i64> =
        truth.i64("done_ns").unwrap().iter().map(|t| if *t == 0 { 0 } else { at(t) }).collect();
    assert_eq!(t_ns[0], 3_000_001_500);

    let out = dir.path().join("csv");
    run(&request(&source, &out, Format::Csv));
    let read = csv(&out.join(ID).join("guest.extremes.csv"));
    let parse = |name: &str| read[name].iter().map(|c| c.parse().unwrap()).collect::<Vec<i64>>();
    assert_eq!((parse("t_ns"), parse("done_ns")), (t_ns.clone(), done.clone()));
    assert_eq!(parse("i"), truth.i64("i").unwrap());
    assert_eq!(read["u"].iter().map(|c| c.parse().unwrap()).collect::<Vec<u64>>(), truth.u64("u").unwrap());
    let bits = |v: &[f64]| v.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
    let floats: Vec<f64> = read["f"].iter().map(|c| c.parse().unwrap()).collect();
    assert_eq!(bits(&floats), bits(truth.f64("f").unwrap()));
    assert_eq!(read["on"], ["true", "false", "true", "false"]);

    let out = dir.path().join("jsonl");
    run(&request(&source, &out, Format::JsonLines));
    let text = fs::read_to_string(out.join(ID).join("guest.extremes.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l["t_ns"].as_i64().unwrap()).collect::<Vec<_>>(), t_ns);
    assert_eq!((lines[0]["u"].as_u64(), lines[0]["i"].as_i64()), (Some(u64::MAX), Some(i64::MIN)));
    assert_eq!((&lines[1]["f"], &lines[2]["f"]), (&"NaN".into(), &"-Infinity".into()));

    let out = dir.path().join("parquet");
    run(&request(&source, &out, Format::Parquet));
    let read = read_parquet(&out.join(ID).join("guest.extremes.parquet")).unwrap();
    assert_eq!((read.i64("t_ns").unwrap(), read.i64("done_ns").unwrap()), (&t_ns[..], &done[..]));
    assert_eq!(
        (read.get("i"), read.get("u"), read.get("on")),
        (truth.get("i"), truth.get("u"), truth.get("on"))
    );
    let floats = |t: &recording::reader::Columns| match t.get("f") {
        Some(Column::F64(v)) => bits(v),
        _ => Vec::new(),
    };
    assert_eq!(floats(&read), floats(&truth));
    assert_eq!((read.unit("u"), read.unit("f")), (Some("B"), Some("%")));
}

#[test]
fn units_clocks_and_uncertainty_are_in_the_table_of_columns() {
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    let out = dir.path().join("out");
    let of = |out: &Path| -> Vec<serde_json::Value> {
        let text = fs::read_to_string(out.join("columns.jsonl")).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
        lines.filter(|l: &serde_json::Value| l["table"] == "guest.extremes").collect()
    };
    run(&request(&source, &out, Format::JsonLines));
    let columns = of(&out);
    let named = |name: &str| columns.iter().find(|c| c["column"] == name).unwrap();
    assert_eq!(named("u")["unit"], "B");
    assert_eq!(named("i")["description"], "an integer, with a comma");
    assert_eq!((&named("u")["clock"], &named("u")["uncertainty_ns"]), (&().into(), &().into()));
    for instant in ["t_ns", "done_ns"] {
        assert_eq!(named(instant)["clock"], "collector");
        assert_eq!(named(instant)["uncertainty_ns"], 40_000);
    }
    let runs = fs::read_to_string(out.join("runs.jsonl")).unwrap();
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    assert_eq!(
        (&runs["run"], &runs["setting_fps"], &runs["response_fps"]),
        (&ID.into(), &30.into(), &29.5.into())
    );
    assert_eq!(runs["clock_guest_uncertainty_ns"], 40_000);

    let raw = dir.path().join("raw");
    run(&Request { clock: Clock::Panel, ..request(&source, &raw, Format::JsonLines) });
    let line = fs::read_to_string(raw.join(ID).join("guest.extremes.jsonl")).unwrap();
    assert!(line.starts_with("{\"t_ns\":3000000000,"), "{line}");
    assert_eq!(of(&raw)[0]["clock"], "guest");
}

#[test]
fn a_torn_stream_gives_its_whole_batches_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/host.frames.arrows");
    fs::copy(golden, source.join("host.frames.arrows")).unwrap();
    fs::write(source.join("client.frames.parquet"), "no Parquet").unwrap();
    let exported = run(&request(&source, &dir.path().join("out"), Format::Csv));
    let torn = exported.files.iter().find(|f| f.table.as_deref() == Some("host.frames")).unwrap();
    assert_eq!((torn.rows, torn.complete), (2, false));
    assert_eq!(exported.left_out.len(), 1);
    assert!(exported.left_out[0].what.contains("client.frames"), "{:?}", exported.left_out);
}

#[test]
fn the_record_and_full_folders_are_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    for out in [source.clone(), dir.path().join("runs"), source.join("below")] {
        let request = Request { force: true, ..request(&source, &out, Format::Parquet) };
        let refused = export(&request, &AtomicBool::new(false), &mut |_| {});
        assert!(matches!(refused, Err(ExportError::Inside(_))), "{}", out.display());
    }
    assert!(!source.join("below").exists(), "nothing was made in the record");
    let out = dir.path().join("out");
    run(&request(&source, &out, Format::Csv));
    let again = export(&request(&source, &out, Format::Csv), &AtomicBool::new(false), &mut |_| {});
    assert!(matches!(again, Err(ExportError::NotEmpty(_))));
    run(&Request { force: true, ..request(&source, &out, Format::Csv) });
}

#[test]
fn an_export_that_is_stopped_leaves_no_half_file() {
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    let out = dir.path().join("out");
    let stop = AtomicBool::new(false);
    // The first batch of the first table was read: the second table is never begun.
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/host.frames.arrows");
    fs::copy(golden, source.join("host.frames.arrows")).unwrap();
    let stopped = export(&request(&source, &out, Format::Csv), &stop, &mut |_| {
        stop.store(true, std::sync::atomic::Ordering::Release);
    });
    assert!(matches!(stopped, Err(ExportError::Interrupted { files: 1 })), "{stopped:?}");
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!((names(&out), names(&out.join(ID))), (vec![ID.into()], vec!["guest.extremes.csv".into()]));
}

#[test]
fn tables_are_chosen_by_pattern() {
    for (pattern, name, fits) in [
        ("*", "", true),
        ("*.frames", "guest.frames", true),
        ("*.frames", "guest.frames2", false),
        ("guest.*", "guest.a.b", true),
        ("g?est.*s", "guest.process", true),
        ("a*b*c", "aXbXbYc", true),
        ("a*b*c", "aXbXbY", false),
        ("", "x", false),
    ] {
        assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
    }
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    let none = Request { tables: vec!["x*".into()], ..request(&source, &dir.path().join("o"), Format::Csv) };
    let none = export(&none, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(none.to_string().contains("no table is called x* (there are: guest.extremes)"), "{none}");
}

/// A message of Protocol Buffers taken apart: field, then number or bytes. Knows nothing of the writer.
#[derive(Debug)]
enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

type Fields<'a> = Vec<(u64, Wire<'a>)>;
/// Time, type, name, value.
type Event = (u64, u64, String, Option<u64>);

fn decode(mut bytes: &[u8]) -> Fields<'_> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number of more than ten bytes");
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)),
            1 => {
                let (value, rest) = bytes.split_at(8);
                bytes = rest;
                Wire::Fixed(u64::from_le_bytes(value.try_into().unwrap()))
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Wire::Bytes(value)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn number(fields: &[(u64, Wire<'_>)], field: u64) -> Option<u64> {
    fields.iter().find_map(|(f, v)| match v {
        Wire::Number(n) | Wire::Fixed(n) if *f == field => Some(*n),
        _ => None,
    })
}

fn bytes<'a>(fields: &[(u64, Wire<'a>)], field: u64) -> Option<&'a [u8]> {
    fields.iter().find_map(|(f, v)| match v {
        Wire::Bytes(b) if *f == field => Some(*b),
        _ => None,
    })
}

fn string(fields: &[(u64, Wire<'_>)], field: u64) -> String {
    String::from_utf8(bytes(fields, field).unwrap_or_default().to_vec()).unwrap()
}

#[test]
fn a_trace_has_a_process_a_panel_counters_slices_and_markers_on_the_collectors_clock() {
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    let out = dir.path().join("out");
    let exported = run(&request(&source, &out, Format::Perfetto));
    let trace = fs::read(out.join(format!("{ID}.perfetto-trace"))).unwrap();
    let packets: Vec<_> = decode(&trace)
        .into_iter()
        .map(|(field, packet)| match packet {
            Wire::Bytes(packet) if field == 1 => decode(packet),
            other => panic!("not a packet: {other:?}"),
        })
        .collect();
    assert_eq!(packets.len() as u64, exported.files[0].rows);
    assert!(packets.iter().all(|p| number(p, 10) == Some(1)), "one sequence");
    assert_eq!(packets.iter().filter(|p| number(p, 13) == Some(1)).count(), 1);

    let tracks: BTreeMap<u64, (String, Option<u64>, Fields<'_>)> = packets
        .iter()
        .filter_map(|p| bytes(p, 60))
        .map(|t| {
            let track = decode(t);
            (number(&track, 1).unwrap(), (string(&track, 2), number(&track, 5), track))
        })
        .collect();
    let guest = tracks.iter().find(|(_, t)| t.0 == "guest").unwrap();
    let process = decode(bytes(&guest.1.2, 3).unwrap());
    assert_eq!(string(&process, 6), "guest");
    let labels: Vec<_> = process.iter().filter(|(f, _)| *f == 8).collect();
    assert!(format!("{labels:?}").len() > 10 && labels.len() == 2, "program and clock");

    // By track.
    let mut events: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    for packet in &packets {
        let Some(event) = bytes(packet, 11).map(decode) else { continue };
        let value = number(&event, 30).or(number(&event, 44));
        let entry = (number(packet, 8).unwrap(), number(&event, 9).unwrap(), string(&event, 23), value);
        events.entry(number(&event, 11).unwrap()).or_default().push(entry);
    }
    assert!(events.keys().all(|t| tracks.contains_key(t)), "every track is described");
    let of = |name: &str| {
        let (id, track) = tracks.iter().find(|(_, t)| t.0 == name).unwrap();
        assert!(track.1.is_none_or(|parent| tracks.contains_key(&parent)));
        (&events[id], track)
    };
    let (counter, track) = of("extremes.u");
    assert_eq!(track.1, Some(*guest.0));
    assert_eq!(number(&decode(bytes(&track.2, 8).unwrap()), 3), Some(3), "bytes");
    let times: Vec<_> = counter.iter().map(|e| e.0).collect();
    assert_eq!(times, [3_000_001_500, 3_000_002_500, 3_000_003_500, 3_000_004_500]);
    assert_eq!(counter[3].3, Some(7));
    assert_eq!(counter[0].3, Some((u64::MAX as f64).to_bits()), "too large for an integer of a trace");
    assert_eq!(of("extremes.f").0.len(), 2, "what is not a number is a gap");
    assert_eq!(string(&decode(bytes(&of("extremes.f").1.2, 8).unwrap()), 6), "%");

    // Rows 0 and 2 are on one track; row 3 begins before row 2 has ended, and is on another; row 1 never ended.
    let lanes: Vec<_> = tracks.iter().filter(|(_, t)| t.0 == "extremes").map(|(id, _)| &events[id]).collect();
    assert_eq!(lanes.len(), 2);
    let outer = |lane: &[Event]| {
        lane.iter().filter(|e| e.2.starts_with("extremes ")).map(|e| (e.0, e.2.clone())).collect::<Vec<_>>()
    };
    assert_eq!(outer(lanes[0]), [(3_000_001_500, "extremes 0".into()), (3_000_003_500, "extremes 2".into())]);
    assert_eq!(outer(lanes[1]), [(3_000_004_500, "extremes 3".into())]);
    for lane in lanes {
        let mut depth = 0;
        for event in lane {
            depth += if event.1 == 1 { 1 } else { -1 };
            assert!((0..=2).contains(&depth));
        }
        assert_eq!(depth, 0, "every slice ends");
    }

    let (markers, _) = of("markers");
    assert_eq!((markers[0].0, markers[0].1), (2_000_000_000, 3));
    let (run, _) = of("run");
    assert_eq!((run[0].0, run[0].2.as_str()), (1_000_000_000, "complete"));
    assert_eq!((run[1].0, run[2].0), (2_000_000_000, 4_000_000_000), "the window");
    // Facts are notes of the run's slice.
    let begun = packets.iter().filter_map(|p| bytes(p, 11).map(decode)).find(|e| string(e, 23) == "complete");
    let notes: Vec<_> = begun
        .unwrap()
        .iter()
        .filter(|(f, _)| *f == 4)
        .map(|(_, v)| match v {
            Wire::Bytes(b) => {
                let n = decode(b);
                (string(&n, 10), string(&n, 6))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(notes.contains(&("guest.clock.uncertainty_ns".into(), "40000".into())), "{notes:?}");
}

/// Three frames of the guest of which the client saw the first and the last, and what joins them.
fn joined(run: &Path) -> StudyFacts {
    let instant = |name: &str| Table::new("frames", "made up").column(name, I64, "ns", "Instant of it");
    for (stem, column, rows) in [
        (
            "guest.frames",
            "captured_ns",
            vec![
                [3_000_000_000u64, 3_001_000_000],
                [3_033_000_000, 3_034_000_000],
                [3_066_000_000, 3_067_000_000],
            ],
        ),
        (
            "client.frames",
            "presented_ns",
            vec![[3_010_000_000, 3_020_000_000], [3_076_000_000, 3_086_000_000]],
        ),
    ] {
        let mut writer = TableWriter::create(run, stem, &instant(column)).unwrap();
        writer.write(&rows.concat()).unwrap();
        writer.finish().unwrap();
        to_parquet(run, stem).unwrap();
    }
    let columns: Vec<(&str, Int64Array)> = vec![
        ("t_ns", vec![3_000_001_500, 3_033_001_500, 3_066_001_500].into()),
        ("guest_row", vec![0, 1, 2].into()),
        ("client_row", vec![Some(0), None, Some(1)].into()),
    ];
    let fields: Vec<_> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Int64, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = columns.into_iter().map(|(_, c)| Arc::new(c) as ArrayRef).collect();
    let file = fs::File::create(run.join("frames.v1.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    writer.close().unwrap();
    let span = Span {
        name: "latency_ns".into(),
        description: "capture to presentation".into(),
        from: (Panel::Guest, "t_ns".into()),
        to: (Panel::Client, "presented_ns".into()),
    };
    let join = Join {
        name: "frames".into(),
        parts: vec![(Panel::Guest, "frames".into()), (Panel::Client, "frames".into())],
        key: "size_bytes".into(),
        also: Vec::new(),
        spans: vec![span],
    };
    StudyFacts {
        format: 1,
        minor: 2,
        writer: String::new(),
        name: String::new(),
        description: String::new(),
        created: String::new(),
        seed: 0,
        warmup_s: 0.0,
        record_s: 1.0,
        repeats: 1,
        varied: Vec::new(),
        fixed: [].into(),
        points: Vec::new(),
        runs: Vec::new(),
        subject: SubjectSpec { joins: vec![join], ..SubjectSpec::default() },
    }
}

#[test]
fn joined_frames_are_tied_by_flows_and_their_latency_is_a_slice() {
    let dir = tempfile::tempdir().unwrap();
    let source = record(dir.path());
    let plan = joined(&source);
    let out = dir.path().join("out");
    let exported = run(&Request { plan: Some(plan), ..request(&source, &out, Format::Perfetto) });
    assert_eq!(exported.left_out, []);
    let trace = fs::read(out.join(format!("{ID}.perfetto-trace"))).unwrap();
    let mut tracks: BTreeMap<u64, (String, u64)> = BTreeMap::new();
    // Name of the track and its parent, name of the slice, time, flow.
    let mut begun: Vec<(String, String, u64, Option<u64>)> = Vec::new();
    let mut latency_ends = Vec::new();
    for (_, packet) in decode(&trace) {
        let Wire::Bytes(packet) = packet else { panic!("not a packet") };
        let packet = decode(packet);
        if let Some(track) = bytes(&packet, 60).map(decode) {
            let parent = number(&track, 5).unwrap_or(0);
            tracks.insert(number(&track, 1).unwrap(), (string(&track, 2), parent));
        }
        let Some(event) = bytes(&packet, 11).map(decode) else { continue };
        let (track, parent) = &tracks[&number(&event, 11).unwrap()];
        let place = format!("{}/{track}", tracks.get(parent).map_or("", |p| &p.0));
        let t = number(&packet, 8).unwrap();
        match number(&event, 9).unwrap() {
            1 => begun.push((place, string(&event, 23), t, number(&event, 47))),
            2 if place == "across panels/latency" => latency_ends.push(t),
            _ => {}
        }
    }
    let of = |place: &str| {
        let here = begun.iter().filter(|b| b.0 == place && b.3.is_some());
        here.map(|b| (b.1.as_str(), b.2, b.3.unwrap())).collect::<Vec<_>>()
    };
    let clock = read_run(&source.join("run.toml")).unwrap().panels["guest"].clock.clone().unwrap();
    let at = |t| clock.to_collector(t) as u64;
    let guest = [at(3_000_000_000), at(3_033_000_000), at(3_066_000_000)];
    assert_eq!(
        of("guest/frames"),
        [("frames 0", guest[0], 1), ("frames 1", guest[1], 2), ("frames 2", guest[2], 3)]
    );
    assert_eq!(of("client/frames"), [("frames 0", 3_010_000_000, 1), ("frames 1", 3_076_000_000, 3)]);
    assert_eq!(of("across panels/latency"), [("frame 1", guest[0], 1), ("frame 3", guest[2], 3)]);
    assert_eq!(latency_ends, [3_020_000_000, 3_086_000_000]);
}
