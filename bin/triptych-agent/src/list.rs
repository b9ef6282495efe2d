//! `triptych-agent list`.

use std::io::{Write, stdout};
use std::time::Duration;

use agent::catalogue;
use agent::sampler::{Rows, Sampler, SamplerInfo};
use probe::{Table, Value};
use serde::Serialize;
use units::Nanos;

use crate::Exit;
use crate::options;

/// Samples from which the cost is taken.
const TRIES: usize = 5;

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    info: SamplerInfo,
    /// Median CPU time of this thread for one sample, microseconds; absent where nothing was sampled.
    cost_us: Option<f64>,
    /// Bytes of one sample before compression.
    bytes: u64,
}

pub(crate) fn list(options: &options::List) -> anyhow::Result<Exit> {
    let mut samplers = if options.sampling.no_defaults { Vec::new() } else { catalogue::all() };
    for choice in &options.sampling.samplers {
        samplers.push(choice.open()?);
    }
    let entries: Vec<_> = samplers.iter_mut().map(|s| entry(s.as_mut())).collect();
    let mut out = stdout();
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&entries)?)?;
        return Ok(Exit::Success);
    }
    for Entry { info, cost_us, bytes } in &entries {
        let default = if info.default { "  (default)" } else { "" };
        writeln!(out, "{}{default}\n    {}\n    source: {}", info.name, info.description, info.source)?;
        if let Some(cost) = cost_us {
            writeln!(out, "    cost:   {cost:.0} µs of CPU and {bytes} B a sample")?;
        }
        if !info.unavailable.is_empty() {
            writeln!(out, "    not here: {}", info.unavailable)?;
        }
        for table in &info.tables {
            let columns: Vec<_> = table
                .columns
                .iter()
                .map(|c| if c.unit.is_empty() { c.name.clone() } else { format!("{} [{}]", c.name, c.unit) })
                .collect();
            writeln!(out, "    {}: {}", table.name, columns.join(", "))?;
        }
    }
    Ok(Exit::Success)
}

fn entry(sampler: &mut dyn Sampler) -> Entry {
    let info = sampler.info();
    let mut counted = Counted::default();
    let mut costs = Vec::new();
    if info.unavailable.is_empty() {
        for _ in 0..TRIES {
            counted.bytes = 0;
            let before = cpu_time();
            sampler.sample(&mut counted);
            costs.push(cpu_time().saturating_sub(before).as_secs_f64() * 1e6);
        }
    }
    costs.sort_by(f64::total_cmp);
    Entry { info, cost_us: costs.get(TRIES / 2).copied(), bytes: counted.bytes }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[derive(Default)]
struct Counted {
    bytes: u64,
}

impl Rows for Counted {
    fn row(&mut self, _: &Table, _: Nanos, values: &[Value]) {
        self.bytes += 8 * (values.len() as u64 + 1);
    }

    fn mark(&mut self, _: &str, _: &str) {}

    fn fact(&mut self, _: &str, _: &str) {}
}
