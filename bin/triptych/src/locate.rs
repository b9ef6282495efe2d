//! Which study is meant: a folder, a name below the results folder, or `latest`.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// No study is called so.
#[derive(Debug, Error)]
pub(crate) enum NotFound {
    /// Neither a folder nor a name.
    #[error("no study '{name}', neither as a folder nor in {}: see `triptych list`", results.display())]
    Name { name: String, results: PathBuf },
    /// The results folder holds none.
    #[error("no study in {} yet: make one with `triptych run studies/quickstart.toml`", .0.display())]
    None(PathBuf),
}

/// The folder of the study that `name` means.
pub(crate) fn locate(name: &str, results: &Path) -> Result<PathBuf, NotFound> {
    if name == "latest" {
        return latest(results).ok_or_else(|| NotFound::None(results.into()));
    }
    [PathBuf::from(name), results.join(name)]
        .into_iter()
        .find(|dir| is_study(dir))
        .ok_or_else(|| NotFound::Name { name: name.into(), results: results.into() })
}

fn is_study(dir: &Path) -> bool {
    dir.join("plan.toml").is_file()
}

/// The one whose plan was written last; by name where the clock does not tell them apart.
fn latest(results: &Path) -> Option<PathBuf> {
    fs::read_dir(results)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|dir| Some((fs::metadata(dir.join("plan.toml")).ok()?.modified().ok()?, dir)))
        .max()
        .map(|(_, dir)| dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_is_found_by_folder_by_name_and_as_the_latest() {
        let results = tempfile::tempdir().unwrap();
        assert!(matches!(locate("latest", results.path()), Err(NotFound::None(_))));
        for name in ["a", "b"] {
            fs::create_dir(results.path().join(name)).unwrap();
            fs::write(results.path().join(name).join("plan.toml"), "").unwrap();
        }
        fs::create_dir(results.path().join("z")).unwrap();
        let b = results.path().join("b");
        assert_eq!(locate("latest", results.path()).unwrap(), b);
        assert_eq!(locate("b", results.path()).unwrap(), b);
        assert_eq!(locate(b.to_str().unwrap(), Path::new("elsewhere")).unwrap(), b);
        assert!(matches!(locate("z", results.path()), Err(NotFound::Name { .. })));
    }
}
