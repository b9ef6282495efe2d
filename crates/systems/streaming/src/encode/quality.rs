//! A bit rate for `jpegenc`, which has none of its own: after each frame its `quality` (changeable while playing) is
//! moved towards the size that the bit rate allows a frame.
//!
//! Honest limits: it reacts to the last frame only, so the first frames and a sudden change of the picture miss the
//! rate, and what quality [`MIN`] cannot reach is sent all the same.

/// Quality of the first frame.
pub(super) const START: i32 = 60;
/// Lowest quality used: below it JPEG falls apart and hardly shrinks.
const MIN: i32 = 5;
/// Highest quality used: above it size grows without anything to see.
const MAX: i32 = 95;

/// The controller of one stream.
#[derive(Debug)]
pub(super) struct QualityControl {
    quality: f64,
    target_bytes: f64,
}

impl QualityControl {
    pub(super) fn new(bitrate_kbps: u32, fps: f64) -> Self {
        let mut control = Self { quality: f64::from(START), target_bytes: 1.0 };
        control.aim(bitrate_kbps, fps);
        control
    }

    /// Other rates, from the next frame on.
    pub(super) fn aim(&mut self, bitrate_kbps: u32, fps: f64) {
        self.target_bytes = (f64::from(bitrate_kbps) * 125.0 / fps).max(1.0);
    }

    /// The quality for the next frame, the last one having had `bytes`.
    pub(super) fn next(&mut self, bytes: usize) -> i32 {
        // Around the middle a point of quality changes the size by about 1.5 %: half of the way there per frame,
        // 12 points at most, is quick and does not swing.
        let excess = (bytes as f64 / self.target_bytes).ln();
        self.quality -= (excess / 0.015 * 0.5).clamp(-12.0, 12.0);
        self.quality = self.quality.clamp(f64::from(MIN), f64::from(MAX));
        self.quality.round() as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of about 20 kB at quality 50, 1.5 % a point.
    fn size(quality: i32) -> usize {
        (20_000.0 * (f64::from(quality - 50) * 0.015).exp()) as usize
    }

    #[test]
    fn size_settles_at_the_bit_rate() {
        let mut control = QualityControl::new(4_000, 30.0);
        let mut quality = START;
        for _ in 0..30 {
            quality = control.next(size(quality));
        }
        let kbps = size(quality) as f64 * 30.0 * 8.0 / 1000.0;
        assert!((3_600.0..4_400.0).contains(&kbps), "{kbps}");
    }

    #[test]
    fn what_cannot_be_reached_stops_at_the_ends() {
        let mut control = QualityControl::new(1, 60.0);
        assert_eq!((0..50).map(|_| control.next(1_000_000)).last(), Some(MIN));
        assert_eq!((0..50).map(|_| control.next(0)).last(), Some(MAX));
    }
}
