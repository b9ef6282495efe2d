//! The secret that an agent and its collector share.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file without a token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token in {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is in its first line.
    #[error("{}: its first line is to be the token, and is empty", .0.display())]
    Empty(PathBuf),
}

/// The token in the first line of a file, without spaces around it.
///
/// # Errors
/// The file cannot be read, or its first line is empty.
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let text = fs::read_to_string(path).map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() { Err(TokenError::Empty(path.to_owned())) } else { Ok(token.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_token_and_an_empty_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "  secret \nmore\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "secret");
        fs::write(&path, "\nsecret\n").unwrap();
        let error = read_token(&path).unwrap_err().to_string();
        assert!(error.contains("first line") && !error.contains("secret"), "{error}");
    }
}
