//! Clocks found from frames: in a made-up run whose clocks are known, and in a published record.
#![allow(clippy::unwrap_used)] // also in the helpers

use std::path::Path;

use probe::{ColumnType, Table};
use recording::facts::{ClockBasis, ImportFacts, RunFacts};
use recording::files::{TableWriter, to_parquet};
use recording::spec::{Join, Panel};
use store::synthetic::{Recipe, Stages, write};
use store::{Study, align_by_frames, is_relative};

fn frames() -> Join {
    Join {
        name: "frames".into(),
        parts: Panel::ALL.map(|p| (p, "frames".into())).to_vec(),
        key: "size_bytes".into(),
        also: Vec::new(),
        spans: Vec::new(),
    }
}

#[test]
fn clocks_that_were_put_in_are_found_but_for_the_quickest_frames_delay() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), Recipe { repeats: 1, seconds: 8.0, failed: 0, running: false }).unwrap();
    let study = Study::open(dir.path()).unwrap();
    for planned in &study.plan.runs[..2] {
        let (run, truth) = study.run(&planned.id).unwrap();
        let mut facts = truth.clone();
        for panel in ["guest", "client"] {
            facts.panels.get_mut(panel).unwrap().clock = None;
        }
        let join = &study.plan.subject.joins[0];
        let done = align_by_frames(&run, &mut facts, join).unwrap();
        assert_eq!(
            done.iter().map(|a| (a.panel, a.with)).collect::<Vec<_>>(),
            [(Panel::Guest, Panel::Host), (Panel::Client, Panel::Host)]
        );
        let stages = Stages::at(&study.plan.points[planned.point as usize].levels);
        // Guest's start of capture to the host's last byte, at the shortest: jitter takes a third off the encoding.
        let least = stages.capture + stages.encode * 65 / 100 + stages.send + stages.to_host;
        for (panel, shift) in [("guest", least), ("client", -stages.to_client)] {
            let (found, true_clock) =
                (facts.panels[panel].clock.as_ref().unwrap(), truth.panels[panel].clock.as_ref().unwrap());
            assert_eq!(found.basis, ClockBasis::Frames);
            for t in [-4, 0, 4].map(|s| found.reference_ns + s * 1_000_000_000) {
                let error = (found.to_collector(t) - shift - true_clock.to_collector(t)).abs();
                assert!(error <= found.uncertainty_ns, "{panel}: {error} of {}", found.uncertainty_ns);
                // The quickest of some hundred frames is not quite as quick as a frame can be.
                assert!(error < stages.encode / 20, "{panel}: {error}");
            }
        }
        assert!(is_relative(&facts, Panel::Guest) && !is_relative(&facts, Panel::Host));
    }
}

/// The record in the data folder as a run's folder.
fn published(dir: &Path) {
    let text = include_str!("data/frames.csv");
    for panel in Panel::ALL {
        let table = Table::new("frames", "frames").column("size_bytes", ColumnType::U64, "B", "size");
        let stem = format!("{panel}.frames");
        let mut writer = TableWriter::create(dir, &stem, &table).unwrap();
        for line in text
            .lines()
            .filter(|l| l.starts_with(if panel == Panel::Host { "s," } else { &panel.name()[..1] }))
        {
            let mut fields = line.split(',').skip(1).map(|n| n.parse::<u64>().unwrap());
            let us = fields.next().unwrap();
            writer.write(&[us * 1000, fields.next().unwrap()]).unwrap();
        }
        writer.finish().unwrap();
        to_parquet(dir, &stem).unwrap();
    }
}

/// Facts of an imported run without any clock.
fn imported() -> RunFacts {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), Recipe { repeats: 1, seconds: 1.0, failed: 0, running: false }).unwrap();
    let study = Study::open(dir.path()).unwrap();
    let (_, facts) = study.run(&study.plan.runs[0].id).unwrap();
    RunFacts { panels: Default::default(), import: Some(ImportFacts::default()), ..facts }
}

/// Server minus guest at the least, over frames whose size occurs once, in a part of the guest's time (microseconds).
fn least_difference(part: std::ops::Range<i64>) -> f64 {
    let of = |panel: &str| -> Vec<(&'static str, i64)> {
        let rows = include_str!("data/frames.csv").lines().map(|l| l.split(',').collect::<Vec<_>>());
        rows.filter(|r| r.len() == 3 && r[0] == panel).map(|r| (r[2], r[1].parse().unwrap())).collect()
    };
    let (guest, server) = (of("g"), of("s"));
    let once = |all: &[(&str, i64)], size: &str| all.iter().filter(|g| g.0 == size).count() == 1;
    let both = server.iter().filter(|(size, _)| once(&guest, size) && once(&server, size));
    let differences = both.filter_map(|(size, t)| {
        let sent = guest.iter().find(|g| g.0 == *size)?.1;
        part.contains(&sent).then_some(t - sent)
    });
    differences.min().unwrap() as f64 * 1e3
}

#[test]
fn a_published_record_without_clocks_is_aligned() {
    let dir = tempfile::tempdir().unwrap();
    published(dir.path());
    let mut facts = imported();
    let done = align_by_frames(dir.path(), &mut facts, &frames()).unwrap();
    assert_eq!(done.iter().map(|a| a.panel).collect::<Vec<_>>(), Panel::ALL);
    assert!(done[1..].iter().all(|a| a.frames > 1_100 && a.left_out < 20), "{done:?}");
    let guest = facts.panels["guest"].clock.as_ref().unwrap();
    assert_eq!((guest.offset_ns, guest.drift_ppm, guest.basis), (0, 0.0, ClockBasis::Frames));
    let host = facts.panels["host"].clock.as_ref().unwrap();
    // Looked at in another way: the smallest differences of the first and the last ten seconds, 33 s apart.
    let (early, late) = (least_difference(0..10_000_000), least_difference(33_000_000..43_000_000));
    let drift = (late - early) / 33e9;
    assert!((5.9e9..5.92e9).contains(&early) && drift > 5e-6, "{early} {drift}");
    assert!((host.offset_ns as f64 + early).abs() < 2e6, "{} for {early}", host.offset_ns);
    assert!((host.drift_ppm + drift * 1e6).abs() < 6.0, "{} for {drift}", host.drift_ppm);
    eprintln!("{host:?}");
    assert!(host.uncertainty_ns < 1_000_000, "{host:?}");
    assert_eq!(facts.import.unwrap().assumptions.len(), 1);
}

#[test]
fn panels_that_share_no_frames_stay_without_a_clock() {
    let dir = tempfile::tempdir().unwrap();
    published(dir.path());
    std::fs::remove_file(dir.path().join("host.frames.parquet")).unwrap();
    let mut facts = imported();
    let done = align_by_frames(dir.path(), &mut facts, &frames()).unwrap();
    assert_eq!(done.iter().map(|a| a.panel).collect::<Vec<_>>(), [Panel::Guest]);
    assert!(!facts.panels.contains_key("host"));
}
