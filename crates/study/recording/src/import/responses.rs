//! What a study of imported runs asks of them: numbers of the usual indicators where the tables have them, and the join
//! of frames by their sizes.

use std::collections::BTreeMap;

use probe::{Column, ColumnType, Table};

use super::Format;
use crate::spec::{Better, Join, Panel, Response, Span, Statistic};

/// Most responses of a study: tables beyond are still there, in `view` and `export`.
const MAX_RESPONSES: usize = 256;

/// Tables seen so far, with the union of their columns.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<(Panel, String), (Format, Vec<Column>)>);

impl Seen {
    pub(crate) fn add(&mut self, panel: Panel, table: &Table, format: Format) {
        let (_, columns) = self.0.entry((panel, table.name.clone())).or_insert_with(|| (format, Vec::new()));
        for column in &table.columns {
            if !columns.iter().any(|c| c.name == column.name) {
                columns.push(column.clone());
            }
        }
    }

    /// Adds what the tables can give to what is asked already.
    pub(crate) fn extend(&self, responses: &mut Vec<Response>, joins: &mut Vec<Join>) {
        let mut made: Vec<(usize, Response)> = Vec::new();
        for ((panel, table), (format, columns)) in &self.0 {
            for column in columns {
                made.extend(of_column(*panel, table, column, *format));
            }
        }
        made.sort_by_key(|(rank, _)| *rank);
        for (_, response) in made {
            if responses.len() < MAX_RESPONSES && !responses.iter().any(|r| r.name == response.name) {
                responses.push(response);
            }
        }
        if !joins.iter().any(|j| j.name == FRAMES) {
            joins.extend(self.join());
        }
    }

    fn column(&self, panel: Panel, name: &str) -> Option<&Column> {
        self.0.get(&(panel, FRAMES.to_owned()))?.1.iter().find(|c| c.name == name)
    }

    /// The join over the panels whose frames have a size.
    fn join(&self) -> Option<Join> {
        let has =
            |panel: Panel, name: &str, kind| self.column(panel, name).is_some_and(|c| c.column_type == kind);
        let parts: Vec<_> = Panel::ALL.into_iter().filter(|p| has(*p, SIZE, ColumnType::U64)).collect();
        if parts.len() < 2 {
            return None;
        }
        let also = parts.iter().filter(|p| has(**p, MM_TIME, ColumnType::U64)).count() > 1;
        let mut spans = Vec::new();
        let mut span = |name: &str, description: &str, from: (Panel, &str), to: (Panel, &str)| {
            if parts.contains(&from.0) && parts.contains(&to.0) {
                spans.push(Span {
                    name: name.into(),
                    description: description.into(),
                    from: (from.0, from.1.into()),
                    to: (to.0, to.1.into()),
                });
            }
        };
        use Panel::{Client, Guest, Host};
        let begin = if has(Guest, BEGIN, ColumnType::I64) { BEGIN } else { T_NS };
        span(
            "latency_ns",
            "From the guest's work on the frame to the client's message of it",
            (Guest, begin),
            (Client, T_NS),
        );
        span(
            "to_host_ns",
            "From the guest's message of the frame to the host's",
            (Guest, T_NS),
            (Host, T_NS),
        );
        span(
            "to_client_ns",
            "From the host's message of the frame to the client's",
            (Host, T_NS),
            (Client, T_NS),
        );
        Some(Join {
            name: FRAMES.into(),
            parts: parts.iter().map(|p| (*p, FRAMES.into())).collect(),
            key: SIZE.into(),
            also: if also { vec![MM_TIME.into()] } else { Vec::new() },
            spans,
        })
    }
}

const FRAMES: &str = "frames";
const SIZE: &str = "size_bytes";
const MM_TIME: &str = "mm_time_ms";
const BEGIN: &str = "time_ns";
const T_NS: &str = crate::cells::T_NS;

/// The usual indicators of `.rec` files, in the order in which they are shown.
#[rustfmt::skip]
const USUAL: [(&str, Statistic, &str, f64, &str, Better); 17] = [
    ("actual_fps", Statistic::Mean, "fps", 1.0, "Hz", Better::Higher),
    ("size_bytes", Statistic::Mean, "frame size", 1e-3, "kB", Better::Neutral),
    ("capture_ns", Statistic::P50, "capture p50", 1e-6, "ms", Better::Lower),
    ("encode_ns", Statistic::P50, "encode p50", 1e-6, "ms", Better::Lower),
    ("encode_ns", Statistic::P95, "encode p95", 1e-6, "ms", Better::Lower),
    ("send_ns", Statistic::P50, "send p50", 1e-6, "ms", Better::Lower),
    ("decode_ns", Statistic::P50, "decode p50", 1e-6, "ms", Better::Lower),
    ("decode_ns", Statistic::P95, "decode p95", 1e-6, "ms", Better::Lower),
    ("cpu_user_percent", Statistic::Mean, "CPU user", 1.0, "%", Better::Lower),
    ("cpu_system_percent", Statistic::Mean, "CPU system", 1.0, "%", Better::Lower),
    ("idle_percent", Statistic::Mean, "CPU idle", 1.0, "%", Better::Neutral),
    ("queue", Statistic::Max, "longest queue", 1.0, "frames", Better::Lower),
    ("queue_before", Statistic::Max, "longest queue before", 1.0, "frames", Better::Lower),
    ("in_queue_ns", Statistic::P95, "in queue p95", 1e-6, "ms", Better::Lower),
    ("render_percent", Statistic::Mean, "GPU render", 1.0, "%", Better::Lower),
    ("video_percent", Statistic::Mean, "GPU video", 1.0, "%", Better::Lower),
    ("free_bytes", Statistic::Mean, "free memory", 1e-6, "MB", Better::Neutral),
];

/// Responses of one column, with their rank in the order of tables.
fn of_column(panel: Panel, table: &str, column: &Column, format: Format) -> Vec<(usize, Response)> {
    let make = |rank, suffix: &str, label: String, statistic, scale, unit: &str, better| {
        // Frames, and a process of the panel's own, need no name of a table.
        let plain = table == FRAMES || table.ends_with("-pid");
        let of = if plain { panel.name().to_owned() } else { format!("{panel}_{table}") };
        let response = Response {
            name: format!("{of}_{suffix}"),
            label,
            table: format!("{panel}.{table}"),
            column: column.name.clone(),
            statistic,
            scale,
            unit: unit.into(),
            better,
        };
        (rank, response)
    };
    if format == Format::Rec {
        let usual = USUAL.iter().enumerate().filter(|(_, row)| row.0 == column.name);
        return usual
            .map(|(rank, (_, statistic, label, scale, unit, better))| {
                let stem = label.to_ascii_lowercase().replace(' ', "_");
                make(rank, &stem, format!("{panel} {label}"), *statistic, *scale, unit, *better)
            })
            .collect();
    }
    // Numbers of anybody's: their mean, in their own unit; numbered words and series have none.
    if column.unit.is_empty()
        && (column.description.starts_with("which ") || column.column_type == ColumnType::Bool)
    {
        return Vec::new();
    }
    let better = match column.unit.as_str() {
        "s" | "ms" | "µs" | "ns" => Better::Lower,
        _ => Better::Neutral,
    };
    let suffix = column.name.clone();
    let label = if table == "results" { column.name.clone() } else { format!("{table} {}", column.name) };
    vec![make(USUAL.len(), &suffix, label, Statistic::Mean, 1.0, &column.unit, better)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use probe::ColumnType::{F64, I64, U64};

    #[test]
    fn frames_with_a_size_are_joined_and_give_the_usual_indicators() {
        let mut seen = Seen::default();
        let guest =
            Table::new("frames", "").column("size_bytes", U64, "B", "").column("encode_ns", I64, "ns", "");
        let client =
            Table::new("frames", "").column("size_bytes", U64, "B", "").column("mm_time_ms", U64, "ms", "");
        seen.add(Panel::Guest, &guest, Format::Rec);
        let (mut responses, mut joins) = (Vec::new(), Vec::new());
        seen.extend(&mut responses, &mut joins);
        assert!(joins.is_empty(), "one panel joins with nothing");
        seen.add(Panel::Client, &client, Format::Rec);
        seen.add(
            Panel::Client,
            &Table::new("client-pid", "").column("cpu_user_percent", F64, "%", ""),
            Format::Rec,
        );
        seen.extend(&mut responses, &mut joins);
        let names: Vec<_> = responses.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "guest_frame_size",
                "guest_encode_p50",
                "guest_encode_p95",
                "client_frame_size",
                "client_cpu_user"
            ]
        );
        assert_eq!(joins[0].parts.len(), 2);
        assert_eq!(joins[0].spans.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["latency_ns"]);
        assert!(joins[0].also.is_empty(), "only one of the two has it");
    }

    #[test]
    fn any_number_of_a_results_tree_can_be_asked_for() {
        let mut seen = Seen::default();
        let table = Table::new("results", "").column("elapsed_s", F64, "s", "");
        seen.add(Panel::Host, &table, Format::Results);
        let (mut responses, mut joins) = (Vec::new(), Vec::new());
        seen.extend(&mut responses, &mut joins);
        assert_eq!(
            (responses[0].name.as_str(), responses[0].better),
            ("host_results_elapsed_s", Better::Lower)
        );
    }
}
