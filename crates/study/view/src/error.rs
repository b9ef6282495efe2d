//! What keeps a page from being served, and what keeps a request from being answered.

use std::io;
use std::net::SocketAddr;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use store::StoreError;
use thiserror::Error;

/// The page cannot be served.
#[derive(Debug, Error)]
pub enum ViewError {
    /// There is no study, or it cannot be read.
    #[error("cannot open the study")]
    Study(#[from] StoreError),
    /// Everyone who can reach the machine could look.
    #[error("{0} is not loopback, and the page has no password: listen on 127.0.0.1, or give a token")]
    NotLoopback(SocketAddr),
    /// A token that could not be part of an address, or that is guessed soon.
    #[error("the token must have at least 16 characters, all of them letters, digits, '-' or '_'")]
    Token,
    /// The port is taken, or the address is not of this machine.
    #[error("cannot listen on {address}: choose another with --listen, or port 0 for any free one")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The operating system.
    #[error("cannot serve the page")]
    Serve(#[source] io::Error),
}

/// The answer to a request that went wrong: a status, and `{"error": "…"}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::NoRun(_) | StoreError::NoResponse { .. } | StoreError::NoJoin(_) => {
                StatusCode::NOT_FOUND
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(c) = cause {
            message.push_str(": ");
            message.push_str(&c.to_string());
            cause = c.source();
        }
        Self { status, message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.message }))).into_response()
    }
}
