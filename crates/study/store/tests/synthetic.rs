//! The store against studies whose truth is known.
#![allow(clippy::unwrap_used)] // also in the helpers

use recording::facts::RunStatus;
use recording::hold::Hold;
use store::Study;
use store::synthetic::{DISTURBED, OTHERS, Recipe, Stages, guest_cpu, write};

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
    let hold = Hold::take(dir.path()).unwrap().unwrap();
    let before = study.runs().unwrap();
    assert_eq!(before.last().unwrap().facts.status, RunStatus::Running);
    let last = &study.plan.runs.last().unwrap().id;
    assert!(!study.timeline(last).unwrap().panels.is_empty());
    std::fs::write(dir.path().join("index.json"), b"{ torn").unwrap();
    assert_eq!(Study::open(dir.path()).unwrap().runs().unwrap(), before);

    drop(hold);
    let study = Study::open(dir.path()).unwrap();
    let broken = study.runs().unwrap().pop().unwrap().facts;
    assert_eq!(broken.status, RunStatus::Interrupted);
    assert!(broken.reason.starts_with("broken off"), "{}", broken.reason);
    assert_eq!(study.run(last).unwrap().1.reason, broken.reason);
    assert!(!study.timeline(last).unwrap().panels.is_empty());
}

#[test]
fn the_disturbed_run_is_flagged_with_reason_share_and_time_and_no_other() {
    let (_dir, study) = study(Recipe { seconds: 8.0, ..QUICK });
    for (position, run) in study.runs().unwrap().into_iter().enumerate() {
        let quality = run.facts.quality.unwrap();
        assert_eq!(quality.disturbed, position == DISTURBED, "{}: {:?}", run.facts.id, quality.disturbances);
        assert_eq!(quality.unknown, ["pressure", "lag"]);
        if position == DISTURBED {
            let [found] = &quality.disturbances[..] else { panic!("{:?}", quality.disturbances) };
            assert_eq!((found.kind.as_str(), found.panel), ("others", Some(recording::spec::Panel::Host)));
            // Samples are taken together to a second, so that one more can be counted in.
            assert!((0.5..=0.65).contains(&found.share), "half of the time: {}", found.share);
            // Of the twentieth that is always busy all but the run's own is others', too.
            assert!(
                found.text.contains(&format!("{:.0} % at worst", 100.0 * (OTHERS + 0.05))),
                "{}",
                found.text
            );
            let window = run.facts.window_ns.unwrap();
            assert!(found.spans_ns.iter().all(|s| window[0] <= s[0] && s[0] < s[1] && s[1] <= window[1]));
        }
    }
}

#[test]
fn a_verdict_goes_into_the_facts_when_a_run_is_summarised_and_only_then() {
    let (dir, study) = study(QUICK);
    let run = dir.path().join("runs").join(&study.plan.runs[DISTURBED].id);
    let path = run.join("run.toml");
    let before = std::fs::read(&path).unwrap();
    assert!(study.runs().unwrap()[DISTURBED].facts.quality.is_some(), "who looks is told");
    assert!(study.run(&study.plan.runs[DISTURBED].id).unwrap().1.quality.unwrap().disturbed);
    assert_eq!(std::fs::read(&path).unwrap(), before, "and writes nothing into the run");
    let summary = store::summarise(&run, &study.plan).unwrap();
    let written = recording::facts::read_run(&path).unwrap();
    assert!(written.quality.as_ref().is_some_and(|q| q.disturbed) && written == summary.facts);

    // A verdict of an older definition is made anew, a newer version's file is left alone.
    let old = recording::facts::Quality::default();
    let facts = recording::facts::RunFacts { quality: Some(old), minor: 99, ..written };
    recording::facts::write_run(&path, &facts).unwrap();
    assert!(store::summarise(&run, &study.plan).unwrap().facts.quality.unwrap().disturbed);
    assert_eq!(recording::facts::read_run(&path).unwrap(), facts);
}

#[test]
fn lost_rows_steps_and_silence_flag_a_run() {
    let (dir, study) = study(QUICK);
    let run = dir.path().join("runs").join(&study.plan.runs[0].id);
    let mut facts = recording::facts::read_run(&run.join("run.toml")).unwrap();
    let window = facts.window_ns.unwrap();
    let mark = |t_ns, kind: &str, text: &str| recording::facts::Marker {
        t_ns,
        panel: Some(recording::spec::Panel::Guest),
        kind: kind.into(),
        text: text.into(),
    };
    assert!(!store::quality(&run, &facts).unwrap().disturbed);
    facts.markers = vec![
        mark(window[0] - 5, "clock_step", "before the window"),
        mark(window[0] + 500_000_000, "agent_silent", "a"),
        mark(window[0] + 600_000_000, "clock_step", "its clock stood still for at least 1.0 ms"),
        mark(window[0] + 1_000_000_000, "agent_back", "a, after 0.5 s"),
    ];
    facts.panels.get_mut("client").unwrap().lost = [("frames".to_owned(), 3)].into();
    let quality = store::quality(&run, &facts).unwrap();
    let seen: Vec<_> =
        quality.disturbances.iter().map(|d| (d.kind.as_str(), (d.share * 100.0) as i64)).collect();
    assert!(quality.disturbed && seen.len() == 3, "{seen:?}");
    assert!(seen.contains(&("gap", 25)) && seen.contains(&("clock", 0)), "{seen:?}");
    let lost = quality.disturbances.iter().find(|d| d.kind == "lost").unwrap();
    assert!(lost.text == "3 rows were lost: 3 of frames" && (0.01..0.2).contains(&lost.share), "{lost:?}");
}

#[test]
fn a_table_that_stops_for_a_while_is_a_gap() {
    let (dir, study) = study(QUICK);
    let run = dir.path().join("runs").join(&study.plan.runs[0].id);
    let mut facts = recording::facts::read_run(&run.join("run.toml")).unwrap();
    let window = facts.window_ns.unwrap();
    facts.window_ns = Some([window[0], window[1] + 2_000_000_000]);
    let quality = store::quality(&run, &facts).unwrap();
    assert!(
        quality.disturbances.iter().all(|d| d.kind == "gap" && (d.share - 0.5).abs() < 0.1),
        "{quality:?}"
    );
    assert_eq!((quality.disturbances.len(), quality.disturbed), (3, true));
    facts.window_ns = None;
    let quality = store::quality(&run, &facts).unwrap();
    assert_eq!(
        (quality.disturbed, quality.unknown.len()),
        (false, 4),
        "a run without a window is not judged"
    );
}

#[test]
fn names_that_are_not_of_the_plan_never_become_paths() {
    let (_dir, study) = study(QUICK);
    for id in ["..", "../plan", "", "r0001-p00-k0/../x", "\0"] {
        assert!(study.timeline(id).is_err(), "{id:?}");
    }
}
