//! Instants on one clock: which columns are instants, and how they get onto the collector's.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};

use super::Clock;
use crate::clock::{Estimator, Exchange};
use crate::facts::{ClockFacts, RunFacts};
use crate::files::T_NS;
use crate::reader::read_table;
use crate::spec::Panel;

/// The clock of each panel. Where `run.toml` has none yet (the run is under way, or its collector was killed), it is
/// estimated from the exchanges recorded so far.
pub fn clocks(run_dir: &Path, facts: &RunFacts) -> BTreeMap<Panel, ClockFacts> {
    let known = |panel: Panel| facts.panels.get(panel.name()).and_then(|p| p.clock.clone());
    let clock = |panel| Some((panel, known(panel).or_else(|| estimated(run_dir, panel))?));
    Panel::ALL.into_iter().filter_map(clock).collect()
}

fn estimated(run_dir: &Path, panel: Panel) -> Option<ClockFacts> {
    let table = read_table(run_dir, &format!("{panel}.clock")).ok()?;
    let columns = (table.i64(T_NS).ok()?, table.i64("sent_ns").ok()?, table.i64("received_ns").ok()?);
    let mut estimator = Estimator::new();
    for ((panel_ns, sent_ns), received_ns) in columns.0.iter().zip(columns.1).zip(columns.2) {
        estimator.add(Exchange { sent_ns: *sent_ns, panel_ns: *panel_ns, received_ns: *received_ns });
    }
    estimator.estimate()
}

/// The panel of a table, by its name.
pub(super) fn panel_of(table: &str) -> Option<Panel> {
    let (panel, _) = table.split_once('.')?;
    Panel::ALL.into_iter().find(|p| p.name() == panel)
}

pub(super) fn text<'a>(field: &'a Field, key: &str) -> &'a str {
    field.metadata().get(key).map_or("", String::as_str)
}

/// True for a column of instants, by the rule of the format: its name ends in `_ns`, its description says so, and it
/// holds integers.
pub(super) fn is_instant(field: &Field) -> bool {
    let says = || {
        let words = text(field, "description").split(|c: char| !c.is_alphabetic());
        words.into_iter().any(|word| word.eq_ignore_ascii_case("instant"))
    };
    field.data_type().is_integer()
        && text(field, "unit") == "ns"
        && (field.name() == T_NS || (field.name().ends_with("_ns") && says()))
}

/// How a table's instants get onto the clock asked for.
pub(super) struct Alignment {
    clock: Option<ClockFacts>,
    /// Positions of the columns that change.
    converted: Vec<usize>,
    /// The columns, with `clock` and `uncertainty_ns` in the metadata of instants.
    pub(super) schema: SchemaRef,
}

impl Alignment {
    /// For a table of this name. Instants of a panel whose clock is not known stay on it, and their metadata say so.
    pub(super) fn new(
        table: &str,
        schema: &Schema,
        clocks: &BTreeMap<Panel, ClockFacts>,
        wanted: Clock,
    ) -> Self {
        let panel = panel_of(table);
        let clock = panel.filter(|_| wanted == Clock::Collector).and_then(|p| clocks.get(&p)).cloned();
        let mut converted = Vec::new();
        let of_panel = panel.map_or(String::new(), |p| p.name().to_owned());
        let fields = schema.fields().iter().enumerate().map(|(i, field)| {
            // Derived tables and the exchanges' own columns are on the collector's clock from the start.
            let already =
                panel.is_none() || text(field, "description").to_lowercase().contains("collector's clock");
            let is_exchange = table.ends_with(".clock") && field.name().ends_with("_ns") && i > 0;
            let (of, uncertainty) = match (&clock, is_instant(field)) {
                (_, _) if is_exchange => ("collector", None),
                (_, false) => return Field::clone(field),
                (_, true) if already => ("collector", None),
                (Some(clock), true) => {
                    converted.push(i);
                    ("collector", Some(clock.worst_uncertainty_ns()))
                }
                (None, true) => (of_panel.as_str(), None),
            };
            let mut metadata: HashMap<String, String> = field.metadata().clone().into();
            metadata.insert("clock".into(), of.into());
            if let Some(ns) = uncertainty {
                metadata.insert("uncertainty_ns".into(), ns.to_string());
                if let Some(description) = metadata.get_mut("description") {
                    *description =
                        description.replace("the panel's monotonic clock", "the collector's clock");
                }
            }
            Field::clone(field).with_metadata(metadata)
        });
        let fields: Vec<_> = fields.collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Self { clock, converted, schema }
    }

    /// A batch with its instants converted. An instant of 0 in a further column means *never* and stays 0.
    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = batch.columns().to_vec();
        if let Some(clock) = &self.clock {
            for i in &self.converted {
                if let Some(column) = columns.get_mut(*i) {
                    *column = convert(column, clock, *i == 0);
                }
            }
        }
        RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)
    }
}

fn convert(column: &ArrayRef, clock: &ClockFacts, is_first: bool) -> ArrayRef {
    let to = |t: i64| if t == 0 && !is_first { 0 } else { clock.to_collector(t) };
    if let Some(array) = column.as_primitive_opt::<Int64Type>() {
        Arc::new(array.unary::<_, Int64Type>(to))
    } else if let Some(array) = column.as_primitive_opt::<UInt64Type>() {
        let to = |t: u64| i64::try_from(t).ok().and_then(|t| u64::try_from(to(t)).ok()).unwrap_or(t);
        Arc::new(array.unary::<_, UInt64Type>(to))
    } else {
        Arc::clone(column)
    }
}

/// An instant of a row on the clock of its table, `None` for *never* and for a missing one.
pub(super) fn instant(column: &dyn Array, row: usize, is_first: bool) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    let t = match (column.as_primitive_opt::<Int64Type>(), column.as_primitive_opt::<UInt64Type>()) {
        (Some(a), _) => a.value(row),
        (None, Some(a)) => i64::try_from(a.value(row)).ok()?,
        (None, None) => return None,
    };
    (t != 0 || is_first).then_some(t)
}
