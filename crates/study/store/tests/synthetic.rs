//! The store against studies whose truth is known.
#![allow(clippy::unwrap_used)] // also in the helpers

use recording::facts::RunStatus;
use store::Study;
use store::synthetic::{Recipe, Stages, guest_cpu, write};

fn study(recipe: Recipe) -> (tempfile::TempDir, Study) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), recipe).unwrap();
    let study = Study::open(dir.path()).unwrap();
    (dir, study)
}

const QUICK: Recipe = Recipe { repeats: 3, seconds: 2.0, failed: 1, running: false };

#[test]
fn every_point_has_the_latency_and_the_cpu_that_were_put_in() {
    let (_dir, study) = study(Recipe { failed: 0, ..QUICK });
    for cell in study.matrix("latency_p50").unwrap() {
        let truth = Stages::at(&cell.levels).latency() as f64 * 1e-6;
        assert_eq!(cell.n, 3);
        assert!((cell.mean - truth).abs() < 0.05 * truth, "{:?}: {} for {truth} ms", cell.levels, cell.mean);
    }
    for cell in study.matrix("guest_cpu").unwrap() {
        let truth = guest_cpu(&cell.levels);
        assert!((cell.mean - truth).abs() < 0.1, "{:?}: {} for {truth} %", cell.levels, cell.mean);
        assert!(cell.low < truth && truth < cell.high, "{:?}", cell.levels);
    }
}

#[test]
fn a_failed_run_is_listed_with_its_reason_and_counts_in_no_cell() {
    let (_dir, study) = study(QUICK);
    let runs = study.runs().unwrap();
    let failed: Vec<_> = runs.iter().filter(|r| r.facts.status == RunStatus::Failed).collect();
    assert_eq!((runs.len(), failed.len()), (24, 1));
    assert!(failed[0].facts.reason.contains("signal 9") && failed[0].responses.is_empty());
    let total: usize = study.matrix("guest_cpu").unwrap().iter().map(|c| c.n).sum();
    assert_eq!(total, 23);
}

#[test]
fn frames_join_across_clocks_and_the_lost_one_is_counted() {
    let (_dir, study) = study(QUICK);
    let plan = &study.plan.runs[0];
    let truth = Stages::at(&study.plan.points[plan.point as usize].levels);
    let joined = study.joined(&plan.id).unwrap();
    assert_eq!((joined.mismatched, joined.matched + 1), (0, joined.rows.len()));
    assert_eq!(joined.unmatched.iter().sum::<usize>(), 2, "guest's and host's frame 9 have no client's");
    let to_client = joined.spans.iter().find(|s| s.name == "to_client_ns").unwrap();
    for ns in to_client.ns.iter().flatten() {
        assert!(
            (ns - truth.to_client).abs() <= 2,
            "{ns} ns for {}: rounding of clocks at most",
            truth.to_client
        );
    }
    assert!(to_client.uncertainty_ns > 0);
    let latency = &joined.spans[0];
    assert_eq!(latency.ns.iter().filter(|ns| ns.is_none()).count(), 2, "dropped and lost");
}

#[test]
fn a_timeline_lies_on_the_collectors_clock() {
    let (_dir, study) = study(QUICK);
    let timeline = study.timeline(&study.plan.runs[0].id).unwrap();
    assert_eq!(timeline.panels.len(), 3);
    for panel in &timeline.panels {
        let series = panel.series.iter().find(|s| s.column == "seq").unwrap();
        assert!(series.t_ns.is_sorted());
        let first = series.t_ns[0];
        assert!((100_000_000..130_000_000).contains(&first), "{}: first frame at {first} ns", panel.panel);
    }
}

#[test]
fn a_study_under_way_can_be_read_and_its_index_is_not_needed() {
    let (dir, study) = study(Recipe { running: true, ..QUICK });
    let before = study.runs().unwrap();
    assert_eq!(before.last().unwrap().facts.status, RunStatus::Running);
    let last = &study.plan.runs.last().unwrap().id;
    assert!(!study.timeline(last).unwrap().panels.is_empty());
    std::fs::write(dir.path().join("index.json"), b"{ torn").unwrap();
    assert_eq!(Study::open(dir.path()).unwrap().runs().unwrap(), before);
}

#[test]
fn names_that_are_not_of_the_plan_never_become_paths() {
    let (_dir, study) = study(QUICK);
    for id in ["..", "../plan", "", "r0001-p00-k0/../x", "\0"] {
        assert!(study.timeline(id).is_err(), "{id:?}");
    }
}
