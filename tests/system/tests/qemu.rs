//! An unmodified QEMU under TCG: its guest streams into its own SPICE server, and into our host.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::time::{Duration, Instant};

use qemu::StreamPort;
use recording::spec::Panel;
use system_tests::{Host, Record, Vm, watch};

/// The guest has booted; frames are a matter of seconds then, save on a loaded machine.
const STREAMING: Duration = Duration::from_secs(90);
const FRAMES: u64 = 40;

#[test]
fn our_client_watches_an_unmodified_qemu() {
    let Some(mut vm) = Vm::start(true, StreamPort::Spice).unwrap() else { return };
    let started = Instant::now();
    vm.port_opened().unwrap();
    eprintln!("QEMU {}: booted after {:.1?}", vm.qemu.qmp().version(), started.elapsed());
    let record = Record::start().unwrap();
    let port = vm.qemu.spice_port().unwrap();
    assert_eq!(vm.qemu.qmp().query_spice().unwrap().port, Some(port));
    let summary = watch(port, &record, FRAMES, STREAMING)
        .unwrap_or_else(|e| panic!("{e:#}; the guest's console:\n{}", vm.qemu.log_tail()));
    eprintln!("client: {summary}");
    assert!(summary["frames"].as_u64().unwrap() >= FRAMES, "{summary}");
    let record = record.end(1).unwrap();
    let rows = record.table("client.frames").unwrap();
    let presented = rows.i64("presented_ns").unwrap().iter().filter(|t| **t > 0).count();
    assert!(presented as u64 >= FRAMES * 9 / 10, "{presented} of {} were decoded and presented", rows.rows);
    // The client left: the guest is told to stop, and the machine lives on.
    assert!(vm.qemu.qmp().query_spice().unwrap().enabled);
    assert!(vm.qemu.quit().unwrap().success());
}

#[test]
fn a_virtual_machine_streams_into_our_host() {
    let record = Record::start().unwrap();
    let arguments = record.arguments(Panel::Host);
    let host = Host::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let Some(mut vm) = Vm::start(false, StreamPort::Socket(host.stream_socket().to_owned())).unwrap() else {
        return;
    };
    host.event("guest-connected").unwrap();
    vm.port_opened().unwrap();
    let summary = watch(host.spice_port(), &record, FRAMES, STREAMING)
        .unwrap_or_else(|e| panic!("{e:#}; the guest's console:\n{}", vm.qemu.log_tail()));
    eprintln!("client: {summary}");
    assert!(vm.qemu.quit().unwrap().success());
    host.event_of(&["guest-gone", "guest-lost"]).unwrap();
    host.stop().unwrap();

    let record = record.end(2).unwrap();
    let (sent, seen) = (record.table("host.frames").unwrap(), record.table("client.frames").unwrap());
    let pairs = |t: &recording::reader::Columns| -> Vec<(u64, u64)> {
        let (times, sizes) = (t.u64("mm_time_ms").unwrap(), t.u64("size_bytes").unwrap());
        times.iter().copied().zip(sizes.iter().copied()).collect()
    };
    let (sent, seen) = (pairs(&sent), pairs(&seen));
    assert!(seen.len() as u64 >= FRAMES, "{}", seen.len());
    // The client may have left before the last frames and come after the first; in between nothing is missing.
    let start = sent.iter().position(|p| *p == seen[0]).expect("the client's first frame passed the host");
    assert_eq!(sent[start..start + seen.len()], seen[..]);
}
