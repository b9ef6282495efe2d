//! Studies made up with a known truth, for tests and demonstrations: nothing in them was measured, and their facts say
//! so (`writer`, `name`, `host`).
//!
//! Each frame takes the stages that [`Stages`] gives for its point, with a jitter on encoding that is symmetric around
//! 0; the clocks of guest and client are off by amounts that the facts state exactly. Numbers are made by a hash, so the
//! same recipe gives the same files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use probe::ColumnType::{Bool, F64, I64, U64};
use probe::Table;
use recording::facts::{
    ClockFacts, FORMAT, FORMAT_MINOR, HostFacts, Marker, PanelFacts, PlannedPoint, PlannedRun, RunFacts,
    RunStatus, StudyFacts, write_plan, write_run,
};
use recording::files::{FileError, TableWriter, to_parquet};
use recording::spec::{
    Better, Domain, Factor, Join, Level, Levels, Panel, Response, Span, Statistic, SubjectSpec,
};
use thiserror::Error;

use crate::StoreError;

const WRITER: &str = "synthetic (made up, nothing was measured)";
const SECOND: i64 = 1_000_000_000;
/// Start of the first run on the collector's clock.
const ORIGIN: i64 = 1_000 * SECOND;
/// Every run cuts this from its start.
const WARMUP_S: f64 = 0.5;
/// Position of the run that is disturbed: in the second half of its window other programs use [`OTHERS`] of the host.
pub const DISTURBED: usize = 2;
/// Share of the host's CPU time that other programs use in the disturbed part.
pub const OTHERS: f64 = 0.6;
/// Cores of the host.
const CORES: f64 = 2.0;

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Runs of each of the eight points.
    pub repeats: u32,
    /// Recorded seconds of a run.
    pub seconds: f64,
    /// How many of the last runs failed.
    pub failed: usize,
    /// Whether the very last run is still under way.
    pub running: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self { repeats: 3, seconds: 4.0, failed: 1, running: false }
    }
}

/// Durations of a frame at a point, in nanoseconds: the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    /// Start of capture to its end.
    pub capture: i64,
    /// To the encoded unit, without jitter.
    pub encode: i64,
    /// First to last byte into the port.
    pub send: i64,
    /// Last byte sent to last byte at the host.
    pub to_host: i64,
    /// There to the first byte read by the server.
    pub push: i64,
    /// From there to the last byte at the client.
    pub to_client: i64,
    /// Wait for the decoder.
    pub queue: i64,
    /// Decoding.
    pub decode: i64,
    /// Decoded to presented.
    pub present: i64,
}

impl Stages {
    /// The truth at a point.
    pub fn at(levels: &Levels) -> Self {
        let number = |name: &str| levels.get(name).and_then(Level::as_f64).unwrap_or(0.0);
        let vp8 = levels.get("codec") == Some(&Level::Text("vp8".into()));
        let bitrate = number("bitrate");
        let us = |x: f64| (x * 1e3) as i64;
        Self {
            capture: us(900.0),
            encode: us(if vp8 { 4_600.0 + 700.0 * bitrate } else { 2_800.0 + 350.0 * bitrate }),
            send: us(60.0 + 20.0 * bitrate),
            to_host: us(90.0),
            push: us(40.0),
            to_client: us(180.0 + 40.0 * bitrate),
            queue: us(70.0),
            decode: us(if vp8 { 1_300.0 } else { 900.0 } + 80.0 * bitrate),
            present: us(400.0),
        }
    }

    /// Start of capture to presentation.
    pub fn latency(&self) -> i64 {
        self.capture
            + self.encode
            + self.send
            + self.to_host
            + self.push
            + self.to_client
            + self.queue
            + self.decode
            + self.present
    }
}

/// The guest's CPU at a point in percent of a core, the mean over repeats: the truth.
pub fn guest_cpu(levels: &Levels) -> f64 {
    let fps = levels.get("fps").and_then(Level::as_f64).unwrap_or(0.0);
    2.0 + fps * Stages::at(levels).encode as f64 * 1e-7
}

/// A synthetic study could not be written.
#[derive(Debug, Error)]
pub enum SyntheticError {
    /// Facts or folders.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table.
    #[error(transparent)]
    Table(#[from] FileError),
}

impl From<recording::facts::FactsError> for SyntheticError {
    fn from(error: recording::facts::FactsError) -> Self {
        Self::Store(error.into())
    }
}

/// Writes a study into a folder that may exist.
///
/// # Errors
/// The disk is full or gone, or there are runs already.
pub fn write(dir: &Path, recipe: Recipe) -> Result<StudyFacts, SyntheticError> {
    let plan = plan(recipe);
    make(dir)?;
    write_plan(&dir.join("plan.toml"), &plan)?;
    for (position, planned) in plan.runs.iter().enumerate() {
        let left = plan.runs.len() - position;
        let status = match left {
            1 if recipe.running => RunStatus::Running,
            left if left <= recipe.failed + usize::from(recipe.running) => RunStatus::Failed,
            _ => RunStatus::Complete,
        };
        write_one(dir, &plan, planned, position, status)?;
    }
    Ok(plan)
}

fn make(dir: &Path) -> Result<(), SyntheticError> {
    fs::create_dir_all(dir).map_err(|e| StoreError::io("create", dir)(e).into())
}

/// SplitMix64: as good a hash of a counter as is needed here.
fn hash(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// -1 … 1, and symmetric: frames 2n and 2n + 1 have opposite values.
fn jitter(seed: u64, frame: u64) -> f64 {
    let x = (hash(seed ^ (frame / 2)) >> 11) as f64 / (1u64 << 53) as f64;
    if frame.is_multiple_of(2) { x } else { -x }
}

fn plan(recipe: Recipe) -> StudyFacts {
    let mut points = Vec::new();
    for codec in ["h264", "vp8"] {
        for fps in [15, 30] {
            for bitrate in [1.0, 4.0] {
                let levels = [
                    ("codec".to_owned(), Level::Text(codec.into())),
                    ("fps".to_owned(), Level::Int(fps)),
                    ("bitrate".to_owned(), Level::Float(bitrate)),
                ];
                points.push(PlannedPoint { index: points.len() as u32, levels: levels.into() });
            }
        }
    }
    let mut runs: Vec<_> =
        (0..recipe.repeats).flat_map(|k| points.iter().map(move |p| (p.index, k))).collect();
    runs.sort_by_key(|(p, k)| (*k, hash(u64::from(k * 1_000 + p))));
    let runs = runs.iter().enumerate().map(|(i, (p, k))| PlannedRun {
        id: format!("r{:04}-p{p:02}-k{k}", i + 1),
        point: *p,
        repeat: *k,
    });
    StudyFacts {
        format: FORMAT,
        minor: FORMAT_MINOR,
        writer: WRITER.into(),
        name: "synthetic".into(),
        description: "Made-up numbers with a known truth: nothing here was measured".into(),
        created: "2026-01-01T00:00:00Z".into(),
        seed: 42,
        warmup_s: WARMUP_S,
        record_s: recipe.seconds,
        repeats: recipe.repeats,
        varied: ["codec", "fps", "bitrate"].map(String::from).to_vec(),
        fixed: [("scene".to_owned(), Level::Text("video".into()))].into(),
        runs: runs.collect(),
        points,
        subject: subject(),
    }
}

fn subject() -> SubjectSpec {
    use Better::{Higher, Lower, Neutral};
    use Panel::{Client, Guest, Host};
    use Statistic::{Count, CountPerSecond, Mean, P50, P95};
    let factor = |name: &str, unit: &str, description: &str, domain, default| Factor {
        name: name.into(),
        unit: unit.into(),
        description: description.into(),
        domain,
        default,
    };
    let words = Domain::Enum { values: ["h264", "vp8"].map(String::from).to_vec() };
    let response =
        |name: &str, label: &str, source: (&str, &str), statistic, scale, unit: &str, better| Response {
            name: name.into(),
            label: label.into(),
            table: source.0.into(),
            column: source.1.into(),
            statistic,
            scale,
            unit: unit.into(),
            better,
        };
    let span = |name: &str, description: &str, from: (Panel, &str), to: (Panel, &str)| Span {
        name: name.into(),
        description: description.into(),
        from: (from.0, from.1.into()),
        to: (to.0, to.1.into()),
    };
    SubjectSpec {
        name: "synthetic".into(),
        description: "Made-up frames".into(),
        factors: vec![
            factor("codec", "", "Video codec", words, Level::Text("h264".into())),
            factor("fps", "fps", "Frames per second", Domain::Int { min: 1, max: 240 }, Level::Int(30)),
            factor(
                "bitrate",
                "Mbit/s",
                "Bit rate",
                Domain::Float { min: 0.1, max: 100.0 },
                Level::Float(4.0),
            ),
        ],
        responses: vec![
            response(
                "delivered_fps",
                "delivered fps",
                ("client.frames", "t_ns"),
                CountPerSecond,
                1.0,
                "Hz",
                Higher,
            ),
            response("guest_cpu", "guest CPU", ("guest.process", "cpu_percent"), Mean, 1.0, "%", Lower),
            response("latency_p50", "latency p50", ("frames", "latency_ns"), P50, 1e-6, "ms", Lower),
            response("latency_p95", "latency p95", ("frames", "latency_ns"), P95, 1e-6, "ms", Lower),
            response("dropped", "dropped", ("client.frames", "dropped"), Count, 1.0, "frames", Lower),
            response("frame_size", "frame size", ("guest.frames", "size_bytes"), Mean, 1e-3, "kB", Neutral),
        ],
        joins: vec![Join {
            name: "frames".into(),
            parts: Panel::ALL.map(|p| (p, "frames".into())).to_vec(),
            key: "size_bytes".into(),
            also: vec!["mm_time_ms".into()],
            spans: vec![
                span(
                    "latency_ns",
                    "Start of capture to presentation",
                    (Guest, "t_ns"),
                    (Client, "presented_ns"),
                ),
                span(
                    "host_added_ns",
                    "Last byte at the host to the last byte in the client's socket",
                    (Host, "received_ns"),
                    (Host, "socket_ns"),
                ),
                span(
                    "to_client_ns",
                    "Frame in the server's hands to last byte at the client",
                    (Host, "pushed_ns"),
                    (Client, "received_ns"),
                ),
            ],
        }],
    }
}

/// The true clock of a panel; the host's is the collector's.
fn clock(panel: Panel) -> ClockFacts {
    let (offset_ns, drift_ppm, uncertainty_ns) = match panel {
        Panel::Guest => (123 * SECOND + 456, 20.0, 24_000),
        Panel::Host => (0, 0.0, 4_000),
        Panel::Client => (-77 * SECOND - 89, -12.0, 31_000),
    };
    ClockFacts {
        offset_ns,
        drift_ppm,
        reference_ns: ORIGIN - offset_ns,
        uncertainty_ns,
        exchanges: 12,
        ..ClockFacts::default()
    }
}

/// The inverse of [`ClockFacts::to_collector`]; 0 ("never") stays 0.
fn on_panel(panel: Panel, collector: i64) -> i64 {
    if collector == 0 {
        return 0;
    }
    let clock = clock(panel);
    let since = (collector - clock.offset_ns - clock.reference_ns) as f64 / (1.0 + clock.drift_ppm * 1e-6);
    clock.reference_ns + since.round() as i64
}

fn write_one(
    study: &Path,
    plan: &StudyFacts,
    planned: &PlannedRun,
    position: usize,
    status: RunStatus,
) -> Result<(), SyntheticError> {
    let dir = study.join("runs").join(&planned.id);
    make(&dir)?;
    let levels = &plan.points[planned.point as usize].levels;
    let start = ORIGIN + position as i64 * 10 * SECOND;
    let window =
        [start + ((WARMUP_S + 0.2) * 1e9) as i64, start + ((WARMUP_S + 0.2 + plan.record_s) * 1e9) as i64];
    let end = match status {
        RunStatus::Complete => window[1],
        _ => window[0] + (window[1] - window[0]) / 2,
    };
    let span = start + SECOND / 10..end;
    for (stem, table, rows) in frame_tables(span.clone(), levels, position as u64) {
        write_table(&dir, stem, &table, &rows, status)?;
    }
    for panel in Panel::ALL {
        let rows = process_rows(panel, span.clone(), levels, planned.repeat);
        write_table(&dir, &format!("{panel}.process"), &process_table(), &rows, status)?;
    }
    let from = if position == DISTURBED { window[0] + (window[1] - window[0]) / 2 } else { i64::MAX };
    write_table(&dir, "host.machine", &machine_table(), &machine_rows(span, from), status)?;
    write_run(&dir.join("run.toml"), &facts(plan, planned, position, status, start, window))?;
    Ok(())
}

fn write_table(
    dir: &Path,
    stem: &str,
    table: &Table,
    rows: &[u64],
    status: RunStatus,
) -> Result<(), SyntheticError> {
    let mut writer = TableWriter::create(dir, stem, table)?;
    writer.write(rows)?;
    writer.finish()?;
    if status != RunStatus::Running {
        to_parquet(dir, stem)?;
    }
    Ok(())
}

fn facts(
    plan: &StudyFacts,
    planned: &PlannedRun,
    position: usize,
    status: RunStatus,
    start: i64,
    window: [i64; 2],
) -> RunFacts {
    let levels = &plan.points[planned.point as usize].levels;
    let time = |seconds: usize| format!("2026-01-01T00:{:02}:{:02}Z", seconds / 60 % 60, seconds % 60);
    let marker =
        |t_ns, panel, kind: &str, text: &str| Marker { t_ns, panel, kind: kind.into(), text: text.into() };
    let mut markers = vec![
        marker(window[0], None, "window_start", "recording begins"),
        marker(window[0] + SECOND, Some(Panel::Guest), "setting", "bitrate confirmed"),
    ];
    let mut asked = plan.fixed.clone();
    asked.extend(levels.clone());
    match status {
        RunStatus::Failed => {
            let t = window[0] + (window[1] - window[0]) / 2;
            markers.push(marker(t, Some(Panel::Client), "gone", "synthetic-client was killed (signal 9)"));
        }
        RunStatus::Complete => markers.push(marker(window[1], None, "window_end", "recording ends")),
        RunStatus::Running | RunStatus::Interrupted => {}
    }
    let panel = |panel: Panel| PanelFacts {
        program: format!("synthetic-{panel}"),
        version: "0".into(),
        pid: 1,
        in_force: asked.clone(),
        versions: [("synthetic".to_owned(), "1".to_owned())].into(),
        facts: BTreeMap::new(),
        lost: [("frames".to_owned(), 0)].into(),
        clock: Some(clock(panel)),
    };
    RunFacts {
        format: FORMAT,
        minor: FORMAT_MINOR,
        writer: WRITER.into(),
        id: planned.id.clone(),
        point: planned.point,
        repeat: planned.repeat,
        status,
        reason: if status == RunStatus::Failed {
            "synthetic-client was killed (signal 9)".into()
        } else {
            String::new()
        },
        started: time(position * 10),
        ended: if status == RunStatus::Running { String::new() } else { time(position * 10 + 6) },
        started_ns: start,
        window_ns: Some(window),
        asked: asked.clone(),
        host: HostFacts {
            kernel: "synthetic".into(),
            os: "synthetic".into(),
            cpu: "none: made up".into(),
            cpus: 2,
            memory_bytes: 4 << 30,
            load: [0.5, 0.4, 0.3],
        },
        panels: Panel::ALL.map(|p| (p.name().to_owned(), panel(p))).into(),
        markers,
        quality: None,
        import: None,
    }
}

type Rows = (&'static str, Table, Vec<u64>);

/// The frames of a run as the three panels saw them. Frame 5 is dropped at the client; frame 9 never reaches it.
fn frame_tables(span: std::ops::Range<i64>, levels: &Levels, seed: u64) -> [Rows; 3] {
    use Panel::{Client, Guest, Host};
    let fps = levels.get("fps").and_then(Level::as_f64).unwrap_or(30.0);
    let bytes = levels.get("bitrate").and_then(Level::as_f64).unwrap_or(1.0) * 125_000.0 / fps;
    let truth = Stages::at(levels);
    let (mut guest, mut host, mut client) = (Vec::new(), Vec::new(), Vec::new());
    let (mut host_seq, mut client_seq) = (0u64, 0u64);
    for frame in 0u64.. {
        let start = span.start + (frame as f64 * 1e9 / fps) as i64;
        if start >= span.end {
            break;
        }
        let jitter = jitter(seed, frame);
        let keyframe = frame.is_multiple_of(60);
        let size = (bytes * (0.9 + 0.3 * jitter) * if keyframe { 4.0 } else { 1.0 }) as u64 + frame % 7;
        let encode = (truth.encode as f64 * (1.0 + 0.35 * jitter)) as i64;
        let captured = start + truth.capture;
        let send_start = captured + encode;
        let sent = send_start + truth.send;
        let at_host = sent + truth.to_host;
        let pushed = at_host + truth.push;
        let at_client = pushed + truth.to_client;
        let decode_start = at_client + truth.queue;
        let dropped = frame == 5;
        let presented = if dropped { 0 } else { decode_start + truth.decode + truth.present };
        let i = |panel, t: i64| on_panel(panel, t) as u64;
        guest.extend([
            i(Guest, start),
            frame,
            i(Guest, captured),
            truth.capture as u64,
            encode as u64,
            i(Guest, send_start),
            i(Guest, sent),
            truth.send as u64,
            size,
            u64::from(keyframe),
            fps.to_bits(),
            fps.to_bits(),
            0,
        ]);
        let mm_time = (pushed / 1_000_000) as u64;
        let socket = at_client - truth.to_client / 3;
        host.extend([
            i(Host, at_host),
            host_seq,
            i(Host, at_host - 20_000),
            i(Host, at_host),
            i(Host, pushed),
            i(Host, socket),
            mm_time,
            size,
        ]);
        host_seq += 1;
        if frame == 9 {
            continue;
        }
        client.extend([
            i(Client, at_client),
            client_seq,
            i(Client, at_client),
            mm_time,
            size,
            u64::from(keyframe),
            i(Client, decode_start),
            truth.decode as u64,
            0,
            u64::from(!dropped),
            i(Client, presented),
            u64::from(dropped),
        ]);
        client_seq += 1;
    }
    let [g, h, c] = tables();
    [("guest.frames", g, guest), ("host.frames", h, host), ("client.frames", c, client)]
}

fn tables() -> [Table; 3] {
    let guest = Table::new("frames", "Made-up frames")
        .column("seq", U64, "1", "Number of the frame")
        .column("captured_ns", I64, "ns", "Instant at which capture finished")
        .column("capture_ns", I64, "ns", "Capture")
        .column("encode_ns", I64, "ns", "Encoding")
        .column("send_start_ns", I64, "ns", "Instant of the first byte written")
        .column("sent_ns", I64, "ns", "Instant of the last byte written")
        .column("send_ns", I64, "ns", "Sending")
        .column("size_bytes", U64, "B", "Size of the access unit")
        .column("keyframe", Bool, "", "Whether decoding can start here")
        .column("requested_fps", F64, "Hz", "Frame rate asked for")
        .column("actual_fps", F64, "Hz", "Frame rate of the last second")
        .column("skipped", U64, "1", "Ticks skipped since the frame before");
    let host = Table::new("frames", "Made-up frames")
        .column("seq", U64, "1", "Number of the frame")
        .column("first_byte_ns", I64, "ns", "Instant of the first byte")
        .column("received_ns", I64, "ns", "Instant of the last byte")
        .column("pushed_ns", I64, "ns", "Instant at which the server read it")
        .column("socket_ns", I64, "ns", "Instant of the last write to the client; 0: unknown")
        .column("mm_time_ms", U64, "ms", "Multimedia time")
        .column("size_bytes", U64, "B", "Size of the access unit");
    let client = Table::new("frames", "Made-up frames")
        .column("seq", U64, "1", "Number of the frame")
        .column("received_ns", I64, "ns", "Instant of the last byte")
        .column("mm_time_ms", U64, "ms", "Multimedia time")
        .column("size_bytes", U64, "B", "Size of the access unit")
        .column("keyframe", Bool, "", "Whether decoding can start here")
        .column("decode_start_ns", I64, "ns", "Instant at which decoding began")
        .column("decode_ns", I64, "ns", "Decoding")
        .column("queue_before", U64, "1", "Frames waiting when it arrived")
        .column("queue_after", U64, "1", "Frames waiting after it arrived")
        .column("presented_ns", I64, "ns", "Instant of presentation; 0: never")
        .column("dropped", Bool, "", "Whether it was dropped");
    [guest, host, client]
}

fn process_table() -> Table {
    Table::new("process", "Made-up process figures")
        .column("cpu_percent", F64, "%", "CPU, 100: one core")
        .column("rss_bytes", U64, "B", "Resident memory")
        .column("cpu_user_ns", U64, "ns", "CPU time in user mode since the start")
        .column("cpu_system_ns", U64, "ns", "CPU time in the kernel since the start")
}

fn machine_table() -> Table {
    Table::new("machine", "Made-up figures of a machine")
        .column("cpu_user_ns", U64, "ns", "CPU time in user mode since its start, all cores")
        .column("cpu_system_ns", U64, "ns", "CPU time in the kernel since its start, all cores")
        .column("cpu_iowait_ns", U64, "ns", "Idle time with disk requests under way, all cores")
        .column("cpu_steal_ns", U64, "ns", "Time that the hypervisor gave to others, all cores")
        .column("cpu_idle_ns", U64, "ns", "Idle time, all cores")
}

/// Four samples a second; a twentieth of the machine is busy, and [`OTHERS`] more from `disturbed_from` on.
fn machine_rows(span: std::ops::Range<i64>, disturbed_from: i64) -> Vec<u64> {
    let start = span.start;
    let rows = span.step_by((SECOND / 4) as usize).flat_map(|t| {
        let all = (t - start) as f64 * CORES;
        let busy = 0.05 * all + OTHERS * t.saturating_sub(disturbed_from).max(0) as f64 * CORES;
        [on_panel(Panel::Host, t) as u64, (0.8 * busy) as u64, (0.2 * busy) as u64, 0, 0, (all - busy) as u64]
    });
    rows.collect()
}

/// Four samples a second; over repeats 0, 1, 2 the mean is the truth.
fn process_rows(panel: Panel, span: std::ops::Range<i64>, levels: &Levels, repeat: u32) -> Vec<u64> {
    let cpu = match panel {
        Panel::Guest => guest_cpu(levels),
        Panel::Host => 1.5,
        Panel::Client => 4.0,
    } + f64::from(repeat)
        - 1.0;
    let instants = span.step_by((SECOND / 4) as usize).enumerate();
    instants
        .flat_map(|(i, t)| {
            let wave = if i.is_multiple_of(2) { 0.4 } else { -0.4 };
            let used = i as f64 * SECOND as f64 / 4.0 * cpu / 100.0;
            [
                on_panel(panel, t) as u64,
                (cpu + wave).to_bits(),
                (48 << 20) + (i as u64) * 4096,
                (0.9 * used) as u64,
                (0.1 * used) as u64,
            ]
        })
        .collect()
}
