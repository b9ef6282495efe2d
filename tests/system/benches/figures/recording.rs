//! Figure: what recording costs: frame rate and CPU of guest and client, with a collector and without, in turn.

use std::process::{Command, Stdio};
use std::time::Duration;

use ::recording::Address;
use ::recording::collector::{Collector, CollectorOptions};
use system_tests::{Host, Running, program, wait_for};

use crate::report::{Samples, certainty, median, spread};
use crate::{Options, cpu};

const FPS: u32 = 30;

/// What one pipeline did in one round.
#[derive(Clone, Copy)]
struct Round {
    fps: f64,
    guest_cpu_ms_per_frame: f64,
    client_cpu_ms_per_frame: f64,
}

/// Measures, prints the ratios, keeps the samples.
pub(crate) fn measure(options: &Options) -> anyhow::Result<()> {
    let mut samples =
        Samples::create("recording", "round,recorded,fps,guest_cpu_ms_per_frame,client_cpu_ms_per_frame")?;
    println!(
        "\nrecording: with a collector / without, h264 at {FPS} fps, 640x360, {} rounds of {} s",
        options.rounds, options.seconds
    );
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for recorded in order {
            let r = stream(recorded, options)?;
            samples.add(format_args!(
                "{round},{recorded},{:.3},{:.4},{:.4}",
                r.fps, r.guest_cpu_ms_per_frame, r.client_cpu_ms_per_frame
            ))?;
            if recorded { with.push(r) } else { without.push(r) }
        }
    }
    for (name, of) in [
        ("frame rate", (|r: &Round| r.fps) as fn(&Round) -> f64),
        ("guest CPU per frame", |r| r.guest_cpu_ms_per_frame),
        ("client CPU per frame", |r| r.client_cpu_ms_per_frame),
    ] {
        let median_of = |rounds: &[Round]| median(&rounds.iter().map(of).collect::<Vec<_>>());
        let ratios: Vec<f64> = with.iter().zip(&without).map(|(a, b)| of(a) / of(b)).collect();
        println!(
            "{name:22} {:8.3} with, {:8.3} without, ratio {}, its median {}",
            median_of(&with),
            median_of(&without),
            spread(&ratios),
            certainty(&ratios)
        );
    }
    println!("samples: {}", samples.path());
    Ok(())
}

fn stream(recorded: bool, options: &Options) -> anyhow::Result<Round> {
    let folder = tempfile::tempdir()?;
    let address = Address::Unix(folder.path().join("collector"));
    let start = || Collector::start(CollectorOptions::new(address, folder.path().to_owned()));
    let collector = recorded.then(start).transpose()?;
    let agent = |panel: &str| -> Vec<String> {
        collector.as_ref().map_or_else(Vec::new, |c| {
            vec!["--collector".into(), c.address().to_string(), "--panel".into(), panel.into()]
        })
    };
    let host_arguments = agent("host");
    let host = Host::start(&host_arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut guest = Command::new(program("triptych-guest"));
    guest.arg("--port").arg(format!("unix:{}", host.stream_socket().display()));
    guest.args(["--source", "scene:video", "--size", "640x360", "--codec", "h264", "--bitrate-kbps", "2000"]);
    guest.args(["--fps", &FPS.to_string()]).args(agent("guest"));
    let guest = Running::spawn(quiet(guest))?;
    let mut client = Command::new(program("triptych-client"));
    client
        .args(["--connect", &format!("127.0.0.1:{}", host.spice_port()), "--headless", "--json"])
        .args(agent("client"));
    let client = Running::spawn(quiet(client))?;

    // What passes the host tells that the stream flows, and how fast: the same measure with and without a record.
    wait_for(Duration::from_secs(20), "the stream to flow", || {
        cpu::tree_ns(client.id()) > 0 && host.frames_seen() > FPS as u64
    })?;
    let before =
        (host.frames_seen(), cpu::tree_ns(guest.id()), cpu::tree_ns(client.id()), std::time::Instant::now());
    std::thread::sleep(Duration::from_secs_f64(options.seconds));
    let after =
        (host.frames_seen(), cpu::tree_ns(guest.id()), cpu::tree_ns(client.id()), std::time::Instant::now());
    drop((client, guest, host));
    drop(collector);
    let frames = (after.0 - before.0) as f64;
    let per_frame = |a: u64, b: u64| (a - b) as f64 / 1e6 / frames;
    Ok(Round {
        fps: frames / (after.3 - before.3).as_secs_f64(),
        guest_cpu_ms_per_frame: per_frame(after.1, before.1),
        client_cpu_ms_per_frame: per_frame(after.2, before.2),
    })
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
