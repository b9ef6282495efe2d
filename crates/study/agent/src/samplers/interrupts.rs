//! Interrupts by number and kind, from `/proc/interrupts`, summed over the cores.
//!
//! The busiest when the sampler is opened have a column each; all others are in `others`. Not a default: the kernel
//! writes a number for each core and interrupt, which costs a machine of many cores more than everything else together.

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use super::listed::Listed;
use super::source::Source;
use super::text::{lines, number, words};
use super::{Kind, Root, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "interrupts",
    default: false,
    target: Target::None,
    open: |root, _| Ok(Box::new(Interrupts::new(root))),
};

const DESCRIPTION: &str = "interrupts since boot by number and kind, all cores";
/// Interrupts that have a column of their own.
const BUSIEST: usize = 60;
/// Most interrupts that are told apart when the busiest are chosen.
const MAX_INTERRUPTS: usize = 8192;

/// One line: the interrupt's number or kind, its sum over the cores, and what the kernel says of it.
fn parse_line(line: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, mut rest) = (line[..colon].trim_ascii(), &line[colon + 1..]);
    let (mut sum, mut any) = (0u64, false);
    loop {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let Some(count) = number(&rest[..end]) else { break };
        sum = sum.saturating_add(count);
        any = true;
        rest = &rest[end..];
    }
    (any && !name.is_empty()).then_some((name, sum, rest.trim_ascii()))
}

/// A column's name: `irq36_virtio1_req_0`, `loc`.
fn column_name(name: &[u8], description: &[u8]) -> String {
    let mut out = String::new();
    if number(name).is_some() {
        out.push_str("irq");
    }
    let device = words(description).last().filter(|_| number(name).is_some()).unwrap_or_default();
    let separator = if device.is_empty() { &b""[..] } else { b"_" };
    for byte in [name, separator, device].concat() {
        let byte = byte.to_ascii_lowercase();
        out.push(if byte.is_ascii_lowercase() || byte.is_ascii_digit() { byte.into() } else { '_' });
    }
    out.truncate(probe::MAX_NAME);
    out
}

struct Interrupts {
    source: Source,
    table: Table,
    /// Each interrupt's column, if it has one.
    list: Listed<Option<usize>>,
    counts: Vec<u64>,
    values: Vec<Value>,
}

impl Interrupts {
    fn new(root: &Root) -> Self {
        let mut new = Self {
            source: Source::new(root.proc("interrupts")),
            table: Table::new(KIND.name, DESCRIPTION),
            list: Listed::new(BUSIEST),
            counts: Vec::new(),
            values: Vec::new(),
        };
        new.choose();
        new
    }

    /// Finds out which are the busiest.
    fn choose(&mut self) {
        let Ok(text) = self.source.text() else { return };
        let mut found: Vec<_> = lines(text).filter_map(parse_line).take(MAX_INTERRUPTS).collect();
        if found.is_empty() {
            return;
        }
        // In the kernel's order again once the busiest are chosen.
        let mut counts: Vec<u64> = found.iter().map(|line| line.1).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let least = counts.get(BUSIEST - 1).copied().unwrap_or(0);
        found.retain(|line| line.1 >= least);
        found.truncate(BUSIEST);
        let mut table = Table::new(KIND.name, DESCRIPTION);
        for (name, _, description) in found {
            let mut column = column_name(name, description);
            if column == "others" || table.columns.iter().any(|c| c.name == column) {
                column = format!("line{}_{}", table.columns.len(), column);
                column.truncate(probe::MAX_NAME);
            }
            let said = String::from_utf8_lossy(description);
            let description = format!("interrupt {} since boot: {said}", String::from_utf8_lossy(name));
            let at = table.columns.len();
            if self.list.seen(name, |_| Some(at)).is_some() {
                table = table.column(&column, ColumnType::U64, "1", &description);
            }
        }
        self.table = table.column("others", ColumnType::U64, "1", "all other interrupts since boot");
        self.counts = vec![0; self.table.columns.len()];
    }
}

impl Sampler for Interrupts {
    fn info(&self) -> SamplerInfo {
        let tables = if self.counts.is_empty() { Vec::new() } else { vec![self.table.clone()] };
        super::info(&KIND, DESCRIPTION, self.source.path(), tables)
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        if self.counts.is_empty() {
            self.choose();
        }
        let (list, counts) = (&mut self.list, &mut self.counts);
        let found = self.source.parse(rows, |text| {
            let others = counts.len().checked_sub(1)?;
            counts[others] = 0;
            list.begin();
            let mut any = false;
            for (name, count, _) in lines(text).filter_map(parse_line) {
                any = true;
                // Full, the list knows the busiest alone.
                match list.seen(name, |_| None) {
                    Some(Some(at)) => counts[*at] = count,
                    _ => counts[others] = counts[others].saturating_add(count),
                }
            }
            any.then_some(())
        });
        if found.is_some() {
            self.values.clear();
            self.values.extend(self.counts.iter().map(|count| Value::U64(*count)));
            rows.row(&self.table, MonotonicClock.now(), &self.values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture, write};
    use proptest::prelude::*;
    use std::fmt::Write;

    const HEAD: &str = "           CPU0       CPU1       \n";

    #[test]
    fn a_line_is_summed_over_the_cores() {
        for (line, expected) in [
            (
                " 36:          5     130317 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0",
                Some(("36", 130_322)),
            ),
            ("LOC:     224226     235334   Local timer interrupts", Some(("LOC", 459_560))),
            ("ERR:          0", Some(("ERR", 0))),
            ("           CPU0       CPU1       ", None),
            ("12: x", None),
            (": 1", None),
            ("", None),
        ] {
            let found = parse_line(line.as_bytes());
            let found = found.map(|(name, sum, _)| (std::str::from_utf8(name).unwrap(), sum));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn columns_are_named_after_the_device() {
        for (name, description, expected) in [
            ("36", "PCI-MSIX-0000:00:02.0 1-edge virtio1-req.0", "irq36_virtio1_req_0"),
            ("LOC", "Local timer interrupts", "loc"),
            ("9", "", "irq9"),
        ] {
            assert_eq!(column_name(name.as_bytes(), description.as_bytes()), expected);
        }
    }

    #[test]
    fn the_busiest_have_columns_and_the_rest_is_summed() {
        let mut text = HEAD.to_owned();
        for irq in 0..100u64 {
            writeln!(text, "{irq:3}: {irq} {irq} dev{irq}").unwrap();
        }
        let (dir, root) = fixture(&[("proc/interrupts", &text)]);
        let mut interrupts = Interrupts::new(&root);
        let taken = Taken::of(&mut interrupts);
        assert_eq!(taken.rows[0].0.columns.len(), BUSIEST + 1);
        assert_eq!(taken.count("interrupts", "irq99_dev99"), 198);
        assert_eq!(taken.count("interrupts", "others"), (0..40).sum::<u64>() * 2);
        write(dir.path(), "proc/interrupts", &format!("{text}200: 7 1 new\n"));
        assert_eq!(Taken::of(&mut interrupts).count("interrupts", "others"), (0..40).sum::<u64>() * 2 + 8);
    }

    proptest! {
        #[test]
        fn any_text_gives_valid_tables(text in "([ -~]{0,12}: [0-9]{1,3} [ -~]{0,80}\n){0,90}") {
            let (_dir, root) = fixture(&[("proc/interrupts", &text)]);
            Taken::of(&mut Interrupts::new(&root));
        }
    }
}
