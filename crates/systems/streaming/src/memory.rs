//! Memory shared between processes: a sealed memory file, mapped.
//!
//! Another process may write while we read, so no reference into the mapping is ever made: bytes are copied in and
//! out through raw pointers. The seals (size fixed for ever) make sure that an access within the mapping cannot fault.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use thiserror::Error;

/// Why shared memory could not be had.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// A system call failed.
    #[error("no shared memory: {call} of {bytes} bytes failed")]
    System {
        /// The call.
        call: &'static str,
        /// Bytes wanted.
        bytes: usize,
        /// What the kernel said.
        source: Errno,
    },
    /// What another process gave is not what it said.
    #[error("shared memory refused: the file has {actual} bytes where {expected} were announced")]
    Size {
        /// Bytes announced.
        expected: usize,
        /// Bytes there are.
        actual: u64,
    },
    /// The giver could shrink the file under us.
    #[error("shared memory refused: its size is not sealed")]
    Unsealed,
}

/// A mapped memory file of fixed size.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to this value alone within the process and is not tied to a thread.
unsafe impl Send for SharedMemory {}

const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

impl SharedMemory {
    /// A new zeroed file of `len` bytes (at least 1), sealed in size, mapped for reading and writing.
    ///
    /// # Errors
    /// The kernel has no memory or descriptor to give.
    pub fn create(name: &str, len: usize) -> Result<Self, MemoryError> {
        let len = len.max(1);
        let system = |call| move |source| MemoryError::System { call, bytes: len, source };
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(system("memfd_create"))?;
        rustix::fs::ftruncate(&fd, len as u64).map_err(system("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS | SealFlags::SEAL).map_err(system("seal"))?;
        Self::map(fd, len, true)
    }

    /// Maps a file from another process for reading; it must be sealed in size and have `len` bytes.
    ///
    /// # Errors
    /// The file is not as announced or cannot be mapped.
    pub fn open(fd: OwnedFd, len: usize) -> Result<Self, MemoryError> {
        let system = |call| move |source| MemoryError::System { call, bytes: len, source };
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(system("get seals"))?;
        if !seals.contains(SIZE_SEALS) {
            return Err(MemoryError::Unsealed);
        }
        let actual = rustix::fs::fstat(&fd).map_err(system("fstat"))?.st_size as u64;
        if len == 0 || actual != len as u64 {
            return Err(MemoryError::Size { expected: len, actual });
        }
        Self::map(fd, len, false)
    }

    fn map(fd: OwnedFd, len: usize, writable: bool) -> Result<Self, MemoryError> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &fd, 0) };
        let base = base.map_err(|source| MemoryError::System { call: "mmap", bytes: len, source })?;
        let base = NonNull::new(base.cast()).ok_or(MemoryError::System {
            call: "mmap",
            bytes: len,
            source: Errno::NOMEM,
        })?;
        Ok(Self { fd, base, len, writable })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: memory has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Another descriptor of the same file.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Copies `bytes` in.
    ///
    /// # Panics
    /// They do not fit, or the mapping is for reading only.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(self.writable, "mapping is for reading");
        self.check(offset, bytes.len());
        // SAFETY: `offset + bytes.len() <= self.len` was just checked, the mapping is writable and lives as long as
        // `self`; `bytes` is a private slice, so the two do not overlap; the file's size is sealed, so no SIGBUS.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) }
    }

    /// Copies bytes out. What another process writes meanwhile may be seen in part.
    ///
    /// # Panics
    /// The range is not within the memory.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        // SAFETY: as in `write`, with the mapping as the source; every mapping is readable.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.as_ptr().add(offset), into.as_mut_ptr(), into.len())
        }
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} bytes at {offset} of {}",
            self.len
        );
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of the mapping made in `map`, unmapped nowhere else, and no reference
        // into it exists. An error would mean they are not, which cannot be.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsealed_file_is_refused() {
        let fd = rustix::fs::memfd_create("t", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 10).unwrap();
        assert!(matches!(SharedMemory::open(fd, 10), Err(MemoryError::Unsealed)));
    }

    #[test]
    #[should_panic(expected = "bytes at")]
    fn an_access_beyond_the_end_panics_instead_of_touching_memory() {
        SharedMemory::create("t", 8).unwrap().write(usize::MAX, &[1]);
    }
}
