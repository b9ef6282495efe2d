//! The guest against a host that this test plays over a Unix socket.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use spice::stream_device::{Message, Parser, VideoCodec};

const DEADLINE: Duration = Duration::from_secs(20);

/// A guest's process that does not outlive its test.
struct Guest(Option<Child>);

impl Guest {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_triptych-guest"))
            .args(arguments)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(Some(child))
    }

    fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Waits for its end; gives status and what it logged.
    fn end(mut self) -> (i32, String) {
        let Output { status, stderr, .. } = self.0.take().unwrap().wait_with_output().unwrap();
        (status.code().unwrap_or(-1), String::from_utf8_lossy(&stderr).into_owned())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The other end of the port.
struct Host {
    socket: UnixStream,
    parser: Parser,
    waiting: Vec<Message>,
}

impl Host {
    fn say(&mut self, message: &Message) {
        self.socket.write_all(&message.encode()).unwrap();
    }

    fn start(&mut self) {
        self.say(&Message::StartStop(VideoCodec::ALL.to_vec()));
    }

    fn next(&mut self) -> Message {
        let start = Instant::now();
        while self.waiting.is_empty() {
            let mut buffer = [0; 65_536];
            let n = self.socket.read(&mut buffer).expect("the guest says nothing");
            assert!(n > 0, "the guest is gone");
            self.waiting = self.parser.push(&buffer[..n]).unwrap();
            assert!(start.elapsed() < DEADLINE);
        }
        self.waiting.remove(0)
    }

    fn next_data(&mut self) -> Vec<u8> {
        loop {
            if let Message::Data(data) = self.next() {
                return data;
            }
        }
    }
}

struct Stage {
    guest: Guest,
    host: Host,
    _folder: tempfile::TempDir,
}

fn stage(arguments: &[&str]) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let port = format!("unix:{}", path.display());
    let guest = Guest::start(&[&["--port", &port, "--size", "320x180"], arguments].concat());
    listener.set_nonblocking(true).unwrap();
    let mut fds = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    let limit = rustix::time::Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
    let ready = rustix::event::poll(&mut fds, Some(&limit)).unwrap();
    assert_eq!(ready, 1, "the guest did not connect");
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    Stage { guest, host: Host { socket, parser: Parser::new(), waiting: Vec::new() }, _folder: folder }
}

/// Whether decoding can start at this unit, by its bitstream.
fn is_keyframe(codec: VideoCodec, data: &[u8]) -> bool {
    let nal =
        |wanted: u8, of: fn(u8) -> u8| data.windows(4).any(|w| w[..3] == [0, 0, 1] && of(w[3]) == wanted);
    match codec {
        VideoCodec::Mjpeg => data.starts_with(&[0xff, 0xd8]) && data.ends_with(&[0xff, 0xd9]),
        VideoCodec::Vp8 => data[0] & 1 == 0,
        // frame_marker 2, profile 0, no show_existing_frame, frame_type 0.
        VideoCodec::Vp9 => data[0] & 0b1100_1100 == 0b1000_0000 && data[0] & 0b100 == 0,
        VideoCodec::H264 => nal(5, |b| b & 0x1f) && nal(7, |b| b & 0x1f),
        VideoCodec::H265 => nal(32, |b| b >> 1 & 0x3f) && nal(33, |b| b >> 1 & 0x3f),
    }
}

/// Codecs whose default encoder is installed.
fn codecs() -> Vec<VideoCodec> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_triptych-guest")).args(["encoders", "--json"]).output().unwrap();
    assert!(output.status.success());
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let has = |codec: &VideoCodec| {
        let found = list.as_array().unwrap().iter().any(|entry| {
            entry["codec"] == codec.to_string() && entry["default"] == true && entry["installed"] == true
        });
        if !found {
            eprintln!("skipped {codec}: its encoder is not installed");
        }
        found
    };
    VideoCodec::ALL.iter().copied().filter(has).collect()
}

#[test]
fn each_start_is_answered_by_the_format_and_a_keyframe() {
    for codec in codecs() {
        let mut stage = stage(&["--codec", &codec.to_string(), "--fps", "60", "--gop", "1000"]);
        stage.host.say(&Message::Capabilities(vec![0]));
        assert_eq!(stage.host.next(), Message::Capabilities(vec![0]));
        for round in 0..2 {
            stage.host.start();
            let format = Message::Format { width: 320, height: 180, codec };
            // Frames of the round before may still be on their way.
            while stage.host.next() != format {}
            assert!(is_keyframe(codec, &stage.host.next_data()), "{codec} round {round}");
            for _ in 0..5 {
                let inter = stage.host.next_data();
                assert!(codec == VideoCodec::Mjpeg || !is_keyframe(codec, &inter), "{codec} round {round}");
            }
            if round == 0 {
                stage.host.say(&Message::StartStop(Vec::new()));
            }
        }
        stage.guest.interrupt();
        let (status, log) = stage.guest.end();
        assert_eq!(status, 0, "{log}");
    }
}

#[test]
fn a_client_without_the_codec_is_refused_by_name() {
    let mut stage = stage(&["--codec", "vp8"]);
    stage.host.say(&Message::StartStop(vec![VideoCodec::Mjpeg, VideoCodec::H264]));
    let (status, log) = stage.guest.end();
    assert_eq!(status, 1);
    assert!(log.contains("does not decode vp8") && log.contains("mjpeg, h264"), "{log}");
}

#[test]
fn a_complaint_of_the_host_and_its_end_are_faults_with_their_reason() {
    let mut complaining = stage(&["--codec", "mjpeg"]);
    complaining.host.say(&Message::NotifyError { code: 7, text: "no such thing".into() });
    let (status, log) = complaining.guest.end();
    assert_eq!(status, 1);
    assert!(log.contains("no such thing"), "{log}");

    let Stage { guest, host, _folder } = stage(&["--codec", "mjpeg"]);
    drop(host);
    let (status, log) = guest.end();
    assert_eq!(status, 1);
    assert!(log.contains("the host closed the stream port"), "{log}");
}

#[test]
fn a_blocked_port_skips_ticks_and_never_cuts_a_message() {
    let mut stage =
        stage(&["--codec", "mjpeg", "--source", "scene:noise", "--fps", "200", "--set", "quality=95"]);
    stage.host.start();
    // Reads nothing until the guest can write nothing: the socket's buffer is full when its count stands still.
    let unread = |socket: &UnixStream| rustix::io::ioctl_fionread(socket).unwrap();
    let start = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(300) || last == 0 {
        let now = unread(&stage.host.socket);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(start.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    // Everything after that is whole messages: the parser accepts nothing else, and each picture is complete.
    stage.host.next();
    for _ in 0..40 {
        assert!(is_keyframe(VideoCodec::Mjpeg, &stage.host.next_data()));
    }
    stage.guest.interrupt();
    let Stage { guest, mut host, _folder } = stage;
    // A half-written message is finished even now.
    host.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut rest = Vec::new();
    match host.socket.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{e}"),
    }
    let (status, log) = guest.end();
    assert_eq!(status, 0, "{log}");
    let skipped: u64 = log
        .split_once(" ticks skipped")
        .and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{log}"));
    assert!(skipped >= 20, "{skipped} of the ticks in at least 300 ms at 200 Hz: {log}");
    host.parser.push(&rest).unwrap();
    let mut probe = host.parser.clone();
    assert!(
        probe.push(&Message::StartStop(Vec::new()).encode()).unwrap() == [Message::StartStop(Vec::new())],
        "the last message was cut"
    );
}

/// Process ids of the children of a process.
fn children(pid: u32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|p| p.parse().unwrap()).collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_killed_encoder_is_started_again_with_a_keyframe_and_given_up_after_some_times() {
    let mut stage = stage(&["--codec", "h264", "--fps", "60", "--gop", "100000"]);
    stage.host.start();
    assert!(is_keyframe(VideoCodec::H264, &stage.host.next_data()));
    for _ in 0..3 {
        for _ in 0..5 {
            stage.host.next_data();
        }
        let [worker] = children(stage.guest.pid())[..] else { panic!("not one encoder") };
        kill(worker);
        let start = Instant::now();
        while !is_keyframe(VideoCodec::H264, &stage.host.next_data()) {
            assert!(start.elapsed() < DEADLINE, "no keyframe after the restart");
        }
    }
    kill(children(stage.guest.pid())[0]);
    let (status, log) = stage.guest.end();
    assert_eq!(status, 1);
    assert!(log.contains("encoder x264enc died: signal 9; it died 4 times"), "{log}");
}

#[test]
fn the_encoder_dies_with_the_guest() {
    let mut stage = stage(&["--codec", "mjpeg"]);
    stage.host.start();
    stage.host.next_data();
    let worker = children(stage.guest.pid())[0];
    let pid = rustix::process::Pid::from_raw(worker).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    kill(stage.guest.pid() as i32);
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::time::Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "the encoder lives on");
}

#[test]
fn wrong_options_and_missing_encoders_have_their_exit_codes() {
    for (arguments, code, parts) in [
        (&["--codec", "av1"][..], 2, &["'av1' is not a codec", "h265"][..]),
        (&["--port", "unix:/x", "--set", "cpu-usde=4", "--codec", "vp8"], 2, &["did you mean 'cpu-used'"]),
        (&["--port", "unix:/x", "--fps", "0"], 2, &["frame rate 0"]),
        (&["--port", "unix:/x", "--encoder", "nosuchenc"], 3, &["nosuchenc is not installed"]),
        (&["--port", "unix:/x", "--source", "x11::54321"], 1, &["display ':54321' cannot be used"]),
        (&["--port", "unix:/nonexistent/x", "--connect-timeout", "0"], 1, &["is triptych-host running"]),
        (&[], 2, &["--port"]),
    ] {
        let (status, log) = Guest::start(arguments).end();
        assert_eq!(status, code, "{arguments:?}: {log}");
        for part in parts {
            assert!(log.contains(part), "{arguments:?}: {log}");
        }
    }
}
