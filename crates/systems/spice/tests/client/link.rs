//! How sessions begin, or why they do not.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use spice::ProtocolError;
use spice::client::Session;
use spice::link::{LinkReply, MAGIC, MAX_TICKET};

use crate::server::{DEADLINE, Peer, SESSION, create, serve, session};

fn failed(result: Result<Session, ProtocolError>) -> ProtocolError {
    result.err().expect("the session should not have begun")
}

#[test]
fn the_right_ticket_opens_main_and_display() {
    let longest = "x".repeat(MAX_TICKET);
    for ticket in ["s3cret", "", &longest] {
        let expected = ticket.to_owned();
        let (address, server) = serve(move |listener| {
            let mut main = Peer::accept(&listener);
            main.link(&expected);
            main.init();
            main.channels(&[(2, 0)]);
            let mut display = Peer::accept_display(&listener, &expected);
            (main.rest(), display.rest())
        });
        drop(Session::connect(address, Some(ticket), DEADLINE).unwrap());
        let (main, display) = server.join().unwrap();
        assert!(main.is_empty() && display.is_empty(), "{main:?} {display:?}");
    }
}

#[test]
fn a_wrong_ticket_is_told_apart() {
    let (address, server) = serve(|listener| Peer::accept(&listener).link("right"));
    let error = failed(Session::connect(address, Some("wrong"), DEADLINE));
    assert!(matches!(error, ProtocolError::Ticket), "{error:?}");
    assert!(error.to_string().contains("--ticket-file"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_ticket_above_the_limit_is_refused_before_it_is_sent() {
    let (address, server) = serve(|listener| Peer::accept(&listener).rest());
    let error = failed(Session::connect(address, Some(&"x".repeat(MAX_TICKET + 1)), DEADLINE));
    assert!(matches!(error, ProtocolError::TicketTooLong(61)), "{error:?}");
    assert!(server.join().unwrap().is_empty());
}

/// What the client makes of the first bytes that a server sends, after which it closes.
fn answered(answer: Vec<u8>) -> ProtocolError {
    let (address, server) = serve(move |listener| {
        let mut peer = Peer::accept(&listener);
        peer.link_message();
        peer.0.write_all(&answer).unwrap();
        peer.0.shutdown(std::net::Shutdown::Write).unwrap();
        peer.rest();
    });
    let error = failed(Session::connect(address, None, DEADLINE));
    server.join().unwrap();
    error
}

fn header(major: u32, size: u32) -> Vec<u8> {
    let words = [major, 2, size].map(u32::to_le_bytes);
    [&MAGIC[..], &words.concat()].concat()
}

#[test]
fn another_protocol_is_named() {
    let error = answered(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert!(matches!(error, ProtocolError::NotSpice), "{error:?}");
    let error = answered(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec());
    assert!(matches!(error, ProtocolError::NotSpice), "{error:?}");
}

#[test]
fn another_major_version_is_named() {
    let error = answered(header(3, 0));
    assert!(matches!(error, ProtocolError::Version { major: 3, minor: 2 }), "{error:?}");
    assert!(error.to_string().contains("SPICE 3.2"), "{error}");
}

#[test]
fn an_absurd_length_of_the_reply_is_refused() {
    let error = answered(header(2, u32::MAX));
    assert!(matches!(error, ProtocolError::TooLarge { size: u32::MAX, .. }), "{error:?}");
}

#[test]
fn a_server_that_closes_in_the_middle_is_told_wherever_it_does() {
    let reply = LinkReply {
        error: 0,
        public_key: vec![0; spice::link::PUBKEY_LEN],
        common_caps: vec![11],
        channel_caps: vec![0],
    };
    let whole = reply.encode();
    for cut in [0, 1, 15, 16, 100, whole.len() - 1] {
        let error = answered(whole[..cut].to_vec());
        assert!(matches!(error, ProtocolError::ClosedDuringLink), "after {cut} bytes: {error:?}");
    }
    let error = answered(whole);
    assert!(matches!(error, ProtocolError::BadKey), "{error:?}");
}

#[test]
fn a_refusal_says_its_reason_also_without_a_key() {
    let error = answered([header(2, 4), 9u32.to_le_bytes().to_vec()].concat());
    assert!(matches!(error, ProtocolError::Refused { code: 9, .. }), "{error:?}");
    assert!(error.to_string().contains("channel not available"), "{error}");
}

#[test]
fn capabilities_outside_of_the_reply_are_refused() {
    let mut reply = header(2, 178);
    reply.extend(vec![0; 166]);
    for word in [u32::MAX, u32::MAX, u32::MAX] {
        reply.extend(word.to_le_bytes());
    }
    let error = answered(reply);
    assert!(matches!(error, ProtocolError::Short { what: "link reply", .. }), "{error:?}");
}

#[test]
fn nobody_listening_is_an_error_of_the_system() {
    let (address, server) = serve(drop);
    server.join().unwrap();
    let error = failed(Session::connect(address, None, DEADLINE));
    assert!(
        matches!(&error, ProtocolError::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused),
        "{error:?}"
    );
}

#[test]
fn a_display_that_comes_late_is_waited_for() {
    let (address, server) = serve(|listener| {
        let mut main = Peer::accept(&listener);
        main.link("");
        main.init();
        main.channels(&[(1, 0), (3, 0)]);
        // The client has read the first list once it answers the ping behind it.
        main.send(spice::messages::server::PING, &[0; 12]);
        assert_eq!(main.receive().0, spice::messages::client::PONG);
        main.channels(&[(2, 0)]);
        Peer::accept_display(&listener, "").rest()
    });
    drop(Session::connect(address, None, DEADLINE).unwrap());
    assert!(server.join().unwrap().is_empty());
}

#[test]
fn no_display_ends_with_the_callers_patience() {
    let (address, server) = serve(|listener| {
        let mut main = Peer::accept(&listener);
        main.link("");
        main.init();
        main.channels(&[(1, 0), (3, 0)]);
        main.rest()
    });
    let (begun, patience) = (Instant::now(), Duration::from_millis(200));
    let error = failed(Session::connect(address, None, patience));
    assert!(matches!(error, ProtocolError::NoDisplay), "{error:?}");
    assert!(begun.elapsed() >= patience);
    assert!(server.join().unwrap().is_empty(), "the connection is closed");
}

#[test]
fn a_main_channel_that_ends_ends_the_wait_for_a_display() {
    let (address, server) = serve(|listener| {
        let mut main = Peer::accept(&listener);
        main.link("");
        main.init();
    });
    let begun = Instant::now();
    let error = failed(Session::connect(address, None, DEADLINE));
    assert!(matches!(error, ProtocolError::Closed), "{error:?}");
    assert!(begun.elapsed() < DEADLINE);
    server.join().unwrap();
}

#[test]
fn a_dropped_session_closes_both_channels_and_joins_its_thread() {
    let (session, server) = session(|mut main, mut display| {
        assert!(main.rest().is_empty() && display.rest().is_empty());
    });
    assert!(threads().iter().any(|t| t == "spice-main"));
    drop(session);
    server.join().unwrap();
}

/// Names of the threads of this process.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("comm")).ok());
    names.map(|n| n.trim_end().to_owned()).collect()
}

#[test]
fn a_stop_handle_ends_a_blocked_read() {
    let (mut session, server) = session(|mut main, mut display| {
        display.send(spice::messages::server::STREAM_CREATE, &create(SESSION).encode());
        let mut byte = [0];
        assert_eq!(display.0.read(&mut byte).unwrap_or(0), 0);
        main.rest();
    });
    assert!(session.display().next_event(DEADLINE).unwrap().is_some());
    let handle = session.stop_handle().unwrap();
    let reader = std::thread::spawn(move || {
        let begun = Instant::now();
        let result = session.display().next_event(DEADLINE);
        (result.err(), begun.elapsed())
    });
    handle.stop();
    handle.try_clone().unwrap().stop();
    let (error, waited) = reader.join().unwrap();
    assert!(matches!(error, Some(ProtocolError::Closed)), "{error:?}");
    assert!(waited < DEADLINE);
    server.join().unwrap();
}
