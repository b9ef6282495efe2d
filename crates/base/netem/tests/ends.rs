//! Nothing outlives the emulator: no process, no namespace, no device.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netem::{Emulator, Options, Side};

const DEADLINE: Duration = Duration::from_secs(10);
/// Tells this program, started again, to be the owner that gets killed.
const OWNER: &str = "NETEM_TEST_OWNER";

/// Starts a shell inside, whose own child has no parent that would take it along.
fn start_inside(emulator: &Emulator) -> (Child, [u32; 2]) {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut shell = emulator.spawn(Side::A, command).unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids = [shell.id(), line.trim().parse().unwrap()];
    (shell, pids)
}

fn namespace(pid: u32) -> Option<u64> {
    Some(std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())
}

/// Whether the process is there and not just waiting to be reaped.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(") ").next()?.chars().next())
        .is_some_and(|state| state != 'Z' && state != 'X')
}

fn processes_in(namespaces: &[u64]) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid).is_some_and(|n| namespaces.contains(&n)))
        .collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let at = Instant::now();
    while !done() {
        assert!(at.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

fn start() -> Option<Emulator> {
    match Emulator::start(Options::default()) {
        Ok(emulator) => Some(emulator),
        Err(error) if error.is_refused() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn dropping_the_emulator_ends_what_runs_inside() {
    let Some(emulator) = start() else { return };
    let (mut shell, pids) = start_inside(&emulator);
    let inside = namespace(pids[1]).unwrap();
    assert_ne!(Some(inside), namespace(std::process::id()));
    drop(emulator);
    assert!(!pids.into_iter().any(is_alive), "a process outlived the emulator");
    assert_eq!(processes_in(&[inside]), Vec::<u32>::new());
    shell.wait().unwrap();
}

#[test]
fn killing_the_owner_ends_what_runs_inside() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--nocapture", "--test-threads=1"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| {
        let line = line.unwrap();
        // The harness writes the test's name on the same line.
        line.find("owner: ").map(|at| line[at + 7..].to_owned())
    });
    let said = said.expect("the owner says what it has");
    if said == "refused" {
        eprintln!("skipped: this machine refuses namespaces");
        owner.wait().unwrap();
        return;
    }
    let numbers: Vec<u64> = said.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let (pids, inside) = ([numbers[0] as u32, numbers[1] as u32, numbers[2] as u32], numbers[3]);
    assert!(pids.into_iter().all(is_alive), "{said}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("a process outlived the owner", || !pids.into_iter().any(is_alive));
    wait_until("somebody is in the namespace", || processes_in(&[inside]).is_empty());
}

/// Not a test of its own: what [`killing_the_owner_ends_what_runs_inside`] starts and kills.
#[test]
fn owner() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let Some(emulator) = start() else {
        println!("owner: refused");
        return;
    };
    let (_shell, pids) = start_inside(&emulator);
    let watcher = children_named("netem-watch");
    println!("owner: {} {} {} {}", pids[0], pids[1], watcher, namespace(pids[1]).unwrap());
    std::io::stdout().flush().unwrap();
    // Until it is killed, or whoever started it is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn children_named(name: &str) -> u32 {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid: &u32| {
            let at = Path::new("/proc").join(pid.to_string());
            let stat = std::fs::read_to_string(at.join("stat")).unwrap_or_default();
            stat.contains(&format!("({name})")) && stat.split_whitespace().nth(3) == Some(&own)
        })
        .expect("the watcher is a child of the owner")
}
