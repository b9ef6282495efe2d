//! The real `triptych-host` with the real libspice-server, between a guest and a client that the tests play.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use recording::collector::{Collector, CollectorEvent, CollectorOptions};
use recording::spec::Panel;
use spice::ProtocolError;
use spice::client::{DisplayEvent, Session, StreamFrame};
use spice::stream_device::{Message, VideoCodec};
use system_tests::{Host, PATIENCE, StubGuest, program};

const FORMAT: Message = Message::Format { width: 64, height: 48, codec: VideoCodec::Mjpeg };

fn client(host: &Host, ticket: Option<&str>) -> Result<Session, ProtocolError> {
    Session::connect(("127.0.0.1", host.spice_port()), ticket, PATIENCE)
}

/// The next frame, whatever else comes before it.
fn next_frame(session: &mut Session) -> StreamFrame {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no frame in time");
        if let Some(DisplayEvent::StreamData(frame)) = session.display().next_event(PATIENCE).unwrap() {
            return frame;
        }
    }
}

/// Payload number `n`: its size and its bytes tell which it is. The host looks at neither.
fn payload(n: usize) -> Vec<u8> {
    let size = 40 + n * 7919 % 90_000;
    (0..size).map(|i| (i * 31 + n) as u8).collect()
}

/// Plays a guest that streams `frames` payloads as soon as a client watches.
fn play(guest: &mut StubGuest, frames: std::ops::Range<usize>) {
    assert!(guest.started().unwrap().contains(&VideoCodec::Mjpeg));
    guest.send(&FORMAT).unwrap();
    for n in frames {
        guest.send(&Message::Data(payload(n))).unwrap();
    }
}

/// Runs a host that is to fail at once; gives its exit code and what it said.
fn failing(arguments: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("triptych-host"));
    command.arg("--stream").arg(format!("unix:{}", dir.path().join("s").display())).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_frame_reaches_the_client_in_order_and_intact() {
    const FRAMES: usize = 300;
    let host = Host::start(&[]).unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    let sender = std::thread::spawn(move || {
        play(&mut guest, 0..FRAMES);
        guest
    });
    let mut session = client(&host, None).unwrap();
    for n in 0..FRAMES {
        let frame = next_frame(&mut session);
        assert!(frame.data == payload(n), "frame {n} has {} bytes", frame.data.len());
    }
    drop(sender.join().unwrap());
    let bytes: usize = (0..FRAMES).map(|n| payload(n).len()).sum();
    let totals = host.totals().unwrap();
    assert_eq!(totals.frames, FRAMES as u64);
    assert!(totals.from_guest_bytes >= (bytes + FRAMES * 8) as u64, "{totals:?}");
    assert!(totals.to_client_bytes >= bytes as u64, "{totals:?}");
    drop(session);
    host.stop().unwrap();
}

#[test]
fn the_record_joins_with_what_the_client_sees() {
    const FRAMES: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", dir.path().join("c").display());
    let collector =
        Collector::start(CollectorOptions::new(address.parse().unwrap(), dir.path().to_owned())).unwrap();
    let host = Host::start(&["--collector", &address, "--machine"]).unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    let mut session = client(&host, None).unwrap();
    guest.started().unwrap();
    guest.send(&FORMAT).unwrap();
    let mut seen = Vec::new();
    for n in 0..FRAMES {
        guest.send(&Message::Data(payload(n))).unwrap();
        let frame = next_frame(&mut session);
        seen.push((
            u64::from(frame.mm_time),
            frame.data.len() as u64,
            frame.first_byte_at.0,
            frame.received_at.0,
        ));
    }
    drop((session, guest));
    host.stop().unwrap();
    let (mut facts, mut marks, mut gone) = (BTreeMap::new(), Vec::new(), false);
    while !gone {
        match collector.next_event(PATIENCE).expect("the agent says good-bye") {
            CollectorEvent::Ready { panel: Panel::Host, ready } => {
                facts = ready.facts;
                assert!(
                    ready.versions["libspice-server"].contains("libspice-server"),
                    "{:?}",
                    ready.versions
                );
            }
            CollectorEvent::Mark { kind, .. } => marks.push(kind),
            CollectorEvent::Gone { clean, .. } => gone = clean,
            _ => {}
        }
    }
    assert!(facts["spice_port"].parse::<u16>().is_ok());
    for kind in ["guest-connected", "client-connected", "start", "stop"] {
        assert!(marks.iter().any(|m| m == kind), "no marker {kind} in {marks:?}");
    }
    drop(collector);
    let rows = recording::reader::read_table(dir.path(), "host.frames").unwrap();
    assert_eq!(rows.rows, FRAMES);
    let (first, received) = (rows.i64("first_byte_ns").unwrap(), rows.i64("received_ns").unwrap());
    let (pushed, socket) = (rows.i64("pushed_ns").unwrap(), rows.i64("socket_ns").unwrap());
    let (mm_time, size) = (rows.u64("mm_time_ms").unwrap(), rows.u64("size_bytes").unwrap());
    let first_bytes: Vec<i64> = seen.iter().map(|s| s.2).collect();
    for (n, (mm, bytes, client_first, client_last)) in seen.into_iter().enumerate() {
        assert_eq!((mm_time[n], size[n]), (mm, bytes), "frame {n}");
        assert!(first[n] <= received[n] && received[n] <= pushed[n], "frame {n}");
        assert!(pushed[n] < client_first && client_first <= client_last, "frame {n}");
        assert!(socket[n] > pushed[n], "frame {n} was never in the socket");
    }
    let median = |mut ns: Vec<i64>| {
        ns.sort_unstable();
        ns[ns.len() / 2] as f64 / 1000.0
    };
    eprintln!(
        "guest's last byte to: read by the server {:.0} µs, in the socket {:.0} µs, client's first byte {:.0} µs",
        median((0..FRAMES).map(|n| pushed[n] - received[n]).collect()),
        median((0..FRAMES).map(|n| socket[n] - received[n]).collect()),
        median(first_bytes.iter().zip(received).map(|(client, host)| client - host).collect()),
    );
    let traffic = recording::reader::read_table(dir.path(), "host.traffic").unwrap();
    assert!(traffic.u64("from_guest_bytes").unwrap().last().unwrap() > &size.iter().sum::<u64>());
}

#[test]
fn a_taken_port_is_told_with_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = failing(&["--spice", &address]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("in use") && said.contains("--spice"), "{said}");
}

#[test]
fn beyond_loopback_a_ticket_is_needed() {
    let (code, said) = failing(&["--spice", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("ticket"), "{said}");
}

#[test]
fn only_the_right_ticket_opens_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ticket");
    std::fs::write(&file, "open sesame\n").unwrap();
    let host = Host::start(&["--ticket-file", file.to_str().unwrap()]).unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    for wrong in [None, Some("open barley")] {
        assert!(matches!(client(&host, wrong), Err(ProtocolError::Ticket)), "{wrong:?}");
    }
    let mut session = client(&host, Some("open sesame")).unwrap();
    play(&mut guest, 0..1);
    assert_eq!(next_frame(&mut session).data, payload(0));
}

#[test]
fn a_client_may_come_before_the_guest() {
    let host = Host::start(&[]).unwrap();
    let path = host.stream_socket().to_owned();
    let port = host.spice_port();
    let watching = std::thread::spawn(move || {
        let mut session = Session::connect(("127.0.0.1", port), None, PATIENCE).unwrap();
        next_frame(&mut session).data
    });
    host.event("client-connected").unwrap();
    let mut guest = StubGuest::connect(&path).unwrap();
    play(&mut guest, 0..1);
    assert_eq!(watching.join().unwrap(), payload(0));
}

#[test]
fn a_guest_that_sends_garbage_is_dismissed_with_the_reason() {
    let host = Host::start(&[]).unwrap();
    let too_large = [&[1, 0, 3, 0][..], &(64u32 << 20).to_le_bytes()].concat();
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "version 71"),
        (&[1, 0, 77, 0, 0, 0, 0, 0], "unknown message type 77"),
        (&too_large, "67108864 bytes"),
        // The header is right and the payload is not: libspice-server's business.
        (&[1, 0, 2, 0, 3, 0, 0, 0, 1, 2, 3], "libspice-server"),
    ] {
        let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
        guest.send_bytes(bytes).unwrap();
        let said = host.event("guest-refused").unwrap();
        assert!(said.contains(reason), "{said}");
        let mut told = false;
        while let Some(message) = guest.receive().unwrap() {
            told |= matches!(message, Message::NotifyError { .. });
        }
        assert!(told, "the guest was not told: {reason}");
    }
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    let mut session = client(&host, None).unwrap();
    play(&mut guest, 0..2);
    assert_eq!(next_frame(&mut session).data, payload(0));
}

#[test]
fn a_second_guest_is_turned_away_and_the_first_goes_on() {
    let host = Host::start(&[]).unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    host.event("guest-connected").unwrap();
    let mut second = StubGuest::connect(host.stream_socket()).unwrap();
    assert!(
        matches!(second.receive().unwrap(), Some(Message::NotifyError { text, .. }) if text.contains("one at a time"))
    );
    assert_eq!(second.receive().unwrap(), None);
    let mut session = client(&host, None).unwrap();
    play(&mut guest, 0..1);
    assert_eq!(next_frame(&mut session).data, payload(0));
}

#[test]
fn a_guest_that_comes_back_reaches_the_client_that_stayed() {
    let host = Host::start(&[]).unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    let mut session = client(&host, None).unwrap();
    play(&mut guest, 0..3);
    // It leaves in the middle of a message.
    guest.send_bytes(&Message::Data(payload(9)).encode()[..30]).unwrap();
    (0..3).for_each(|n| assert_eq!(next_frame(&mut session).data, payload(n)));
    drop(guest);
    host.event("guest-lost").unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    play(&mut guest, 3..6);
    (3..6).for_each(|n| assert_eq!(next_frame(&mut session).data, payload(n)));
}

#[test]
fn a_guest_learns_when_the_client_leaves_and_when_the_next_one_comes() {
    let host = Host::start(&[]).unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    for _ in 0..3 {
        let mut session = client(&host, None).unwrap();
        play(&mut guest, 0..1);
        assert_eq!(next_frame(&mut session).data, payload(0));
        drop(session);
        guest.stopped().unwrap();
    }
}

#[test]
fn a_client_that_stands_still_holds_the_guest_back_and_loses_nothing() {
    let host = Host::start(&[]).unwrap();
    let mut guest = StubGuest::connect(host.stream_socket()).unwrap();
    let mut session = client(&host, None).unwrap();
    guest.started().unwrap();
    guest.send(&FORMAT).unwrap();
    guest.send(&Message::Data(payload(0))).unwrap();
    assert_eq!(next_frame(&mut session).data, payload(0));
    // From here on nobody reads on the client's side.
    let frame = |n: u32| Message::Data([n.to_le_bytes().to_vec(), vec![5; 100_000]].concat()).encode();
    let (mut sent, mut rest) = (1, Vec::new());
    while rest.is_empty() {
        let bytes = frame(sent);
        let written = guest.send_while_taken(&bytes, Duration::from_secs(1)).unwrap();
        rest = bytes[written..].to_vec();
        sent += 1;
        assert!(sent < 1000, "100 MB went somewhere although nobody reads");
    }
    let finish = std::thread::spawn(move || {
        guest.send_bytes(&rest).unwrap();
        guest
    });
    for n in 1..sent {
        let data = next_frame(&mut session).data;
        assert_eq!((data.len(), &data[..4]), (100_004, &n.to_le_bytes()[..]), "frame {n} of {sent}");
    }
    drop(finish.join().unwrap());
    host.stop().unwrap();
}
