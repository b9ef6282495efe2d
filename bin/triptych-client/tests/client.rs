//! The client where there is nothing to watch: what it says, and how it ends.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

fn client(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_triptych-client"))
        .args(arguments)
        .env_remove("DISPLAY")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn help_has_an_example() {
    let (status, text) = client(&["--help"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("triptych-client --connect 127.0.0.1:5910 --window"), "{text}");
}

#[test]
fn nobody_listening_is_told_with_the_remedy() {
    let (listener, address) = listener();
    drop(listener);
    let (status, text) = client(&["--connect", &address, "--headless"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains(&format!("nobody listens at {address}: start triptych-host")), "{text}");
}

#[test]
fn a_server_of_something_else_is_told_apart() {
    let (listener, address) = listener();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2 and so on, longer than any header\r\n").unwrap();
        // Held until the client has gone.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let (status, text) = client(&["--connect", &address, "--headless"]);
    server.join().unwrap();
    assert_eq!(status, 1, "{text}");
    assert!(text.contains(&format!("cannot watch {address}")), "{text}");
    assert!(text.contains("does not speak SPICE: is this the right port?"), "{text}");
}

#[test]
fn a_window_without_a_display_is_refused_before_connecting() {
    let (status, text) = client(&["--connect", "127.0.0.1:1", "--window"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("set DISPLAY, or run with --headless"), "{text}");
}

#[test]
fn a_ticket_file_that_is_not_there_is_named() {
    let (status, text) =
        client(&["--connect", "127.0.0.1:1", "--headless", "--ticket-file", "/nowhere/ticket"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("/nowhere/ticket cannot be read"), "{text}");
}

#[test]
fn wrong_use_exits_with_two() {
    let headless_window = ["--connect", "127.0.0.1:1", "--headless", "--window"];
    let no_time = ["--connect", "127.0.0.1:1", "--duration", "0"];
    for arguments in [&["--headless"][..], &headless_window, &no_time] {
        let (status, text) = client(arguments);
        assert_eq!(status, 2, "{arguments:?}: {text}");
    }
}
