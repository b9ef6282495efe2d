//! Cost of a frame before it is encoded: painting a scene, and capturing a display.
//!
//! The display is that of `DISPLAY`; without one, capture is left out.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use streaming::frame::{FramePool, FrameSize};
use streaming::scene::{Painter, Scene};
use streaming::source::SourceSpec;
use units::Nanos;

fn paint(c: &mut Criterion) {
    let Ok(size) = FrameSize::new(640, 360) else { return };
    let mut frame = vec![0; size.bytes()];
    for scene in Scene::ALL {
        let painter = Painter::new(scene, size);
        let mut tick = 0;
        c.bench_function(&format!("paint {scene} {size}"), |b| {
            b.iter(|| {
                tick += 8;
                painter.paint(tick, &mut frame);
            });
        });
    }
}

fn capture(c: &mut Criterion) {
    let Ok(display) = std::env::var("DISPLAY") else {
        eprintln!("capture left out: DISPLAY is not set (xvfb-run cargo bench -p streaming)");
        return;
    };
    let Ok(size) = FrameSize::new(640, 360) else { return };
    let opened = SourceSpec::X11(display).open(Some(size));
    match (opened, FramePool::new(size, 1)) {
        (Ok(mut source), Ok(mut pool)) => {
            c.bench_function(&format!("capture {size}"), |b| {
                b.iter(|| source.capture(&mut pool, 0, Nanos::ZERO));
            });
        }
        (Err(error), _) => eprintln!("capture left out: {error}"),
        (_, Err(error)) => eprintln!("capture left out: {error}"),
    }
}

criterion_group!(benches, paint, capture);
criterion_main!(benches);
