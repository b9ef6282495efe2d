//! The agent in a guest without a network: through a virtio-serial port of a real QEMU to a collector of the host.
//!
//! The guest runs `triptych-agent` as it was built beside this test, with its libraries, or the file that
//! `TRIPTYCH_GUEST_AGENT` names, such as the one of `make agent-static`.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu::SerialPort;
use recording::collector::{Collector, CollectorEvent, CollectorOptions};
use recording::facts::{PlannedRun, RunFacts, RunStatus};
use recording::reader::{read_table, tables};
use recording::spec::{Levels, Panel};
use system_tests::{PATIENCE, SHELL_PORT, Vm, program, wait_for};
use units::{Clock, MonotonicClock};

/// A guest boots in some ten seconds under TCG on a free machine.
const BOOT: Duration = Duration::from_secs(150);
/// Every 20 ms a sample: the agent is killed while it sends, now and then in the middle of a message.
const AGENT: &str =
    "triptych-agent run --panel guest --collector port:/dev/virtio-ports/org.triptych.agent --rate 50";
/// How often the agent is killed.
const KILLS: usize = 3;

/// A shell in the guest.
struct Shell {
    commands: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Shell {
    /// Waits for QEMU to connect the port, and for the guest's shell to answer.
    fn connect(listener: &UnixListener) -> Self {
        let commands = listener.accept().unwrap().0;
        commands.set_read_timeout(Some(BOOT)).unwrap();
        let mut shell = Self { answers: BufReader::new(commands.try_clone().unwrap()), commands };
        assert_eq!(shell.ask("echo here"), "here");
        shell.commands.set_read_timeout(Some(PATIENCE)).unwrap();
        shell
    }

    /// Runs a command that answers with one line.
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Starts an agent; gives its process id.
    fn start_agent(&mut self) -> String {
        self.ask(&format!("{AGENT} </dev/null >/dev/console 2>&1 & echo $!"))
    }
}

fn collector(folder: &Path, socket: &Path) -> Collector {
    std::fs::create_dir(folder).unwrap();
    let address = format!("unix:{}", socket.display()).parse().unwrap();
    let options = CollectorOptions::new(address, folder.to_owned());
    Collector::start(CollectorOptions { batch: Duration::from_millis(100), ..options }).unwrap()
}

/// Waits until so many rows of the table have come; gives how many there are then.
fn await_rows(collector: &Collector, table: &str, rows: u64) -> u64 {
    wait_for(PATIENCE, &format!("{rows} rows of {table}"), || {
        if let Some(CollectorEvent::Fault { reason, .. }) = collector.next_event(Duration::from_millis(20)) {
            panic!("{reason}");
        }
        collector.rows(Panel::Guest, table) >= rows
    })
    .unwrap();
    collector.rows(Panel::Guest, table)
}

fn close(collector: Collector) -> RunFacts {
    let planned = PlannedRun { id: "r0001-p00-k0".into(), point: 0, repeat: 0 };
    let facts = RunFacts { status: RunStatus::Complete, ..RunFacts::begin(&planned, Levels::new(), "test") };
    collector.close(facts).unwrap()
}

fn agent() -> PathBuf {
    std::env::var_os("TRIPTYCH_GUEST_AGENT").map_or_else(|| program("triptych-agent"), PathBuf::from)
}

#[test]
fn a_guest_without_network_is_recorded_through_its_port_and_its_agent_may_be_killed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let listener = UnixListener::bind(at("shell")).unwrap();
    let first = collector(&at("first"), &at("collector"));
    let begun = MonotonicClock.now().0;
    let ports = [(SHELL_PORT, "shell"), ("org.triptych.agent", "collector")];
    let ports = ports.map(|(name, socket)| SerialPort { name: name.into(), socket: at(socket) });
    let Some(vm) = Vm::start_with_agent(&agent(), ports.into()).unwrap() else { return };
    let mut shell = Shell::connect(&listener);
    eprintln!("booted after {} ms", (MonotonicClock.now().0 - begun) / 1_000_000);
    assert_eq!(shell.ask("ls -A /sys/class/net | grep -v '^lo$' | wc -l"), "0", "no network");

    let mut pid = shell.start_agent();
    let mut seen = await_rows(&first, "memory", 1);
    for kill in 0..KILLS {
        seen = await_rows(&first, "memory", seen + 40 + 7 * kill as u64);
        assert_eq!(shell.ask(&format!("kill -9 {pid}; wait {pid}; echo $?")), "137");
        pid = shell.start_agent();
    }
    await_rows(&first, "memory", seen + 40);
    eprintln!("{}", shell.ask(&format!("echo $(grep -E 'VmRSS|VmHWM|VmSize' /proc/{pid}/status)")));
    let facts = close(first);
    let ended = MonotonicClock.now().0;
    let told = |kind: &str| facts.markers.iter().filter(|m| m.kind == kind).count();
    let markers = &facts.markers;
    assert_eq!((told("agent_lost"), told("agent_back")), (KILLS, KILLS), "{markers:?}");
    assert_eq!(told("clock_step"), 0, "{markers:?}");
    check_record(&at("first"), &facts, begun, ended);

    // The agent and QEMU find the collector of the next record by themselves.
    let second = collector(&at("second"), &at("collector"));
    await_rows(&second, "memory", 10);
    let facts = close(second);
    check_record(&at("second"), &facts, ended, MonotonicClock.now().0);
    assert!(vm.qemu.quit().unwrap().success());
}

/// Every table has each row once and in order, within the record by the estimate of the guest's clock.
fn check_record(folder: &Path, facts: &RunFacts, begun: i64, ended: i64) {
    let guest = &facts.panels["guest"];
    assert_eq!((guest.program.as_str(), guest.lost.values().sum::<u64>()), ("triptych-agent", 0));
    let clock = guest.clock.as_ref().expect("the guest's clock is estimated");
    eprintln!("guest's clock: {} ± {} ns, {} ppm", clock.offset_ns, clock.uncertainty_ns, clock.drift_ppm);
    // The guest's clock began with the guest, this machine's long before.
    assert!(clock.offset_ns > clock.uncertainty_ns, "{clock:?}");
    let exchanges = read_table(folder, "guest.clock").unwrap();
    assert!(exchanges.rows >= 10, "{} exchanges", exchanges.rows);
    let columns = ["t_ns", "sent_ns", "received_ns"].map(|name| exchanges.i64(name).unwrap());
    for ((t, sent), received) in columns[0].iter().zip(columns[1]).zip(columns[2]) {
        let (t, slack) = (clock.to_collector(*t), clock.uncertainty_ns);
        assert!((sent - slack..=received + slack).contains(&t), "{sent} {t} {received}: {clock:?}");
    }
    let names = tables(folder).unwrap();
    for wanted in ["guest.cpu", "guest.memory", "guest.paging", "guest.lag"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is not among {names:?}");
    }
    for name in names.iter().filter(|name| *name != "guest.clock") {
        let table = read_table(folder, name).unwrap();
        let instants = table.i64("t_ns").unwrap();
        let wrong = instants.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(wrong, None, "{name}: each row once, in order");
        let mapped = [instants[0], instants[instants.len() - 1]].map(|t| clock.to_collector(t));
        let within = begun - clock.uncertainty_ns..=ended + clock.uncertainty_ns;
        assert!(mapped.iter().all(|t| within.contains(t)), "{name}: {mapped:?} not in {within:?}");
    }
    let memory = read_table(folder, "guest.memory").unwrap();
    let total = memory.u64("total_bytes").unwrap()[0];
    assert!((128 << 20..=256 << 20).contains(&total), "the guest has 256 MiB, not {total} bytes");
}
