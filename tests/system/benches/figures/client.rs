//! Figure: from a frame's departure to its picture on the screen, and CPU per frame: our client and spicy in turn.
//!
//! Both clients show the same pre-encoded film in a window on the same kind of display, and the same observer reads the
//! bar code off the screen. The clock starts when the guest has written the frame's last byte: the way through the
//! host (see figure `host`) is the same for both and is left in.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use spice::stream_device::VideoCodec;
use system_tests::{Host, Running, Xvfb, program};
use units::{Clock, MonotonicClock, Nanos};

use crate::report::{Samples, median, quantile, spread};
use crate::screen::Screen;
use crate::stub::{Film, Stub, encode};
use crate::{Options, cpu};

const FPS: u32 = 30;
const CODECS: [(&str, VideoCodec); 3] =
    [("mjpeg", VideoCodec::Mjpeg), ("h264", VideoCodec::H264), ("vp8", VideoCodec::Vp8)];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Triptych,
    Spicy,
}

/// What one client did in one round.
struct Round {
    latency_ms: Vec<f64>,
    cpu_ms_per_frame: f64,
    server_cpu_ms_per_frame: f64,
    missed: usize,
}

/// Measures, prints the table, keeps the samples.
pub(crate) fn measure(options: &Options) -> anyhow::Result<()> {
    let mut samples = Samples::create("client", "codec,client,round,frame,latency_ms")?;
    println!(
        "\nclient: guest's write of a frame → picture on the screen, and CPU per frame; {FPS} fps, 640x360, ratio triptych / spicy over {} rounds of {} s",
        options.rounds, options.seconds
    );
    println!(
        "{:6} {:9} {:>8} {:>8} {:>12} {:>12} {:>7}",
        "codec", "client", "p50 ms", "p95 ms", "CPU ms/frame", "X ms/frame", "missed"
    );
    for (name, codec) in CODECS {
        let frames = (options.seconds * f64::from(FPS)) as usize;
        let film = Arc::new(encode(codec, FPS, frames)?);
        let mut rounds: BTreeMap<Client, Vec<Round>> = BTreeMap::new();
        for round in 0..options.rounds {
            // Who goes first alternates, so that a drift of the machine favours nobody.
            let order = if round % 2 == 0 {
                [Client::Triptych, Client::Spicy]
            } else {
                [Client::Spicy, Client::Triptych]
            };
            for client in order {
                let result = watch(client, &film, options)?;
                for (frame, latency) in result.latency_ms.iter().enumerate() {
                    samples.add(format_args!("{name},{client:?},{round},{frame},{latency:.4}"))?;
                }
                rounds.entry(client).or_default().push(result);
            }
        }
        for (client, rounds) in &rounds {
            let all: Vec<f64> = rounds.iter().flat_map(|r| r.latency_ms.iter().copied()).collect();
            let of = |f: fn(&Round) -> f64| median(&rounds.iter().map(f).collect::<Vec<_>>());
            println!(
                "{name:6} {:9} {:8.2} {:8.2} {:12.3} {:12.3} {:7}",
                format!("{client:?}").to_lowercase(),
                median(&all),
                quantile(&all, 0.95),
                of(|r| r.cpu_ms_per_frame),
                of(|r| r.server_cpu_ms_per_frame),
                rounds.iter().map(|r| r.missed).sum::<usize>()
            );
        }
        let ratio = |f: &dyn Fn(&Round) -> f64| {
            let pairs = rounds[&Client::Triptych].iter().zip(&rounds[&Client::Spicy]);
            spread(&pairs.map(|(ours, theirs)| f(ours) / f(theirs)).collect::<Vec<_>>())
        };
        println!(
            "{name:6} ratio latency p50 {}, CPU {}",
            ratio(&|r| median(&r.latency_ms)),
            ratio(&|r| r.cpu_ms_per_frame)
        );
    }
    println!("samples: {}", samples.path());
    Ok(())
}

fn watch(client: Client, film: &Arc<Film>, options: &Options) -> anyhow::Result<Round> {
    let display = Xvfb::start()?;
    let host = Host::start(&[])?;
    let stub = Stub::connect(host.stream_socket(), Arc::clone(film), FPS)?;
    let screen = Screen::watch(display.name())?;
    let viewer = start(client, &display, &host)?;
    stub.calibrate(Duration::from_secs(20))?;
    let deadline = |seconds: f64| Nanos(MonotonicClock.now().0 + (seconds * 1e9) as i64);
    let picture = screen.find_picture(deadline(20.0))?;

    let (cpu_before, server_before) = (cpu::tree_ns(viewer.id()), cpu::tree_ns(display.id()));
    let mut seen: BTreeMap<u16, Nanos> = BTreeMap::new();
    stub.play()?;
    screen.read_frames(picture, deadline(options.seconds), |number, at| {
        seen.entry(number).or_insert(at);
    })?;
    let (cpu_after, server_after) = (cpu::tree_ns(viewer.id()), cpu::tree_ns(display.id()));

    let sent = stub.sent();
    let latency_ms: Vec<f64> = sent
        .iter()
        .enumerate()
        .filter_map(|(n, sent)| seen.get(&(n as u16)).map(|at| (at.0 - sent.0) as f64 / 1e6))
        .collect();
    let per_frame = |ns: u64| ns as f64 / 1e6 / latency_ms.len().max(1) as f64;
    Ok(Round {
        cpu_ms_per_frame: per_frame(cpu_after - cpu_before),
        server_cpu_ms_per_frame: per_frame(server_after - server_before),
        missed: sent.len().saturating_sub(latency_ms.len() + 1),
        latency_ms,
    })
}

fn start(client: Client, display: &Xvfb, host: &Host) -> anyhow::Result<Running> {
    let port = host.spice_port().to_string();
    let mut command = match client {
        Client::Triptych => {
            let mut command = Command::new(program("triptych-client"));
            command.args(["--connect", &format!("127.0.0.1:{port}"), "--window"]);
            command
        }
        Client::Spicy => {
            let mut command = Command::new("spicy");
            command.args(["-h", "127.0.0.1", "-p", &port]);
            command
        }
    };
    command
        .env("DISPLAY", display.name())
        .env_remove("WAYLAND_DISPLAY")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running::spawn(command)
}
