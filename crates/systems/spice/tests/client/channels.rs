//! What the channels answer and give.

use std::io::Write;
use std::time::Duration;

use spice::ProtocolError;
use spice::client::{DisplayEvent, Session, StreamFrame};
use spice::messages::{
    ActivateReport, Ping, Rect, SetAck, StreamDataHeader, StreamReport, client, frame, server,
};
use spice::stream_device::MAX_DATA;

use crate::server::{DEADLINE, Peer, create, session};

/// A message of a type that the client skips.
const SURFACE_CREATE: u16 = 314;

fn next(session: &mut Session) -> DisplayEvent {
    session.display().next_event(DEADLINE).unwrap().expect("an event in time")
}

fn next_frame(session: &mut Session) -> StreamFrame {
    match next(session) {
        DisplayEvent::StreamData(frame) => frame,
        other => panic!("{other:?}"),
    }
}

fn data(id: u32, mm_time: u32, unit: &[u8]) -> Vec<u8> {
    let header = StreamDataHeader { id, mm_time, sized: None, size: unit.len() as u32 };
    [header.encode(), unit.to_vec()].concat()
}

fn sized(id: u32, mm_time: u32, size: (u32, u32), unit: &[u8]) -> Vec<u8> {
    let dest = Rect { top: 0, left: 0, bottom: 1, right: 1 };
    let header =
        StreamDataHeader { id, mm_time, sized: Some((size.0, size.1, dest)), size: unit.len() as u32 };
    [header.encode(), unit.to_vec()].concat()
}

/// Bytes that tell frames apart.
fn unit(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + number) as u8).collect()
}

#[test]
fn every_window_of_messages_is_acknowledged_once() {
    let (window, windows) = (5, 4);
    let (mut session, server) = session(move |_main, mut display| {
        display.send(server::SET_ACK, &SetAck { generation: 77, window }.encode());
        for _ in 0..window * windows {
            display.send(SURFACE_CREATE, &[0; 20]);
        }
        // Generation 78 without a window ends it: nothing more is acknowledged.
        display.send(server::SET_ACK, &SetAck { generation: 78, window: 0 }.encode());
        for _ in 0..20 {
            display.send(SURFACE_CREATE, &[]);
        }
        display.send(server::PING, &Ping { id: 1, timestamp: 2 }.encode());
        let mut answers = Vec::new();
        loop {
            let (kind, payload) = display.receive();
            if kind == client::PONG {
                return answers;
            }
            answers.push((kind, payload));
        }
    });
    for _ in 0..window * windows + 20 {
        assert!(matches!(next(&mut session), DisplayEvent::Other { kind: SURFACE_CREATE, .. }));
    }
    while !server.is_finished() {
        let _ = session.display().next_event(Duration::from_millis(5));
    }
    let mut expected = vec![(client::ACK_SYNC, 77u32.to_le_bytes().to_vec())];
    expected.extend((0..windows).map(|_| (client::ACK, Vec::new())));
    expected.push((client::ACK_SYNC, 78u32.to_le_bytes().to_vec()));
    assert_eq!(server.join().unwrap(), expected);
}

#[test]
fn pings_are_answered_on_both_channels_with_number_and_time() {
    let ping = |id| Ping { id, timestamp: 0x0102_0304_0506_0708 };
    let (mut session, server) = session(move |mut main, mut display| {
        // A main channel's ping carries ballast to measure the bandwidth by.
        main.send(server::PING, &[ping(1).encode(), vec![0; 250_000]].concat());
        assert_eq!(main.receive(), (client::PONG, ping(1).encode()));
        display.send(server::PING, &ping(2).encode());
        display.send(SURFACE_CREATE, &[1; 3]);
        assert_eq!(display.receive(), (client::PONG, ping(2).encode()));
    });
    assert!(matches!(next(&mut session), DisplayEvent::Other { size: 3, .. }));
    server.join().unwrap();
}

#[test]
fn a_report_comes_after_the_window_with_its_counts() {
    let (mut session, server) = session(move |_main, mut display| {
        display.send(server::STREAM_CREATE, &create(3).encode());
        let activate =
            ActivateReport { stream_id: 3, unique_id: 99, max_window_size: 4, timeout_ms: u32::MAX };
        display.send(server::STREAM_ACTIVATE_REPORT, &activate.encode());
        let mut reports = Vec::new();
        for window in 0..2 {
            for i in 0..4 {
                display.send(server::STREAM_DATA, &data(3, 6000 + window * 100 + i * 10, b"unit"));
            }
            let (kind, payload) = display.receive();
            assert_eq!(kind, client::STREAM_REPORT);
            reports.push(StreamReport::decode(&payload).unwrap());
        }
        reports
    });
    next(&mut session);
    for i in 0..8 {
        next_frame(&mut session);
        if i == 1 || i == 2 {
            session.display().dropped(3);
        }
    }
    let reports = server.join().unwrap();
    let seen = reports
        .iter()
        .map(|r| (r.start_frame_mm_time, r.end_frame_mm_time, r.num_frames, r.num_drops))
        .collect::<Vec<_>>();
    assert_eq!(seen, [(6000, 6030, 4, 2), (6100, 6130, 4, 0)]);
    for report in reports {
        assert_eq!((report.stream_id, report.unique_id, report.audio_delay), (3, 99, u32::MAX));
        // The server's clock stood at 5 s when the session began, a moment ago.
        assert!((-9000..=1130).contains(&report.last_frame_delay), "{report:?}");
    }
}

#[test]
fn frames_arrive_whole_and_in_order_in_whatever_pieces_they_come() {
    for piece in [1, 5, 7, 4096, usize::MAX] {
        let sizes = [1, 0, 100, 3000, 37, 12];
        let (mut session, server) = session(move |_main, mut display| {
            let mut bytes = frame(server::STREAM_CREATE, &create(1).encode());
            for (i, len) in sizes.into_iter().enumerate() {
                let (unit, mm_time) = (unit(i, len), i as u32 * 33);
                bytes.extend(match i % 2 {
                    0 => frame(server::STREAM_DATA, &data(1, mm_time, &unit)),
                    _ => frame(server::STREAM_DATA_SIZED, &sized(1, mm_time, (320, 200 + i as u32), &unit)),
                });
            }
            for piece in bytes.chunks(piece.min(bytes.len())) {
                display.0.write_all(piece).unwrap();
            }
            display
        });
        assert!(matches!(next(&mut session), DisplayEvent::StreamCreate(c) if c == create(1)));
        let mut last = units::Nanos(0);
        for (i, len) in sizes.into_iter().enumerate() {
            let frame = next_frame(&mut session);
            assert_eq!((frame.id, frame.mm_time), (1, i as u32 * 33));
            assert_eq!(frame.size, (i % 2 == 1).then_some((320, 200 + i as u32)));
            assert!(frame.data == unit(i, len), "frame {i} in pieces of {piece}");
            assert!(last <= frame.first_byte_at && frame.first_byte_at <= frame.received_at);
            last = frame.received_at;
            session.display().recycle(frame.data);
        }
        server.join().unwrap();
    }
}

#[test]
fn a_header_that_comes_in_two_parts_survives_a_timeout_between_them() {
    let (go, wait) = std::sync::mpsc::channel();
    let (mut session, server) = session(move |_main, mut display| {
        let bytes = frame(server::STREAM_CREATE, &create(1).encode());
        display.0.write_all(&bytes[..3]).unwrap();
        wait.recv_timeout(DEADLINE).unwrap();
        display.0.write_all(&bytes[3..]).unwrap();
        display
    });
    assert!(session.display().next_event(Duration::from_millis(20)).unwrap().is_none());
    go.send(()).unwrap();
    assert!(matches!(next(&mut session), DisplayEvent::StreamCreate(c) if c == create(1)));
    server.join().unwrap();
}

#[test]
fn data_for_a_stream_that_is_not_there_is_skipped() {
    let (mut session, server) = session(move |_main, mut display| {
        display.send(server::STREAM_DATA, &data(5, 1, b"before its stream"));
        display.send(server::STREAM_CREATE, &create(5).encode());
        display.send(server::STREAM_DATA, &data(6, 2, b"another one"));
        display.send(server::STREAM_DATA, &data(5, 3, b"right"));
        display.send(server::STREAM_DESTROY, &6u32.to_le_bytes());
        display.send(server::STREAM_DESTROY, &5u32.to_le_bytes());
        display.send(server::STREAM_DATA, &data(5, 4, b"after its end"));
        display.send(server::STREAM_DESTROY_ALL, &[]);
        display
    });
    assert!(matches!(next(&mut session), DisplayEvent::StreamCreate(_)));
    let frame = next_frame(&mut session);
    assert_eq!((frame.mm_time, &frame.data[..]), (3, &b"right"[..]));
    assert!(matches!(next(&mut session), DisplayEvent::StreamDestroy { id: 5 }));
    assert!(matches!(next(&mut session), DisplayEvent::StreamDestroyAll));
    server.join().unwrap();
}

/// What the client makes of bytes on its display, after which the server closes.
fn refused(bytes: Vec<u8>) -> ProtocolError {
    let (mut session, server) = session(move |mut main: Peer, mut display: Peer| {
        display.send(server::STREAM_CREATE, &create(1).encode());
        // The client may be gone before it has all.
        let _ = display.0.write_all(&bytes);
        let _ = display.0.shutdown(std::net::Shutdown::Write);
        display.rest();
        main.rest();
    });
    assert!(matches!(next(&mut session), DisplayEvent::StreamCreate(_)));
    let error = session.display().next_event(DEADLINE).expect_err("an error");
    drop(session);
    server.join().unwrap();
    error
}

#[track_caller]
fn check(bytes: Vec<u8>, expected: &str) {
    let error = refused(bytes).to_string();
    assert!(error.contains(expected), "{error}, expected {expected}");
}

#[test]
fn messages_that_end_early_are_errors() {
    let whole = frame(server::STREAM_DATA, &data(1, 0, &[9; 500]));
    for cut in [0, 1, 5, 6, 17, 18, 100, whole.len() - 1] {
        check(whole[..cut].to_vec(), "closed the connection");
    }
    check(frame(server::STREAM_DATA, &[0; 11]), "STREAM_DATA: 11 bytes, but 12 are needed");
    check(frame(server::STREAM_DATA_SIZED, &[0; 35]), "STREAM_DATA_SIZED: 35 bytes, but 36 are needed");
    check(frame(server::STREAM_CREATE, &create(2).encode()[..40]), "STREAM_CREATE: 40 bytes");
    check(frame(server::STREAM_DESTROY, &[1]), "STREAM_DESTROY: 1 bytes");
    check(frame(server::SET_ACK, &[1; 7]), "SET_ACK: 7 bytes");
    check(frame(server::PING, &[1; 11]), "PING: 11 bytes");
    check(frame(server::STREAM_ACTIVATE_REPORT, &[]), "STREAM_ACTIVATE_REPORT: 0 bytes");
}

#[test]
fn messages_that_are_too_long_are_refused_by_their_header() {
    let header = |kind: u16, size: u32| [&kind.to_le_bytes()[..], &size.to_le_bytes()].concat();
    check(header(server::STREAM_DATA, MAX_DATA + 37), "STREAM_DATA: 33554469 bytes, at most");
    check(header(server::STREAM_DATA_SIZED, u32::MAX), "STREAM_DATA_SIZED: 4294967295 bytes, at most");
    check(header(server::STREAM_CREATE, u32::MAX), "STREAM_CREATE: 4294967295 bytes, at most 1048576");
    check(header(server::NOTIFY, (1 << 20) + 1), "NOTIFY: 1048577 bytes, at most");
    check(header(server::PING, u32::MAX), "PING: 4294967295 bytes");
}

#[test]
fn fields_that_no_stream_has_are_refused() {
    let mut long = data(1, 0, &[9; 100]);
    long[8..12].copy_from_slice(&101u32.to_le_bytes());
    check(frame(server::STREAM_DATA, &long), "data_size is 101");
    check(frame(server::STREAM_DATA_SIZED, &sized(1, 0, (0, 360), b"x")), "width is 0");
    let mut codec = create(2).encode();
    codec[9] = 200;
    check(frame(server::STREAM_CREATE, &codec), "codec is 200");
}

#[test]
fn more_streams_than_a_server_has_are_refused() {
    let streams: Vec<u8> =
        (2..=65).flat_map(|id| frame(server::STREAM_CREATE, &create(id).encode())).collect();
    let (mut session, server) = session(move |_main, mut display| {
        display.send(server::STREAM_CREATE, &create(1).encode());
        let _ = display.0.write_all(&streams);
        display
    });
    for _ in 1..=64 {
        assert!(matches!(next(&mut session), DisplayEvent::StreamCreate(_)));
    }
    let error = session.display().next_event(DEADLINE).unwrap_err();
    assert!(error.to_string().contains("STREAM_CREATE: id is 65"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_server_that_says_goodbye_has_closed() {
    let (mut session, server) = session(|_main, mut display| {
        display.send(server::NOTIFY, &[&[0; 24][..], b"a word\0"].concat());
        display.send(server::NOTIFY, &[0; 5]);
        display.send(server::DISCONNECTING, &[0; 12]);
        display
    });
    let error = session.display().next_event(DEADLINE).unwrap_err();
    assert!(matches!(error, ProtocolError::Closed), "{error:?}");
    server.join().unwrap();
}
