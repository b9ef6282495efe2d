//! What a person or a script hears at the end.

use serde_json::{Value, json};
use units::Nanos;

/// Values kept for the quantiles; four bytes each. At 60 frames a second more than four hours.
const KEPT: usize = 1 << 20;

/// Counts and times of a session.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    frames: u64,
    dropped: u64,
    first: Option<Nanos>,
    last: Option<Nanos>,
    decode_us: Vec<f32>,
    present_us: Vec<f32>,
}

impl Summary {
    pub(crate) fn received(&mut self, at: Nanos) {
        self.frames += 1;
        self.first.get_or_insert(at);
        self.last = Some(at);
    }

    pub(crate) fn presented(&mut self, received: Nanos, start: Nanos, decoded: Nanos, presented: Nanos) {
        if self.decode_us.len() < KEPT {
            self.decode_us.push((decoded.0 - start.0) as f32 / 1e3);
            self.present_us.push((presented.0 - received.0) as f32 / 1e3);
        }
    }

    pub(crate) fn dropped(&mut self) {
        self.dropped += 1;
    }

    /// Frames received.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    fn fps(&self) -> Option<f64> {
        let time = (self.last?.0 - self.first?.0) as f64 / 1e9;
        (time > 0.0 && self.frames > 1).then(|| (self.frames - 1) as f64 / time)
    }

    /// For scripts. Times in milliseconds; null where nothing was measured.
    pub(crate) fn json(&self) -> Value {
        json!({
            "frames": self.frames,
            "dropped": self.dropped,
            "fps": self.fps(),
            "decode_p50_ms": quantile(&self.decode_us, 0.5),
            "decode_p95_ms": quantile(&self.decode_us, 0.95),
            "arrival_to_present_p50_ms": quantile(&self.present_us, 0.5),
            "arrival_to_present_p95_ms": quantile(&self.present_us, 0.95),
        })
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let ms = |values: &[f32], q| quantile(values, q).map_or("–".into(), |v| format!("{v:.2}"));
        format!(
            "{} frames ({} dropped), {:.1} fps, decode p50 {} ms, arrival to picture p50 {} / p95 {} ms",
            self.frames,
            self.dropped,
            self.fps().unwrap_or(0.0),
            ms(&self.decode_us, 0.5),
            ms(&self.present_us, 0.5),
            ms(&self.present_us, 0.95)
        )
    }
}

/// In milliseconds, from microseconds; the nearest rank.
fn quantile(us: &[f32], q: f64) -> Option<f64> {
    let mut sorted = us.to_vec();
    let at = (q * sorted.len().checked_sub(1)? as f64).round() as usize;
    let (_, value, _) = sorted.select_nth_unstable_by(at, f32::total_cmp);
    Some(f64::from(*value) / 1e3)
}
