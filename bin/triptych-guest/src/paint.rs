//! `triptych-guest paint`.

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use streaming::canvas::Canvas;
use streaming::pace::Ticker;

use crate::options::PaintOptions;
use crate::signals::StopSignals;

/// Paints until told to stop.
pub(crate) fn run(options: &PaintOptions) -> anyhow::Result<()> {
    anyhow::ensure!(
        options.fps > 0.0 && options.fps <= streaming::encode::MAX_FPS,
        "--fps {} is out of range: use a number above 0, up to {}",
        options.fps,
        streaming::encode::MAX_FPS
    );
    let signals = StopSignals::register()?;
    let mut canvas = Canvas::open(&options.display, options.scene, options.size)?;
    let mut ticker = Ticker::start(options.fps).context("no timer")?;
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN), PollFd::new(&ticker, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll failed"),
        }
        if signals.came() {
            return Ok(());
        }
        if let Some(tick) = ticker.take().context("timer failed")? {
            canvas.show(tick.at)?;
        }
    }
}
