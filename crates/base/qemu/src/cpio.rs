//! Writes the kernel's initial file system: a cpio archive in the "newc" format
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of Linux). Needs no root, not even for device nodes.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive being written. Times are 0, so that equal contents make equal archives.
pub(crate) struct Archive<W: Write> {
    out: W,
    offset: u64,
    inode: u32,
    seen: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, offset: 0, inode: 0, seen: BTreeSet::new() }
    }

    /// A directory with those above it; `path` is absolute.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut so_far = String::new();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            so_far.push('/');
            so_far.push_str(part);
            if self.seen.insert(so_far.clone()) {
                self.entry(&so_far, DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// A file with its directories; a second one of the same name is left out.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.leaf(path, FILE | permissions, (0, 0), content)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.leaf(path, LINK, (0, 0), target.as_bytes())
    }

    /// A character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.leaf(path, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// The end.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("/TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn leaf(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above)?;
        }
        if self.seen.insert(path.to_owned()) { self.entry(path, mode, device, content) } else { Ok(()) }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let size = u32::try_from(content.len()).map_err(|_| io::Error::other("a file of 4 GiB or more"))?;
        self.inode += 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = (4 - self.offset % 4) % 4;
        self.put(&[0; 3][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.file("/usr/bin/tool", 0o755, b"#!/bin/sh\n").unwrap();
        archive.file("/usr/bin/tool", 0o755, b"again").unwrap();
        archive.link("/bin/sh", "busybox").unwrap();
        archive.device("/dev/console", 5, 1).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn headers_and_contents_are_aligned_and_in_order() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4, 0);
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            let field = |n: usize| {
                let digits = std::str::from_utf8(&bytes[at + 6 + n * 8..at + 14 + n * 8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (size, name) = (field(6), field(11));
            names.push(String::from_utf8(bytes[at + 110..at + 109 + name].to_vec()).unwrap());
            at = (at + 110 + name).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(
            names,
            ["usr", "usr/bin", "usr/bin/tool", "bin", "bin/sh", "dev", "dev/console", "TRAILER!!!"]
        );
    }

    #[test]
    fn the_cpio_program_lists_the_archive() {
        let Ok(mut child) = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("SKIPPED: cpio is not installed (Debian package cpio)");
            return;
        };
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        for expected in ["-rwxr-xr-x", "usr/bin/tool", "bin/sh -> busybox", "5,   1"] {
            assert!(listing.contains(expected), "{expected} in\n{listing}");
        }
    }
}
