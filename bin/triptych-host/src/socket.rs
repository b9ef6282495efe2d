//! The Unix socket that guests connect to: for this user only, one of its name, gone when the program ends.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A listening socket whose file goes with it.
pub(crate) struct GuestSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl GuestSocket {
    /// Listens at `path`. A socket that nobody listens on any more is replaced.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("{shown} cannot be looked at")),
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{shown} exists and is no socket: choose another path for --stream");
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => {
                    bail!("{shown} is in use by another program: end it, or choose another path for --stream")
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)
                        .with_context(|| format!("the stale socket {shown} cannot be removed"))?;
                }
                Err(error) => return Err(error).with_context(|| format!("{shown} cannot be tried")),
            },
        }
        let listener = UnixListener::bind(path).with_context(|| {
            format!("cannot listen on {shown}: its folder must exist and be writable, its name at most 107 bytes long")
        })?;
        let socket = Self { listener, path: path.to_owned() };
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("the permissions of {shown} cannot be set"))?;
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }

    /// A guest that has connected, if there is one.
    pub(crate) fn accept(&self) -> std::io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                Ok(Some(stream))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for GuestSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for GuestSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("{} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_private_and_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = GuestSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_a_living_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (stale, file) = (dir.path().join("s"), dir.path().join("f"));
        drop(UnixListener::bind(&stale).unwrap());
        let living = GuestSocket::bind(&stale).unwrap();
        let error = GuestSocket::bind(&stale).err().unwrap().to_string();
        assert!(error.contains("in use by another program"), "{error}");
        assert!(stale.exists());
        drop(living);
        std::fs::write(&file, "mine").unwrap();
        let error = GuestSocket::bind(&file).err().unwrap().to_string();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
