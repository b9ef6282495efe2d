//! `gpu-drm`: GPUs of Intel and AMD (and whatever else tells it), through DRM fdinfo and `/sys/class/drm`.
//!
//! A driver tells what each client has used; the sums per device are ours. A client shows through several descriptors
//! and processes and counts once. What clients used before the first row is left out of the sums, what an ended client
//! used stays in, and so a sum never goes back. The percentages are of the time since the row before and leave out
//! clients that were found since. Where a driver counts cycles (xe), busy time is their share of that time.

mod card;
mod fdinfo;
mod scan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

use self::card::Card;
use self::fdinfo::{Class, Client, ENGINES, Engine, Key};
use self::scan::{Search, Step};
use super::read_small;
use crate::sampler::{Rows, Sampler, SamplerInfo};

pub(super) const NAME: &str = "gpu-drm";
/// Drivers that tell what clients use; a GPU of another one is taken once a client of it shows counters.
const DRIVERS: [&str; 7] = ["i915", "xe", "amdgpu", "msm", "panfrost", "panthor", "v3d"];
/// Longest fdinfo: the longest that drivers write has some 2 kB.
const LONGEST: u64 = 16 * 1024;
/// A desktop has some 50.
const MAX_CLIENTS: usize = 4096;
/// Descriptors that are kept of one client, should the first be closed.
const MAX_PATHS: usize = 4;
/// More than any machine has.
const MAX_DEVICES: usize = 64;
/// Searches after which an ended client cannot show up again through a descriptor that was not known.
const FORGET_AFTER: u64 = 2;

type Engines = [Engine; ENGINES.len()];

/// A client that was found.
struct Known {
    device: usize,
    paths: Vec<PathBuf>,
    last: Engines,
    local_bytes: u64,
    system_bytes: u64,
}

/// One GPU.
struct Device {
    driver: String,
    pdev: String,
    card: Option<Card>,
    table: Table,
    classes: Vec<Class>,
    busy_ns: [u64; ENGINES.len()],
    /// Shares of the time since the row before, 1 for a group of engines that was busy throughout.
    shares: [f64; ENGINES.len()],
    last: Option<Nanos>,
    gone: bool,
}

/// The sampler `gpu-drm`.
pub struct DrmGpus {
    devices: Vec<Device>,
    /// Cards of drivers that may tell nothing.
    others: Vec<Card>,
    clients: BTreeMap<Key, Known>,
    /// What clients had used that are not found any more, and the number of the search then under way.
    ended: BTreeMap<Key, (Engines, u64)>,
    search: Search,
    searches: u64,
    introduced: usize,
    text: String,
}

impl Device {
    fn new(number: u32, driver: &str, pdev: &str, card: Option<Card>) -> Self {
        let classes = if driver == "amdgpu" {
            vec![
                Class::Render,
                Class::Copy,
                Class::Decode,
                Class::Encode,
                Class::VideoEnhance,
                Class::Compute,
            ]
        } else {
            vec![Class::Render, Class::Copy, Class::Video, Class::VideoEnhance, Class::Compute]
        };
        let classes = [classes, vec![Class::Other]].concat();
        let mut table = Table::new(format!("{NAME}-{number}"), "a GPU, summed over its clients")
            .column("clients", ColumnType::U64, "1", "programs' openings of the GPU that are seen")
            .column("memory_local_bytes", ColumnType::U64, "B", "resident in the GPU's memory, by clients")
            .column(
                "memory_system_bytes",
                ColumnType::U64,
                "B",
                "resident in the machine's memory, by clients; shared buffers count for each",
            );
        for class in &classes {
            let (name, what) = class.words();
            table = table
                .column(
                    &format!("{name}_busy_ns"),
                    ColumnType::U64,
                    "ns",
                    &format!("time in which {what} worked for clients, since the first row"),
                )
                .column(
                    &format!("{name}_percent"),
                    ColumnType::F64,
                    "%",
                    &format!("use of {what} since the row before; 100 is all of a kind"),
                );
        }
        for measure in card.iter().flat_map(|card| &card.measures) {
            table = table.column(measure.column, ColumnType::F64, measure.unit, measure.description);
        }
        let (driver, pdev) = (driver.to_owned(), pdev.to_owned());
        let (busy_ns, shares) = ([0; ENGINES.len()], [0.0; ENGINES.len()]);
        Self { driver, pdev, card, table, classes, busy_ns, shares, last: None, gone: false }
    }

    fn is(&self, key: &Key) -> bool {
        if self.pdev.is_empty() || key.pdev.is_empty() {
            self.driver == key.driver
        } else {
            self.pdev == key.pdev
        }
    }

    /// Adds what a client has used since `last`, of which `time_ns` is the time if the client was known then.
    fn grow(&mut self, last: &mut Engines, now: &Engines, time_ns: Option<i64>) {
        let time = time_ns.filter(|ns| *ns > 0).map(|ns| ns as f64);
        for (place, (last, now)) in last.iter_mut().zip(now).enumerate() {
            // A driver may tell less for a while; the documentation asks to stay with the greater value.
            let grown = |last: &mut Option<u64>, now: Option<u64>| {
                let Some(now) = now else { return 0 };
                now - last.replace(now.max(last.unwrap_or(0))).unwrap_or(0).min(now)
            };
            let capacity = now.capacity.max(1) as f64;
            if now.busy_ns.is_some() {
                let busy = grown(&mut last.busy_ns, now.busy_ns);
                self.busy_ns[place] = self.busy_ns[place].saturating_add(busy);
                if let Some(time) = time {
                    self.shares[place] += busy as f64 / time / capacity;
                }
                continue;
            }
            let total = grown(&mut last.total_cycles, now.total_cycles);
            let cycles = grown(&mut last.cycles, now.cycles);
            if let (Some(time), true) = (time, total > 0) {
                let share = (cycles as f64 / total as f64).min(capacity);
                self.busy_ns[place] = self.busy_ns[place].saturating_add((share * time) as u64);
                self.shares[place] += share / capacity;
            }
        }
    }

    /// The row of now; `clients` is their number and what they hold in local and system memory.
    fn values(&mut self, now: Nanos, clients: [u64; 3], text: &mut String) -> Vec<Value> {
        let mut values = clients.map(Value::U64).to_vec();
        let first = self.last.replace(now).is_none();
        for class in &self.classes {
            let places = (0..ENGINES.len()).filter(|place| self.class_of(*place) == *class);
            let (mut busy, mut share) = (0u64, 0.0);
            for place in places {
                busy = busy.saturating_add(self.busy_ns[place]);
                share += self.shares[place];
            }
            values.extend([Value::U64(busy), Value::F64(if first { f64::NAN } else { 100.0 * share })]);
        }
        self.shares = [0.0; ENGINES.len()];
        if let Some(card) = &mut self.card {
            let sleeps = card.sleeps(text);
            values.extend(
                card.measures
                    .iter_mut()
                    .map(|measure| Value::F64(if sleeps { f64::NAN } else { measure.read(now, text) })),
            );
        }
        values
    }

    /// Looks whether the card is still there.
    fn notice(&mut self, rows: &mut dyn Rows) {
        let Some(card) = &mut self.card else { return };
        let gone = !card.is_there();
        if gone == std::mem::replace(&mut self.gone, gone) {
            return;
        }
        if gone {
            rows.mark("source_gone", &format!("{} is not there any more", self.table.name));
        } else {
            card.reopen();
            self.last = None;
            rows.mark("source_back", &format!("{} is back", self.table.name));
        }
    }

    fn class_of(&self, place: usize) -> Class {
        let class = ENGINES[place].1;
        if self.classes.contains(&class) { class } else { Class::Other }
    }
}

impl Class {
    /// For columns and their descriptions.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Render => ("render", "the 3D engine"),
            Self::Copy => ("copy", "the copy engine"),
            Self::Video => ("video", "the video engines (decoding and encoding)"),
            Self::VideoEnhance => ("video_enhance", "the video enhancement engines"),
            Self::Compute => ("compute", "the compute engines"),
            Self::Decode => ("decode", "the video decoders"),
            Self::Encode => ("encode", "the video encoders"),
            Self::Other => ("other", "engines of other kinds"),
        }
    }
}

impl DrmGpus {
    /// Looks for GPUs below `root`, which is `/` but in tests. Clients are looked for in the first sample.
    pub fn new(root: &Path) -> Self {
        let known = |card: &Card| DRIVERS.contains(&card.driver.as_str());
        let (cards, others): (Vec<Card>, Vec<Card>) = Card::all(root).into_iter().partition(known);
        let device =
            |card: Card| Device::new(card.number, &card.driver.clone(), &card.pdev.clone(), Some(card));
        Self {
            devices: cards.into_iter().map(device).collect(),
            others,
            clients: BTreeMap::new(),
            ended: BTreeMap::new(),
            search: Search::new(root.join("proc")),
            searches: 0,
            introduced: 0,
            text: String::new(),
        }
    }

    /// The device of a client; one that was not known is added once it tells something.
    fn device_of(&mut self, client: &Client) -> Option<usize> {
        if let Some(at) = self.devices.iter().position(|device| device.is(&client.key)) {
            return Some(at);
        }
        let tells = client.engines.iter().any(|e| e.busy_ns.or(e.total_cycles).is_some());
        if !tells || self.devices.len() == MAX_DEVICES {
            return None;
        }
        let Key { driver, pdev, .. } = &client.key;
        let card = self.others.iter().position(|card| card.driver == *driver && card.pdev == *pdev);
        let card = card.map(|at| self.others.remove(at));
        // A card that `/sys` does not show gets a number that none has.
        let taken = self.devices.iter().filter_map(|d| d.table.name.rsplit('-').next()?.parse().ok());
        let free =
            taken.chain(self.others.iter().map(|c| c.number)).max().map_or(0, |n: u32| n.saturating_add(1));
        let number = card.as_ref().map_or(free, |card| card.number);
        self.devices.push(Device::new(number, driver, pdev, card));
        Some(self.devices.len() - 1)
    }

    /// Takes a descriptor that was found.
    fn admit(&mut self, path: PathBuf, client: Client) {
        if let Some(known) = self.clients.get_mut(&client.key) {
            if known.paths.len() < MAX_PATHS && !known.paths.contains(&path) {
                known.paths.push(path);
            }
            return;
        }
        if self.clients.len() == MAX_CLIENTS {
            return;
        }
        let Some(device) = self.device_of(&client) else { return };
        // A client that was lost from sight goes on where it was; one that came since counts whole; what those had used
        // that were there before the first row is not ours to count.
        let mut last = match self.ended.remove(&client.key) {
            Some((engines, _)) => engines,
            None if self.searches == 0 => client.engines,
            None => Engines::default(),
        };
        self.devices[device].grow(&mut last, &client.engines, None);
        let Client { key, local_bytes, system_bytes, .. } = client;
        self.clients.insert(key, Known { device, paths: vec![path], last, local_bytes, system_bytes });
    }

    fn look(&mut self, now: Nanos, rows: &mut dyn Rows) {
        let mut found = Vec::new();
        let step = self.search.step(now, |path| found.push(path));
        for path in found {
            if let Some(client) = read(&path, &mut self.text) {
                self.admit(path, client);
            }
        }
        if let Step::Done(refused) = step {
            self.searches += 1;
            let searches = self.searches;
            self.ended.retain(|_, (_, since)| searches - *since <= FORGET_AFTER);
            let scope = match refused {
                0 => "all processes".into(),
                _ => format!("own processes; {refused} others show only to root"),
            };
            rows.fact(&format!("{NAME}.scope"), &scope);
            self.devices.iter_mut().for_each(|device| device.notice(rows));
        }
    }

    /// Reads every known client once.
    fn follow(&mut self, now: Nanos) {
        let (mut lost, mut changed) = (Vec::new(), Vec::new());
        for (key, known) in &mut self.clients {
            let device = &mut self.devices[known.device];
            let time_ns = device.last.map(|last| now.0 - last.0);
            loop {
                let Some(path) = known.paths.first() else {
                    lost.push(key.clone());
                    break;
                };
                match read(path, &mut self.text) {
                    Some(client) if client.key == *key => {
                        device.grow(&mut known.last, &client.engines, time_ns);
                        (known.local_bytes, known.system_bytes) = (client.local_bytes, client.system_bytes);
                        break;
                    }
                    // The number of the descriptor was given to another client.
                    Some(client) => changed.push((known.paths.remove(0), client)),
                    None => _ = known.paths.remove(0),
                }
            }
        }
        for key in lost {
            if let Some(known) = self.clients.remove(&key)
                && self.ended.len() < MAX_CLIENTS
            {
                self.ended.insert(key, (known.last, self.searches));
            }
        }
        for (path, client) in changed {
            self.admit(path, client);
        }
    }

    fn introduce(&mut self, rows: &mut dyn Rows) {
        for device in &self.devices[self.introduced..] {
            let pci_id = device.card.as_ref().map_or("", |card| &card.pci_id);
            for (fact, value) in
                [("driver", device.driver.as_str()), ("pci", &device.pdev), ("pci_id", pci_id)]
            {
                if !value.is_empty() {
                    rows.fact(&format!("{}.{fact}", device.table.name), value);
                }
            }
        }
        self.introduced = self.devices.len();
    }
}

fn read(path: &Path, text: &mut String) -> Option<Client> {
    read_small(path, LONGEST, text).then(|| Client::parse(text)).flatten()
}

impl Sampler for DrmGpus {
    fn info(&self) -> SamplerInfo {
        let unavailable = if self.devices.is_empty() {
            format!(
                "there is no GPU in /sys/class/drm whose driver tells what its clients use ({}): load its driver, or \
                 pass the GPU through",
                DRIVERS.join(", ")
            )
        } else {
            String::new()
        };
        SamplerInfo {
            name: NAME.into(),
            description: "Engines and memory that each GPU's clients use, its power and clocks.".into(),
            source: "/proc/PID/fdinfo (DRM), /sys/class/drm".into(),
            default: true,
            tables: self.devices.iter().map(|device| device.table.clone()).collect(),
            unavailable,
        }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let now = MonotonicClock.now();
        // A machine without a GPU may get one; until then its processes need not be searched.
        if self.devices.is_empty() && self.others.is_empty() {
            return;
        }
        // First those that are known: their time is that since the row before.
        self.follow(now);
        self.look(now, rows);
        self.introduce(rows);
        let mut sums = vec![[0u64; 3]; self.devices.len()];
        for known in self.clients.values() {
            let [clients, local, system] = &mut sums[known.device];
            *clients += 1;
            *local = local.saturating_add(known.local_bytes);
            *system = system.saturating_add(known.system_bytes);
        }
        for (device, sums) in self.devices.iter_mut().zip(sums) {
            if device.gone {
                continue;
            }
            let values = device.values(now, sums, &mut self.text);
            rows.row(&device.table, now, &values);
        }
    }
}

#[cfg(test)]
mod tests;
