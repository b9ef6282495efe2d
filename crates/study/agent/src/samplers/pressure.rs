//! Pressure stall information: the time in which work waited for a CPU, for memory, for disks, from `/proc/pressure`.

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use super::source::Source;
use super::text::{decimal, lines, number, words};
use super::{Kind, Root, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "pressure",
    default: true,
    target: Target::None,
    open: |root, _| Ok(Box::new(Pressure::new(root))),
};

const DESCRIPTION: &str = "time in which work waited for CPU, memory, disks or interrupts";
/// Resources by the kernel's names, and what is waited for.
const RESOURCES: [(&str, &str); 4] =
    [("cpu", "a CPU"), ("memory", "memory"), ("io", "a disk"), ("irq", "interrupts to be over")];

/// One line of a file: stalled time since boot in microseconds, and the share of the last 10 s in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stall {
    pub(super) total_us: u64,
    avg10: f64,
}

/// The lines `some` and `full` of one file; `None` where the kernel leaves one out.
pub(super) fn parse(text: &[u8]) -> [Option<Stall>; 2] {
    let mut stalls = [None; 2];
    for line in lines(text) {
        let mut words = words(line);
        let slot = match words.next() {
            Some(b"some") => 0,
            Some(b"full") => 1,
            _ => continue,
        };
        let (mut total_us, mut avg10) = (None, None);
        for word in words {
            if let Some(value) = word.strip_prefix(b"total=") {
                total_us = number(value);
            } else if let Some(value) = word.strip_prefix(b"avg10=") {
                avg10 = decimal(value);
            }
        }
        stalls[slot] = total_us.zip(avg10).map(|(total_us, avg10)| Stall { total_us, avg10 });
    }
    stalls
}

/// A file, and which of its lines are columns.
struct Resource {
    source: Source,
    present: [bool; 2],
    last: [Stall; 2],
}

struct Pressure {
    root: Root,
    resources: Vec<Resource>,
    table: Table,
    values: Vec<Value>,
}

impl Pressure {
    fn new(root: &Root) -> Self {
        let mut new = Self {
            root: root.clone(),
            resources: Vec::new(),
            table: Table::new(KIND.name, DESCRIPTION),
            values: Vec::new(),
        };
        new.choose();
        new
    }

    /// Finds out which files and lines the kernel has.
    fn choose(&mut self) {
        for (name, waits_for) in RESOURCES {
            let mut source = Source::whole(self.root.proc(format!("pressure/{name}")));
            let Ok(text) = source.text() else { continue };
            let present = parse(text).map(|stall| stall.is_some());
            for (share, who) in [("some", "some task"), ("full", "every task that was not idle")]
                .into_iter()
                .zip(present)
                .filter_map(|(share, present)| present.then_some(share))
            {
                let table = std::mem::replace(&mut self.table, Table::new("", ""));
                let waited = format!("in which {who} waited for {waits_for}");
                self.table = table
                    .column(
                        &format!("{name}_{share}_us"),
                        ColumnType::U64,
                        "us",
                        &format!("time since boot {waited}"),
                    )
                    .column(
                        &format!("{name}_{share}_avg10_percent"),
                        ColumnType::F64,
                        "%",
                        &format!("share of the last 10 s {waited}, as the kernel averages it every 2 s"),
                    );
            }
            if present.contains(&true) {
                self.resources.push(Resource { source, present, last: Default::default() });
            }
        }
    }
}

impl Sampler for Pressure {
    fn info(&self) -> SamplerInfo {
        let mut info = super::info(&KIND, DESCRIPTION, &self.root.proc("pressure"), vec![self.table.clone()]);
        if self.resources.is_empty() {
            info.tables.clear();
            info.unavailable =
                "the kernel keeps no pressure figures: start it with psi=1 (CONFIG_PSI)".into();
        }
        info
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        if self.resources.is_empty() {
            self.choose();
        }
        self.values.clear();
        let mut any = false;
        for resource in &mut self.resources {
            let found = resource.source.parse(rows, |text| {
                let stalls = parse(text);
                stalls.iter().any(Option::is_some).then_some(stalls)
            });
            any |= found.is_some();
            let stalls = found.unwrap_or_default();
            for ((last, stall), present) in resource.last.iter_mut().zip(stalls).zip(resource.present) {
                *last = stall.unwrap_or(*last);
                if present {
                    self.values.extend([Value::U64(last.total_us), Value::F64(last.avg10)]);
                }
            }
        }
        if any {
            rows.row(&self.table, MonotonicClock.now(), &self.values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture};
    use proptest::prelude::*;

    const CPU: &str = "some avg10=4.32 avg60=2.94 avg300=2.89 total=60063159\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

    #[test]
    fn both_lines_are_read_and_broken_ones_left_out() {
        assert_eq!(
            parse(CPU.as_bytes()),
            [Some(Stall { total_us: 60_063_159, avg10: 4.32 }), Some(Stall::default())]
        );
        for text in ["", "some", "some avg10=x total=1", "some avg10=1.0 total=", "none avg10=1.0 total=1"] {
            assert_eq!(parse(text.as_bytes()), [None, None], "{text}");
        }
    }

    #[test]
    fn only_the_lines_of_this_kernel_are_columns() {
        let irq = "full avg10=1.00 avg60=0.00 avg300=0.00 total=7\n";
        let (_dir, root) = fixture(&[("proc/pressure/cpu", CPU), ("proc/pressure/irq", irq)]);
        let mut pressure = Pressure::new(&root);
        let taken = Taken::of(&mut pressure);
        assert_eq!(taken.count("pressure", "cpu_some_us"), 60_063_159);
        assert_eq!(taken.cell("pressure", "irq_full_avg10_percent"), Value::F64(1.0));
        assert_eq!(taken.rows[0].0.columns.len(), 6);
        assert_eq!(pressure.info().unavailable, "");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in "((some|full) )?[ -~\n]{0,100}") {
            parse(text.as_bytes());
        }
    }
}
