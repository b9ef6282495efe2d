//! Files that are replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a whole file so that at every instant either the old or the new content is there.
///
/// # Errors
/// The operating system's; the old content stays.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file has a folder and a name"));
    };
    let temporary = dir.join(format!(".{}.new", name.to_string_lossy()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(dir)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// As [`write_atomically`], but what is there after a crash of the machine is not known: the caller syncs, later and for many
/// files at once.
///
/// # Errors
/// As there.
pub fn write_unsynced(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file has a folder and a name"));
    };
    let temporary = dir.join(format!(".{}.new", name.to_string_lossy()));
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Makes a rename or a new file in `dir` survive a crash of the machine.
pub(crate) fn sync_folder(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}
