//! What the streaming subject takes and gives.

use bench::Conflict;
use recording::spec::{
    Better, Domain, Factor, Join, Level, Levels, Panel, Response, Span, Statistic, SubjectSpec,
};
use streaming::codec::Codec;
use streaming::encode::{KNOWN, default_element};

use super::network;

/// What the streaming subject takes and gives.
pub fn spec() -> SubjectSpec {
    SubjectSpec {
        name: "streaming".into(),
        description:
            "A SPICE video stream: guest encodes, host forwards through libspice-server, client decodes"
                .into(),
        factors: factors(),
        responses: responses(),
        joins: vec![join()],
    }
}

/// What can only fail: sizes that 4:2:0 colour does not have, and encoders that are unknown or make another codec.
pub fn conflicts(settings: &Levels) -> Vec<Conflict> {
    let odd = |name: &str| match settings.get(name) {
        Some(Level::Int(n)) if n % 2 != 0 => Some(Conflict {
            setting: name.into(),
            wrong: format!("{n} is odd"),
            expected: "an even number of pixels, as 4:2:0 colour has".into(),
            nearest: Some((n - 1).to_string()),
        }),
        _ => None,
    };
    let sizes = ["width", "height"].into_iter().filter_map(odd);
    sizes.chain(encoder_conflict(settings)).chain(network::conflicts(settings)).collect()
}

fn encoder_conflict(settings: &Levels) -> Option<Conflict> {
    let word = |name: &str| settings.get(name).map(ToString::to_string).unwrap_or_default();
    let (encoder, codec) = (word("encoder"), word("codec").parse::<Codec>().ok()?);
    let known = KNOWN.iter().find(|k| k.element == encoder);
    if encoder.is_empty() || known.is_some_and(|k| k.codec == codec) {
        return None;
    }
    let quoted = |name: &str| format!("\"{name}\"");
    let makers: Vec<_> = KNOWN.iter().filter(|k| k.codec == codec).map(|k| quoted(k.element)).collect();
    let (wrong, nearest) = match known {
        Some(known) => (format!("`{encoder}` makes {}, not {codec}", known.codec), default_element(codec)),
        None => {
            let near = bench::nearest_word(&encoder, KNOWN.iter().map(|k| k.element));
            (format!("`{encoder}` is unknown"), near.unwrap_or(default_element(codec)))
        }
    };
    Some(Conflict {
        setting: "encoder".into(),
        wrong,
        expected: format!("{} for {codec}, or \"\": the best installed one", makers.join(" or ")),
        nearest: Some(quoted(nearest)),
    })
}

fn factors() -> Vec<Factor> {
    let factor = |name: &str, unit: &str, description: &str, domain: Domain, default: Level| Factor {
        name: name.into(),
        unit: unit.into(),
        description: description.into(),
        domain,
        default,
    };
    let words = |words: &[&str]| Domain::Enum { values: words.iter().map(|w| (*w).to_owned()).collect() };
    let text = |word: &str| Level::Text(word.into());
    let codecs: Vec<_> = Codec::ALL.iter().map(|c| c.name()).collect();
    let mut factors = vec![
        factor("codec", "", "Video codec of the stream", words(&codecs), text(Codec::H264.name())),
        factor(
            "encoder",
            "",
            "GStreamer element that encodes; empty: the best installed one for the codec",
            Domain::Text,
            text(""),
        ),
        factor("fps", "fps", "Frames asked for per second", Domain::Int { min: 1, max: 240 }, Level::Int(30)),
        factor(
            "bitrate",
            "Mbit/s",
            "Bit rate asked of the encoder",
            Domain::Float { min: 0.05, max: 500.0 },
            Level::Float(4.0),
        ),
        factor(
            "gop",
            "frames",
            "Distance of key frames",
            Domain::Int { min: 1, max: 10_000 },
            Level::Int(60),
        ),
        factor("width", "px", "Width of the picture", Domain::Int { min: 64, max: 7_680 }, Level::Int(640)),
        factor("height", "px", "Height of the picture", Domain::Int { min: 64, max: 4_320 }, Level::Int(360)),
        factor(
            "source",
            "",
            "Where frames come from: a window on an X display of its own that is captured, or painted directly",
            words(&["x11", "scene"]),
            text("x11"),
        ),
        factor(
            "scene",
            "",
            "What is on the picture",
            words(&["still", "scroll", "video", "noise"]),
            text("video"),
        ),
        factor(
            "port",
            "",
            "TCP port of the SPICE server on loopback; 0: any free one",
            Domain::Int { min: 0, max: 65_535 },
            Level::Int(0),
        ),
    ];
    factors.extend(network::factors());
    factors
}

fn responses() -> Vec<Response> {
    use Better::{Higher, Lower, Neutral};
    use Statistic::{Count, CountPerSecond, Max, Mean, P50, P95, Rate, Sum};
    const MS: f64 = 1e-6;
    const KILO: f64 = 1e-3;
    let response = |(name, label, table, column, statistic, scale, unit, better): Row| Response {
        name: name.into(),
        label: label.into(),
        table: table.into(),
        column: column.into(),
        statistic,
        scale,
        unit: unit.into(),
        better,
    };
    #[rustfmt::skip]
    let rows: [Row; 18] = [
        ("delivered_fps", "delivered fps", "client.frames", "t_ns", CountPerSecond, 1.0, "Hz", Higher),
        ("guest_cpu", "guest CPU", "guest.process", "cpu_percent", Mean, 1.0, "%", Lower),
        ("host_kbps", "host", "host.traffic", "to_client_bytes", Rate, KILO, "kB/s", Lower),
        ("latency_p50", "latency p50", "frames", "latency_ns", P50, MS, "ms", Lower),
        ("latency_p95", "latency p95", "frames", "latency_ns", P95, MS, "ms", Lower),
        ("dropped", "dropped", "client.frames", "dropped", Count, 1.0, "frames", Lower),
        ("capture_p50", "capture p50", "guest.frames", "capture_ns", P50, MS, "ms", Lower),
        ("encode_p50", "encode p50", "guest.frames", "encode_ns", P50, MS, "ms", Lower),
        ("encode_p95", "encode p95", "guest.frames", "encode_ns", P95, MS, "ms", Lower),
        ("skipped", "skipped", "guest.frames", "skipped", Sum, 1.0, "frames", Lower),
        ("frame_size", "frame size", "guest.frames", "size_bytes", Mean, KILO, "kB", Neutral),
        ("host_added_p50", "host adds p50", "frames", "host_added_ns", P50, MS, "ms", Lower),
        ("network_p50", "host to client p50", "frames", "to_client_ns", P50, MS, "ms", Lower),
        ("host_cpu", "host CPU", "host.process", "cpu_percent", Mean, 1.0, "%", Lower),
        ("decode_p50", "decode p50", "client.frames", "decode_ns", P50, MS, "ms", Lower),
        ("client_cpu", "client CPU", "client.process", "cpu_percent", Mean, 1.0, "%", Lower),
        ("queue_max", "longest queue", "client.frames", "queue_before", Max, 1.0, "frames", Lower),
        ("machine_cpu", "machine CPU", "host.machine", "cpu_percent", Mean, 1.0, "%", Neutral),
    ];
    rows.into_iter().map(response).collect()
}

type Row = (&'static str, &'static str, &'static str, &'static str, Statistic, f64, &'static str, Better);

/// Frames carry no number through SPICE; their sizes find each other. The host's `mm_time_ms` is when it believes that
/// libspice-server stamped the frame, which is off by a millisecond at times (by several when the machine stalls), so
/// that it cannot be asked to agree with the client's.
fn join() -> Join {
    let span = |name: &str, description: &str, from: (Panel, &str), to: (Panel, &str)| Span {
        name: name.into(),
        description: description.into(),
        from: (from.0, from.1.into()),
        to: (to.0, to.1.into()),
    };
    use Panel::{Client, Guest, Host};
    Join {
        name: "frames".into(),
        parts: Panel::ALL.map(|p| (p, "frames".into())).to_vec(),
        key: "size_bytes".into(),
        also: Vec::new(),
        spans: vec![
            span("latency_ns", "Start of capture to presentation", (Guest, "t_ns"), (Client, "presented_ns")),
            span(
                "guest_ns",
                "Start of capture to the hand-over to the stream port",
                (Guest, "t_ns"),
                (Guest, "send_start_ns"),
            ),
            span(
                "to_host_ns",
                "Hand-over to the stream port to the last byte at the host",
                (Guest, "send_start_ns"),
                (Host, "received_ns"),
            ),
            span(
                "host_added_ns",
                "Last byte at the host to the last byte in the client's socket",
                (Host, "received_ns"),
                (Host, "socket_ns"),
            ),
            span(
                "to_client_ns",
                "Frame in libspice-server's hands to last byte at the client",
                (Host, "pushed_ns"),
                (Client, "received_ns"),
            ),
            span(
                "client_ns",
                "Last byte at the client to presentation",
                (Client, "received_ns"),
                (Client, "presented_ns"),
            ),
        ],
    }
}
