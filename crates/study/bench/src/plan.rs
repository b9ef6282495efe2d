//! From a study file to a design: the whole product, each repeat a block in its own random order.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use recording::facts::{FORMAT, FORMAT_MINOR, PlannedPoint, PlannedRun, StudyFacts};

use crate::study_file::StudyFile;

/// Name and version of the writer, for the files of facts.
pub const WRITER: &str = concat!("triptych ", env!("CARGO_PKG_VERSION"));

/// A seed nobody chose. 53 bits, so that every reader of TOML and JSON gets it back exactly.
pub fn fresh_seed() -> u64 {
    rand::random::<u64>() >> 11
}

/// The design of `study`, named `name`, created at `created` (RFC 3339).
///
/// The order depends on the seed and on nothing else: the same seed gives the same order on every machine
/// (ChaCha8, whose stream is specified).
pub fn plan(study: &StudyFile, name: &str, created: String, seed: u64) -> StudyFacts {
    let points: Vec<_> = study
        .points(seed)
        .into_iter()
        .zip(0..)
        .map(|(levels, index)| PlannedPoint { index, levels })
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut runs = Vec::new();
    let digits = |n: usize, least: usize| n.to_string().len().max(least);
    let wide = digits(points.len() * study.repeats as usize, 4);
    let (wide_point, wide_repeat) =
        (digits(points.len().saturating_sub(1), 2), digits(study.repeats as usize - 1, 1));
    for repeat in 0..study.repeats {
        let mut order: Vec<u32> = points.iter().map(|p| p.index).collect();
        order.shuffle(&mut rng);
        for point in order {
            let id = format!("r{:0wide$}-p{point:0wide_point$}-k{repeat:0wide_repeat$}", runs.len() + 1);
            runs.push(PlannedRun { id, point, repeat });
        }
    }
    StudyFacts {
        format: FORMAT,
        minor: FORMAT_MINOR,
        writer: WRITER.into(),
        name: name.into(),
        description: study.title.clone(),
        created,
        seed,
        warmup_s: study.warmup_s,
        record_s: study.record_s,
        repeats: study.repeats,
        varied: study.factors.iter().map(|(name, _)| name.clone()).collect(),
        fixed: study.fixed.clone(),
        points,
        runs,
        subject: study.subject.clone(),
    }
}
