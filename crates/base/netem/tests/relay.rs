//! The relay of byte streams, over loopback.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use netem::relay::Relay;
use netem::{Conditions, Direction, Level, Options};

const DEADLINE: Duration = Duration::from_secs(10);

fn joined(forward: Conditions, backward: Conditions) -> (Relay, TcpStream, TcpStream) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = Options { forward: forward.into(), backward: backward.into(), ..Options::default() };
    let relay = Relay::start(target.local_addr().unwrap(), options).unwrap();
    let client = TcpStream::connect(relay.address()).unwrap();
    let (server, _) = target.accept().unwrap();
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    (relay, client, server)
}

fn delay(delay_ms: f64) -> Conditions {
    Conditions { delay_ms, ..Conditions::default() }
}

#[test]
fn a_byte_comes_after_the_delay() {
    let (relay, mut client, mut server) = joined(delay(30.0), delay(20.0));
    let mut round_trip = || {
        let at = Instant::now();
        client.write_all(b"a").unwrap();
        server.read_exact(&mut [0]).unwrap();
        server.write_all(b"b").unwrap();
        client.read_exact(&mut [0]).unwrap();
        at.elapsed().as_secs_f64() * 1e3
    };
    let shortest = (0..5).map(|_| round_trip()).fold(f64::MAX, f64::min);
    assert!((50.0..53.0).contains(&shortest), "{shortest} ms");
    relay.set(Direction::Forward, delay(5.0)).unwrap();
    assert!((25.0..50.0).contains(&round_trip()));
}

#[test]
fn a_stream_comes_whole_and_at_the_rate_and_its_end_comes_last() {
    let (relay, mut client, mut server) = joined(Conditions::path(8_000_000, 5.0), delay(0.0));
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let (received, took) = std::thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let at = Instant::now();
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        (received, at.elapsed().as_secs_f64())
    });
    assert!(received == sent, "the stream was changed");
    assert!((0.97..1.15).contains(&took), "a megabyte at 8 Mbit/s took {took} s");
    let report = relay.report();
    assert_eq!(report.level, Level::ByteStream);
    assert_eq!(report.forward.counters.bytes_out, 1_000_000);
    assert!(report.forward.rate.unwrap().error.abs() < 0.03, "{report:?}");
    // The other direction is still open.
    server.write_all(b"done").unwrap();
    drop(server);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "done");
}

#[test]
fn its_report_says_what_it_is_not() {
    let (relay, ..) = joined(delay(0.0), delay(0.0));
    let report = serde_json::to_value(relay.report()).unwrap();
    assert_eq!(report["level"], "byte stream");
    assert_eq!(report["not_emulated"], serde_json::json!(["jitter", "loss", "reordering", "queue"]));
}

#[test]
fn dropping_the_relay_ends_its_connections() {
    let (relay, mut client, mut server) = joined(delay(60_000.0), delay(0.0));
    client.write_all(b"on the way for a minute").unwrap();
    let at = Instant::now();
    drop(relay);
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(server.read(&mut [0]).unwrap_or(0), 0);
    assert!(at.elapsed() < DEADLINE);
}
