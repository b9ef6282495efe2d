//! The walls of ARCHITECTURE.md, checked: which crate may depend on which, and which outside crates may reach where.
//!
//! Two kinds of rule: edges inside the workspace (also those of tests and build scripts, so that no test quietly
//! becomes a way round), and outside crates that must not appear anywhere below a crate. The pure crates are also
//! read, because files, clocks and threads come from the standard library and leave no trace in the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// A part of the workspace; what a crate belongs to is where its folder lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Base,
    Study,
    Systems,
    Subjects,
    Bin,
    Tests,
    Xtask,
}

/// What the crates of `study` may use of each other: one straight line, left to right.
const STUDY: &[(&str, &[&str])] = &[
    ("recording", &[]),
    ("agent", &["recording"]),
    ("stats", &[]),
    ("store", &["recording", "stats"]),
    ("model", &["stats"]),
    ("view", &["recording", "store", "stats", "model"]),
    ("bench", &["recording", "store", "stats"]),
];

/// What the crates of `base` may use of each other.
const BASE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("probe", &["units"]),
    ("qemu", &["units"]),
    ("netem", &["units"]),
    ("shm", &["units"]),
];

/// Outside crates that must not be reachable from a crate: (crate, outside crates, why).
const NOT_BELOW: &[(&str, &[&str], &str)] = &[
    ("agent", ASYNC, "the agent runs in guests: no async runtime"),
    ("probe", ASYNC, "the probe is linked into what is measured: no async runtime"),
    ("stats", IMPURE, "stats is pure"),
    ("model", IMPURE, "model is pure"),
    ("spice", &["gstreamer", "tokio"], "the protocol crate neither decodes nor needs a runtime"),
];
const ASYNC: &[&str] = &["tokio", "async-std", "smol", "async-io", "futures-executor"];
const IMPURE: &[&str] =
    &["tokio", "async-std", "smol", "rayon", "tempfile", "rustix", "jiff", "chrono", "time"];

/// Standard-library paths that a pure crate does not mention.
const IMPURE_PATHS: &[&str] =
    &["std::fs", "std::thread", "std::time", "std::net", "std::process", "Instant::now"];
const PURE: &[&str] = &["stats", "model"];

/// Checks every rule over the workspace in the current folder.
///
/// # Errors
/// Names each forbidden edge and the rule that it breaks.
pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = MetadataCommand::new().exec().context("cargo metadata failed")?;
    let mut faults = edges(&metadata)?;
    faults.extend(outside(&metadata)?);
    faults.extend(impure_sources(&metadata)?);
    if faults.is_empty() {
        println!("deps: {} crates, every wall stands", metadata.workspace_members.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("deps: {fault}");
    }
    bail!("{} forbidden dependencies", faults.len())
}

fn room(root: &Path, manifest: &Path) -> anyhow::Result<Room> {
    let folder = manifest.strip_prefix(root).with_context(|| format!("{} is outside", manifest.display()))?;
    let parts: Vec<_> = folder.iter().filter_map(|p| p.to_str()).collect();
    Ok(match parts.as_slice() {
        ["bin", ..] => Room::Bin,
        ["crates", "base", ..] => Room::Base,
        ["crates", "study", ..] => Room::Study,
        ["crates", "systems", ..] => Room::Systems,
        ["crates", "subjects", ..] => Room::Subjects,
        ["tests", ..] => Room::Tests,
        ["xtask", ..] => Room::Xtask,
        _ => {
            bail!("{}: no rule says where this crate belongs: add it to xtask/src/deps.rs", folder.display())
        }
    })
}

fn edges(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let members: BTreeMap<String, Room> = metadata
        .workspace_packages()
        .iter()
        .map(|p| {
            Ok((
                p.name.to_string(),
                room(metadata.workspace_root.as_std_path(), p.manifest_path.as_std_path())?,
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut faults = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            let Some(&to) = members.get(&dependency.name) else { continue };
            let (from, name) = (members[package.name.as_str()], package.name.as_str());
            if let Some(rule) = forbidden(name, from, &dependency.name, to) {
                let kind = match dependency.kind {
                    DependencyKind::Development => " (tests)",
                    DependencyKind::Build => " (build script)",
                    _ => "",
                };
                faults.push(format!("{name} -> {}{kind}: {rule}", dependency.name));
            }
        }
    }
    Ok(faults)
}

/// Why the edge may not be, or `None` when it may.
fn forbidden(name: &str, from: Room, dependency: &str, to: Room) -> Option<String> {
    let listed = |table: &[(&str, &[&str])]| -> Option<String> {
        let Some((_, allowed)) = table.iter().find(|(crate_name, _)| *crate_name == name) else {
            return Some(format!("{name} is not in the table of xtask/src/deps.rs"));
        };
        (!allowed.contains(&dependency)).then(|| format!("{name} may use only {allowed:?} of its own room"))
    };
    match (from, to) {
        (_, Room::Bin) => Some("nothing depends on a program".into()),
        (Room::Bin | Room::Tests, _) => None,
        (_, Room::Tests | Room::Xtask) => Some("nothing depends on tests or chores".into()),
        (Room::Xtask, _) => Some("chores stand apart from what they check".into()),
        (Room::Base, Room::Base) => listed(BASE),
        (Room::Base, _) => Some("base knows no study and no system".into()),
        (Room::Study, Room::Base) if name == "agent" && dependency == "qemu" => {
            Some("the agent runs anywhere and starts no machine".into())
        }
        (Room::Study | Room::Systems | Room::Subjects, Room::Base) => None,
        (Room::Study, Room::Study) => listed(STUDY),
        (Room::Study, _) => Some("study knows no system: what joins them is a subject".into()),
        (Room::Systems, Room::Systems) => Some("a system is useful without the others".into()),
        (Room::Systems, _) => Some("a system is useful without the study line".into()),
        (Room::Subjects, Room::Study) => {
            (!["bench", "recording"].contains(&dependency)).then(|| "a subject never sees the store".into())
        }
        (Room::Subjects, Room::Systems | Room::Subjects) => None,
    }
}

fn outside(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata gave no dependency graph")?;
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal =
                node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
            (&node.id, normal.map(|d| &d.pkg).collect())
        })
        .collect();
    let mut faults = Vec::new();
    for package in metadata.workspace_packages() {
        let Some((_, banned, why)) = NOT_BELOW.iter().find(|(name, ..)| *name == package.name.as_str())
        else {
            continue;
        };
        let (mut seen, mut open) = (BTreeSet::new(), vec![&package.id]);
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(edges.get(id).into_iter().flatten());
            }
        }
        let reached: BTreeSet<&str> = seen.iter().map(|id| names[*id]).collect();
        faults.extend(
            banned
                .iter()
                .filter(|b| reached.contains(*b))
                .map(|b| format!("{} -> … -> {b}: {why}", package.name)),
        );
    }
    Ok(faults)
}

fn impure_sources(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for package in metadata.workspace_packages().into_iter().filter(|p| PURE.contains(&p.name.as_str())) {
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?.join("src");
        let mut open = vec![folder.into_std_path_buf()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(
                    fs::read_dir(&path)?.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?,
                );
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let used = IMPURE_PATHS.iter().filter(|p| text.contains(**p));
            faults.extend(
                used.map(|p| format!("{}: mentions {p}, but {} is pure", path.display(), package.name)),
            );
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, from: Room, dependency: &str, to: Room, allowed: bool) {
        assert_eq!(forbidden(name, from, dependency, to).is_none(), allowed, "{name} -> {dependency}");
    }

    #[test]
    fn edges_the_design_draws_are_allowed() {
        check("agent", Room::Study, "recording", Room::Study, true);
        check("bench", Room::Study, "store", Room::Study, true);
        check("subjects", Room::Subjects, "streaming", Room::Systems, true);
        check("spice", Room::Systems, "units", Room::Base, true);
        check("triptych", Room::Bin, "view", Room::Study, true);
    }

    #[test]
    fn edges_the_design_forbids_are_found() {
        check("agent", Room::Study, "store", Room::Study, false);
        check("agent", Room::Study, "qemu", Room::Base, false);
        check("recording", Room::Study, "agent", Room::Study, false);
        check("view", Room::Study, "bench", Room::Study, false);
        check("streaming", Room::Systems, "spice", Room::Systems, false);
        check("spice", Room::Systems, "recording", Room::Study, false);
        check("store", Room::Study, "streaming", Room::Systems, false);
        check("probe", Room::Base, "recording", Room::Study, false);
        check("subjects", Room::Subjects, "store", Room::Study, false);
        check("bench", Room::Study, "triptych", Room::Bin, false);
    }

    #[test]
    fn a_crate_that_no_table_knows_is_refused() {
        check("newcomer", Room::Study, "recording", Room::Study, false);
    }
}
