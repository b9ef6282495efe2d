//! What a person or a test wants to know at once: guests and clients that come and go, and totals.

use std::io::Write;

use serde_json::{Value, json};

use crate::recorder::Recorder;

/// Tells events: to the log and as markers of the record, to stdout as JSON when asked for.
pub(crate) struct Notices {
    stats: bool,
    recorder: Recorder,
}

impl Notices {
    /// With or without lines on stdout.
    pub(crate) fn new(stats: bool, recorder: Recorder) -> Self {
        Self { stats, recorder }
    }

    /// The collector, or nobody.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The last word.
    pub(crate) fn finish(self) {
        self.recorder.finish();
    }

    /// Ready: the one line that `--json` promises, or one for people.
    pub(crate) fn ready(&self, json: bool, address: std::net::SocketAddr, stream: &std::path::Path) {
        if json {
            line(&json!({ "spice_port": address.port() }));
        } else {
            let _ = writeln!(
                std::io::stdout(),
                "SPICE on {address} (spicy --uri=spice://{address}), guest on unix:{}",
                stream.display()
            );
        }
    }

    /// Something happened, for instance `guest-connected`.
    pub(crate) fn event(&self, kind: &str, text: &str) {
        tracing::info!("{kind}: {text}");
        self.recorder.mark(kind, text);
        if self.stats {
            line(&json!({ "event": kind, "text": text }));
        }
    }

    /// Totals since the start.
    pub(crate) fn totals(&self, frames: u64, from_guest: u64, to_client: u64, viewers: usize) {
        if self.stats {
            line(&json!({
                "frames": frames, "from_guest_bytes": from_guest, "to_client_bytes": to_client, "viewers": viewers
            }));
        }
    }
}

/// A reader that went away is no reason to end.
fn line(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}
