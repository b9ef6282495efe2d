//! `qmp`: a virtual machine, as QEMU's monitor tells.
//!
//! Each sample asks in one go and waits for the answers no longer than [`PATIENCE`]. What is late is read in a later
//! sample, in which nothing is waited for; a stopped QEMU costs one wait. QEMU speaks with one QMP client at a time: it
//! needs a monitor of its own (`-qmp unix:PATH,server=on,wait=off`).

mod answers;
mod connection;
mod tables;
mod vcpu;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use probe::{Table, Value};
use serde::de::DeserializeOwned;
use units::{Clock, MonotonicClock, Nanos};

use self::answers::{Answer, Balloon, Block, Cpu, Elements, Greeting, Line, Name, SpiceState, Status};
use self::connection::{Broken, Connection};
use super::{RETRY, target};
use crate::devices::{SamplerError, table_part};
use crate::sampler::{PATIENCE, Rows, Sampler, SamplerInfo};

pub(super) const NAME: &str = "qmp";
pub(super) const EXAMPLE: &str = "unix:/run/vm/qmp.sock";
/// Time to stay away from a peer that breaks the protocol.
const OFFENDED: Duration = Duration::from_secs(30);
/// Rounds between two questions for what hardly changes: vCPUs, and what QEMU has refused.
const SELDOM: u64 = 10;
/// Events that are marked in one sample; more are a flood.
const MAX_EVENTS: usize = 16;
/// Events that a person wants to see beside her curves. Others come often (`RTC_CHANGE`) or tell nothing here.
const EVENTS: [&str; 18] = [
    "BALLOON_CHANGE",
    "BLOCK_IO_ERROR",
    "BLOCK_JOB_COMPLETED",
    "DEVICE_DELETED",
    "GUEST_CRASHLOADED",
    "GUEST_PANICKED",
    "MIGRATION",
    "POWERDOWN",
    "RESET",
    "RESUME",
    "SHUTDOWN",
    "SPICE_CONNECTED",
    "SPICE_DISCONNECTED",
    "STOP",
    "SUSPEND",
    "SUSPEND_DISK",
    "WAKEUP",
    "WATCHDOG",
];

/// What is asked; the number is the id of the question.
const COMMANDS: [&str; 6] =
    ["query-status", "query-blockstats", "query-balloon", "query-spice", "query-cpus-fast", "query-name"];
const STATUS: usize = 0;
const BLOCKSTATS: usize = 1;
const BALLOON: usize = 2;
const SPICE: usize = 3;
const CPUS: usize = 4;
const MACHINE_NAME: usize = 5;
/// The id of `qmp_capabilities`.
const NEGOTIATION: u64 = 1000;

/// Where the conversation is.
enum State {
    /// Not connected, and when to try again.
    Away(Option<Instant>),
    /// QEMU has not said its first line, or not yet agreed.
    Greeting(Connection),
    /// Questions may be asked.
    Ready(Connection),
}

/// Questions under way, and what has been answered.
#[derive(Default)]
struct Round {
    asked_at: Nanos,
    open: Vec<usize>,
    status: Option<Status>,
    balloon: Option<Balloon>,
    spice: Option<SpiceState>,
    blocks: Vec<Block>,
}

/// The sampler `qmp`.
pub struct Qmp {
    path: PathBuf,
    prefix: String,
    proc: PathBuf,
    state: State,
    /// Whether `source_gone` has been said.
    gone: bool,
    connections: u64,
    round: Option<Round>,
    rounds: u64,
    late: bool,
    refused: [bool; COMMANDS.len()],
    status: String,
    main: Table,
    blocks: BTreeMap<String, Table>,
    cpus: BTreeMap<u32, (Table, PathBuf)>,
    text: String,
}

/// What it is, without a target.
pub(super) fn description() -> SamplerInfo {
    SamplerInfo {
        name: NAME.into(),
        description: "A virtual machine: state, disks, balloon, vCPU threads and SPICE clients.".into(),
        source: "QMP query-status, -blockstats, -balloon, -spice, -cpus-fast; /proc/PID/task/TID/schedstat"
            .into(),
        default: false,
        tables: vec![tables::main(NAME), tables::block(NAME, "disk0"), tables::cpu(NAME, 0)],
        unavailable: format!(
            "it needs the socket of a QMP monitor: {NAME}={EXAMPLE}, with QEMU started with -qmp {EXAMPLE},server=on,wait=off"
        ),
    }
}

impl Qmp {
    /// For a QEMU whose monitor listens at `target`: a path, `unix:PATH`, and perhaps `,name=NAME`, which table names
    /// then begin with. QEMU need not run yet.
    ///
    /// # Errors
    /// The target is not of that form.
    pub fn new(target: &str) -> Result<Self, SamplerError> {
        let parts = target::parts(NAME, target)?;
        let path = parts.place.strip_prefix("unix:").unwrap_or(parts.place);
        let wrong =
            |reason: &str| SamplerError::Target { name: NAME, target: target.into(), reason: reason.into() };
        // sockaddr_un has room for 108 bytes.
        if path.is_empty() || path.len() > 107 || path.contains('\0') {
            return Err(wrong("a socket's path has 1 to 107 bytes: unix:/run/vm/qmp.sock"));
        }
        if !path.contains('/') && path.contains(':') {
            return Err(wrong("only Unix sockets are spoken to: unix:/run/vm/qmp.sock"));
        }
        Ok(Self {
            path: path.into(),
            main: tables::main(&parts.prefix),
            prefix: parts.prefix,
            proc: "/proc".into(),
            state: State::Away(None),
            gone: false,
            connections: 0,
            round: None,
            rounds: 0,
            late: false,
            refused: [false; COMMANDS.len()],
            status: String::new(),
            blocks: BTreeMap::new(),
            cpus: BTreeMap::new(),
            text: String::new(),
        })
    }

    fn advance(&mut self, rows: &mut dyn Rows) -> Result<(), Broken> {
        let deadline = Instant::now() + if self.late { Duration::ZERO } else { PATIENCE };
        if let State::Away(again) = self.state {
            if again.is_some_and(|again| Instant::now() < again) {
                return Ok(());
            }
            self.state = State::Greeting(Connection::open(&self.path)?);
        }
        let mut events = 0;
        loop {
            if matches!(self.state, State::Ready(_)) && self.round.is_none() {
                self.ask()?;
            }
            let (State::Greeting(connection) | State::Ready(connection)) = &mut self.state else {
                return Ok(());
            };
            let received = connection.receive();
            while self.take_line(rows, &mut events)? {}
            received?;
            if self.round.as_ref().is_some_and(|round| round.open.is_empty()) {
                self.late = false;
                self.finish(rows);
                return Ok(());
            }
            let (State::Greeting(connection) | State::Ready(connection)) = &self.state else { return Ok(()) };
            let turn = matches!(self.state, State::Ready(_)) && self.round.is_none();
            // The clock is looked at too: a peer that sends without end would never be waited for.
            if !turn && (Instant::now() >= deadline || !connection.wait(deadline)) {
                if !std::mem::replace(&mut self.late, true) {
                    rows.mark("late", &format!("{}: QEMU does not answer within {PATIENCE:?}", self.prefix));
                }
                return Ok(());
            }
        }
    }

    /// Handles the next line; false when there is none.
    fn take_line(&mut self, rows: &mut dyn Rows, events: &mut usize) -> Result<bool, Broken> {
        let (State::Greeting(connection) | State::Ready(connection)) = &mut self.state else {
            return Ok(false);
        };
        let Some(line) = connection.next_line()? else { return Ok(false) };
        if line.trim_ascii().is_empty() {
            return Ok(true);
        }
        let parsed: Line = serde_json::from_slice(line).map_err(|_| Broken::NotQmp)?;
        if let Some(event) = &parsed.event {
            if let Some(known) = EVENTS.iter().find(|known| *known == event)
                && *events < MAX_EVENTS
            {
                *events += 1;
                rows.mark("qemu", &format!("{}: {known}", self.prefix));
            }
        } else if let Some(greeting) = &parsed.greeting {
            self.greet(greeting, rows)?;
        } else if parsed.id == Some(NEGOTIATION) {
            if parsed.error.is_some() {
                return Err(Broken::NotQmp);
            }
            self.agreed(rows);
        } else if let (Some(id), Some(round)) = (parsed.id, &mut self.round)
            && let Some(at) = round.open.iter().position(|open| *open as u64 == id)
        {
            let question = round.open.swap_remove(at);
            if let Some(refusal) = &parsed.error {
                if !std::mem::replace(&mut self.refused[question], true) {
                    tracing::debug!("{} refuses {}: {}", self.prefix, COMMANDS[question], refusal.desc);
                }
            } else if parsed.answer.is_some() {
                self.refused[question] = false;
                let line = line.to_vec();
                self.answered(question, &line, rows)?;
            }
        }
        Ok(true)
    }

    fn greet(&mut self, greeting: &Greeting, rows: &mut dyn Rows) -> Result<(), Broken> {
        let State::Greeting(connection) = &mut self.state else { return Err(Broken::NotQmp) };
        let version = &greeting.version.qemu;
        let text = format!("{}.{}.{}", version.major, version.minor, version.micro);
        rows.fact(&format!("{}.version", self.prefix), &text);
        connection.send(&format!("{{\"execute\": \"qmp_capabilities\", \"id\": {NEGOTIATION}}}\n"))
    }

    fn agreed(&mut self, rows: &mut dyn Rows) {
        if let State::Greeting(connection) = std::mem::replace(&mut self.state, State::Away(None)) {
            self.state = State::Ready(connection);
        }
        self.connections += 1;
        if std::mem::take(&mut self.gone) {
            rows.mark("source_back", &format!("{}: QEMU answers; its counters may begin anew", self.prefix));
        }
    }

    fn ask(&mut self) -> Result<(), Broken> {
        let State::Ready(connection) = &mut self.state else { return Ok(()) };
        let seldom = self.rounds.is_multiple_of(SELDOM);
        self.rounds += 1;
        let hardly_changes = |question: usize| matches!(question, CPUS | MACHINE_NAME);
        let open: Vec<usize> = (0..COMMANDS.len())
            .filter(|question| seldom || !(hardly_changes(*question) || self.refused[*question]))
            .collect();
        let text: String = open
            .iter()
            .map(|question| format!("{{\"execute\": \"{}\", \"id\": {question}}}\n", COMMANDS[*question]))
            .collect();
        self.round = Some(Round { asked_at: MonotonicClock.now(), open, ..Round::default() });
        connection.send(&text)
    }

    fn answered(&mut self, question: usize, line: &[u8], rows: &mut dyn Rows) -> Result<(), Broken> {
        let Some(round) = &mut self.round else { return Ok(()) };
        match question {
            STATUS => round.status = Some(answer(line)?),
            BLOCKSTATS => round.blocks = answer::<Elements<Block>>(line)?.0,
            BALLOON => round.balloon = Some(answer(line)?),
            SPICE => round.spice = Some(answer(line)?),
            CPUS => {
                let Elements(cpus) = answer::<Elements<Cpu>>(line)?;
                self.find_threads(&cpus);
            }
            _ => {
                let Name { name } = answer(line)?;
                if !name.is_empty() {
                    rows.fact(&format!("{}.name", self.prefix), &name.chars().take(200).collect::<String>());
                }
            }
        }
        Ok(())
    }

    fn find_threads(&mut self, cpus: &[Cpu]) {
        let State::Ready(connection) = &self.state else { return };
        let peer = connection.peer();
        self.cpus.clear();
        for cpu in cpus {
            let (Ok(index), Ok(thread)) = (u32::try_from(cpu.cpu_index), u32::try_from(cpu.thread_id)) else {
                continue;
            };
            if let Some(path) = vcpu::schedstat(&self.proc, thread, peer) {
                self.cpus.insert(index, (tables::cpu(&self.prefix, index), path));
            }
        }
    }

    /// Gives the rows of a round that is answered.
    fn finish(&mut self, rows: &mut dyn Rows) {
        let Some(round) = self.round.take() else { return };
        let at = MonotonicClock.now();
        let status = round.status.unwrap_or_default();
        if status.status != self.status && !status.status.is_empty() {
            self.status = status.status.chars().take(40).collect();
            rows.fact(&format!("{}.status", self.prefix), &self.status);
        }
        let spice = round.spice.unwrap_or_default().channels.0;
        let clients: std::collections::BTreeSet<i64> = spice.iter().map(|c| c.connection_id).collect();
        rows.row(
            &self.main,
            at,
            &[
                Value::Bool(status.running),
                Value::U64(round.balloon.map_or(0, |b| positive(b.actual))),
                Value::U64(clients.len() as u64),
                Value::U64(spice.len() as u64),
                Value::U64((at.0 - round.asked_at.0).max(0) as u64),
            ],
        );
        for block in &round.blocks {
            let raw =
                [&block.device, &block.qdev, &block.node_name].into_iter().find(|name| !name.is_empty());
            let Some(raw) = raw else { continue };
            let part = table_part(raw, 32);
            let table = self.blocks.entry(part.clone()).or_insert_with(|| {
                rows.fact(
                    &format!("{}.block.{part}", self.prefix),
                    &raw.chars().take(200).collect::<String>(),
                );
                tables::block(&self.prefix, &part)
            });
            rows.row(table, at, &tables::block_values(&block.stats));
        }
        // A QEMU that makes up names without end does not fill the memory.
        if self.blocks.len() > 1024 {
            self.blocks.clear();
        }
        for (table, path) in self.cpus.values() {
            if let Some([cpu_ns, delay_ns]) = vcpu::read(path, &mut self.text) {
                rows.row(table, MonotonicClock.now(), &[Value::U64(cpu_ns), Value::U64(delay_ns)]);
            }
        }
    }
}

fn positive(number: i64) -> u64 {
    number.max(0) as u64
}

fn answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, Broken> {
    let Answer { answer } = serde_json::from_slice(line).map_err(|_| Broken::NotQmp)?;
    Ok(answer)
}

impl Sampler for Qmp {
    fn info(&self) -> SamplerInfo {
        let path: &Path = &self.path;
        let mut tables = vec![self.main.clone()];
        tables.extend(self.blocks.values().cloned());
        tables.extend(self.cpus.values().map(|(table, _)| table.clone()));
        let unavailable = match &self.state {
            State::Away(_) if !path.exists() => format!(
                "there is no socket {}: start QEMU with -qmp unix:{0},server=on,wait=off",
                path.display()
            ),
            _ => String::new(),
        };
        SamplerInfo { tables, unavailable, ..description() }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let Err(broken) = self.advance(rows) else { return };
        let away = if matches!(broken, Broken::TooLong | Broken::NotQmp) { OFFENDED } else { RETRY };
        self.state = State::Away(Some(Instant::now() + away));
        (self.round, self.rounds, self.late) = (None, 0, false);
        self.refused = [false; COMMANDS.len()];
        self.status.clear();
        self.cpus.clear();
        if !std::mem::replace(&mut self.gone, true) {
            rows.mark("source_gone", &format!("{}: QEMU at {}: {broken}", self.prefix, self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests;
