//! Results trees: any folder with `settings` (lines `k=v`) or `settings.yaml` (merged with those of the folders above)
//! and an `exit_code` that is not empty is a run. A file `skip` hides a folder and what is below it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::matrix::{MAX_SETTINGS, level};
use super::{ImportError, Skips, read_file, shown};
use crate::spec::{Level, Levels};

/// How deep folders are followed.
const MAX_DEPTH: usize = 64;
/// Runs of one tree.
const MAX_RUNS: usize = 1_000_000;
/// Largest file of settings.
const MAX_SETTINGS_FILE: u64 = 1 << 20;
/// The setting that numbers repeated runs: no factor.
const RUN: &str = "run";

/// A folder that is a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Below the tree's root.
    pub(crate) below: PathBuf,
    /// Without `run`.
    pub(crate) settings: Levels,
    /// The setting `run`.
    pub(crate) number: Option<Level>,
    /// Content of `exit_code`, trimmed.
    pub(crate) exit_code: String,
}

/// What a tree holds, in numeric order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tree {
    pub(crate) folders: Vec<Folder>,
    pub(crate) skips: Skips,
}

/// Whether a folder, or one below it, is a run.
pub(crate) fn looks_like(root: &Path) -> bool {
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let Ok(listing) = Listing::read(&dir) else { continue };
        if listing.exit_code && (listing.settings || listing.yaml) {
            return true;
        }
        if depth < MAX_DEPTH {
            open.extend(listing.folders.into_iter().map(|name| (dir.join(name), depth + 1)));
        }
    }
    false
}

/// Finds the runs below a folder.
///
/// # Errors
/// The folder itself cannot be read.
pub(crate) fn walk(root: &Path) -> Result<Tree, ImportError> {
    let mut tree = Tree::default();
    Listing::read(root).map_err(ImportError::io("read", root))?;
    // Depth first, with the settings of the folders above.
    let mut open = vec![(PathBuf::new(), Levels::new(), 0)];
    while let Some((below, inherited, depth)) = open.pop() {
        let path = root.join(&below);
        let place = || below.display().to_string();
        let Ok(listing) = Listing::read(&path) else {
            tree.skips.add("folder that cannot be read", 1, place);
            continue;
        };
        if listing.skip {
            tree.skips.add("folder with a file 'skip'", 1, place);
            continue;
        }
        let mut settings = inherited;
        if listing.yaml {
            yaml(&path.join("settings.yaml"), &below, &mut settings, &mut tree.skips);
        }
        if listing.exit_code && (listing.settings || listing.yaml) {
            if tree.folders.len() >= MAX_RUNS {
                tree.skips.add(format!("run after the {MAX_RUNS}th"), 1, place);
                continue;
            }
            run(&path, &below, settings, listing.settings, &mut tree);
            continue;
        }
        if listing.settings {
            tree.skips.add("folder with settings and without exit_code", 1, place);
            continue;
        }
        if depth == MAX_DEPTH {
            tree.skips.add(format!("folder below {MAX_DEPTH} others"), 1, place);
            continue;
        }
        open.extend(listing.folders.into_iter().map(|name| (below.join(name), settings.clone(), depth + 1)));
    }
    tree.folders.sort_by_cached_key(|f| {
        let above = f.below.parent().map(|p| natural(&p.to_string_lossy())).unwrap_or_default();
        let number = f.number.as_ref().map(|n| natural(&n.to_string()));
        (above, number, natural(&f.below.to_string_lossy()))
    });
    Ok(tree)
}

fn run(path: &Path, below: &Path, mut settings: Levels, has_settings: bool, tree: &mut Tree) {
    let place = || below.display().to_string();
    let exit_code = match read_file(&path.join("exit_code"), MAX_SETTINGS_FILE) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => return tree.skips.add("exit_code that cannot be read", 1, || error.to_string()),
    };
    if exit_code.is_empty() {
        return tree.skips.add("folder with an empty exit_code", 1, place);
    }
    if has_settings {
        lines(&path.join("settings"), below, &mut settings, &mut tree.skips);
    }
    let number = settings.remove(RUN);
    tree.folders.push(Folder {
        path: path.to_owned(),
        below: below.to_owned(),
        settings,
        number,
        exit_code: shown(&exit_code),
    });
}

/// Lines `k=v`; empty ones and comments are none.
fn lines(path: &Path, below: &Path, settings: &mut Levels, skips: &mut Skips) {
    let bytes = match read_file(path, MAX_SETTINGS_FILE) {
        Ok(bytes) => bytes,
        Err(error) => return skips.add("settings that cannot be read", 1, || error.to_string()),
    };
    for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let place = || format!("{}/settings:{number}", below.display());
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                put(key.trim(), level(value), settings, skips, place)
            }
            _ => skips.add("line of settings that is not k=v", 1, place),
        }
    }
}

fn put(key: &str, level: Level, settings: &mut Levels, skips: &mut Skips, place: impl FnOnce() -> String) {
    if settings.len() >= MAX_SETTINGS && !settings.contains_key(key) {
        return skips.add(format!("setting after the {MAX_SETTINGS}th"), 1, place);
    }
    settings.insert(shown(key), level);
}

/// `settings.yaml`: a mapping; what nests is named with points (`network.mtu`).
fn yaml(path: &Path, below: &Path, settings: &mut Levels, skips: &mut Skips) {
    let place = || format!("{}/settings.yaml", below.display());
    let bytes = match read_file(path, MAX_SETTINGS_FILE) {
        Ok(bytes) => bytes,
        Err(error) => return skips.add("settings.yaml that cannot be read", 1, || error.to_string()),
    };
    // The reader has budgets for nesting, anchors and nodes.
    let mapping: BTreeMap<String, Value> = match serde_saphyr::from_slice(&bytes) {
        Ok(mapping) => mapping,
        Err(error) => {
            let first = error.to_string().lines().next().unwrap_or_default().to_owned();
            return skips.add("settings.yaml that is no YAML mapping", 1, || format!("{}: {first}", place()));
        }
    };
    let mut open: Vec<(String, Value)> = mapping.into_iter().collect();
    while let Some((key, value)) = open.pop() {
        let level = match value {
            Value::Null => Level::Text(String::new()),
            Value::Bool(b) => Level::Bool(b),
            Value::Number(n) => level(&n.to_string()),
            Value::String(s) => level(&s),
            Value::Object(inner) => {
                open.extend(inner.into_iter().map(|(k, v)| (format!("{key}.{k}"), v)));
                continue;
            }
            list @ Value::Array(_) => level(&list.to_string()),
        };
        put(&key, level, settings, skips, place);
    }
}

/// Names of interest in a folder.
#[derive(Default)]
struct Listing {
    settings: bool,
    yaml: bool,
    exit_code: bool,
    skip: bool,
    folders: Vec<OsString>,
}

impl Listing {
    fn read(dir: &Path) -> std::io::Result<Self> {
        let mut listing = Self::default();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            // Links are not followed to folders: they could lead round in circles.
            match name.to_str() {
                _ if kind.is_dir() => listing.folders.push(name),
                Some("settings") => listing.settings = true,
                Some("settings.yaml") => listing.yaml = true,
                Some("exit_code") => listing.exit_code = true,
                Some("skip") => listing.skip = true,
                _ => {}
            }
        }
        Ok(listing)
    }
}

/// A part of a name, so that `run_9` comes before `run_10`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Digits: how many without leading zeros, then which.
    Number(usize, String),
    /// Anything else.
    Text(String),
}

/// A name in parts that sort as people count.
pub(crate) fn natural(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(if digits {
            let number = part.trim_start_matches('0');
            Part::Number(number.len(), number.to_owned())
        } else {
            Part::Text(part.to_owned())
        });
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn runs_are_found_with_the_settings_of_the_folders_above_and_in_numeric_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "settings.yaml", "cloud: aws\nnodes: 2\nnet:\n  mtu: 1500\n");
        for run in [10, 9, 1] {
            write(root, &format!("a/run_{run}/settings"), &format!("run={run}\nnodes=4\n\n# x\nbroken\n"));
            write(root, &format!("a/run_{run}/exit_code"), "0\n");
        }
        write(root, "b/settings.yaml", "mode: fast\nload: 0.5\n");
        write(root, "b/exit_code", "1");
        write(root, "c/settings", "x=1");
        write(root, "c/exit_code", "");
        write(root, "d/settings", "x=1");
        write(root, "e/skip", "");
        write(root, "e/f/settings", "x=1");
        write(root, "e/f/exit_code", "0");
        write(root, "g/settings.yaml", "a: [1, 2\n");
        write(root, "g/exit_code", "0");
        let tree = walk(root).unwrap();
        let below: Vec<_> = tree.folders.iter().map(|f| f.below.display().to_string()).collect();
        assert_eq!(below, ["b", "g", "a/run_1", "a/run_9", "a/run_10"]);
        let said: Vec<_> = tree.folders[2].settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(said, ["cloud=aws", "net.mtu=1500", "nodes=4"]);
        assert_eq!(tree.folders[2].number, Some(Level::Int(1)));
        assert_eq!(tree.folders[0].settings["load"], Level::Float(0.5));
        let skipped: Vec<_> = tree.skips.clone().into_facts().into_keys().collect();
        assert_eq!(skipped.len(), 5, "{skipped:?}");
        assert_eq!(tree.skips.count("line of settings that is not k=v"), 3);
        assert!(looks_like(root) && !looks_like(&root.join("c/none")));
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["run_10", "run_9", "run_1b", "run_01", "run", "x2", "run_99999999999999999999999"];
        names.sort_by_cached_key(|n| natural(n));
        assert_eq!(
            names,
            ["run", "run_01", "run_1b", "run_9", "run_10", "run_99999999999999999999999", "x2"]
        );
    }
}
