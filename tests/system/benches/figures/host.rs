//! Figure: what the embedded host adds between the guest's last byte and the client's first.
//!
//! Guest and client are two threads of this program on one clock; between them is the real `triptych-host`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use spice::client::{DisplayEvent, Session};
use spice::stream_device::VideoCodec;
use system_tests::Host;
use units::{Clock, MonotonicClock, Nanos};

use crate::Options;
use crate::report::{Samples, median, quantile};
use crate::stub::{Stub, encode};

/// Measures, prints one line for each codec, keeps the samples.
pub(crate) fn measure(options: &Options) -> anyhow::Result<()> {
    let mut samples = Samples::create("host", "codec,round,frame,size_bytes,first_byte_ms,last_byte_ms")?;
    println!(
        "\nhost: guest's write of a frame → client's first byte of it; {} rounds of {} s at 60 fps, 640x360",
        options.rounds, options.seconds
    );
    for (name, codec) in [("mjpeg", VideoCodec::Mjpeg), ("h264", VideoCodec::H264)] {
        let film = Arc::new(encode(codec, 60, (options.seconds * 60.0) as usize)?);
        let (mut first, mut last, mut medians) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            let rows = one_round(&film, options)?;
            for (frame, (size, to_first, to_last)) in rows.iter().enumerate() {
                samples.add(format_args!("{name},{round},{frame},{size},{to_first:.4},{to_last:.4}"))?;
            }
            medians.push(median(&rows.iter().map(|r| r.1).collect::<Vec<_>>()));
            first.extend(rows.iter().map(|r| r.1));
            last.extend(rows.iter().map(|r| r.2));
        }
        println!(
            "{name:6} first byte p50 {:.3} ms (rounds {:.3} … {:.3}), p95 {:.3}, p99 {:.3}; last byte p50 {:.3}; {} frames",
            median(&first),
            quantile(&medians, 0.0),
            quantile(&medians, 1.0),
            quantile(&first, 0.95),
            quantile(&first, 0.99),
            median(&last),
            first.len()
        );
    }
    println!("samples: {}", samples.path());
    Ok(())
}

/// Rows of (size in bytes, ms to the client's first byte, ms to its last).
fn one_round(film: &Arc<crate::stub::Film>, options: &Options) -> anyhow::Result<Vec<(usize, f64, f64)>> {
    let host = Host::start(&[])?;
    let stub = Stub::connect(host.stream_socket(), Arc::clone(film), 60)?;
    let mut session = Session::connect(("127.0.0.1", host.spice_port()), None, Duration::from_secs(10))?;
    stub.calibrate(Duration::from_secs(20))?;
    let mut arrivals: Vec<(usize, Nanos, Nanos)> = Vec::new();
    let mut playing = false;
    let mut deadline = Nanos(MonotonicClock.now().0 + 20_000_000_000);
    while MonotonicClock.now() < deadline {
        let Some(event) = session.display().next_event(Duration::from_millis(50))? else { continue };
        if let DisplayEvent::StreamData(frame) = event {
            if !playing {
                (playing, deadline) = (true, Nanos(MonotonicClock.now().0 + (options.seconds * 1e9) as i64));
                stub.play()?;
            }
            arrivals.push((frame.data.len(), frame.first_byte_at, frame.received_at));
        }
    }
    // Calibration pictures came first; the numbered ones are the last as many as were sent and arrived.
    let sent = stub.sent();
    let sizes = film.sizes();
    let first: Vec<usize> = sizes.iter().take(5).copied().collect();
    let start = arrivals.windows(first.len()).position(|w| w.iter().map(|a| a.0).eq(first.iter().copied()));
    let start = start.context("the first numbered frames did not arrive")?;
    let pairs = sent.iter().zip(arrivals.iter().skip(start));
    Ok(pairs
        .map(|(sent, (size, first, last))| {
            (*size, (first.0 - sent.0) as f64 / 1e6, (last.0 - sent.0) as f64 / 1e6)
        })
        .collect())
}
