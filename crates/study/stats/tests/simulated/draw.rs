//! Random values of known distributions.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A source of values.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform, 0 to 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// Standard normal (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Exponential of mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// Values of an autoregression of order 1 with mean 0 and standard deviation 1.
    pub(crate) fn autoregression(&mut self, n: usize, keep: f64) -> Vec<f64> {
        let mut v = self.normal();
        (0..n)
            .map(|_| {
                v = keep * v + (1.0 - keep * keep).sqrt() * self.normal();
                v
            })
            .collect()
    }
}

/// Values of runs: what differs from run to run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Normal, of mean 100 and standard deviation 5.
    Normal,
    /// Lognormal, with this standard deviation of the logarithm.
    Lognormal(f64),
    /// A floor of 50 and an exponential of mean 50.
    Exponential,
    /// Normal, and one run in ten three times as large.
    Outliers,
}

impl Shape {
    pub(crate) fn draw(self, draw: &mut Draw) -> f64 {
        match self {
            Self::Normal => 100.0 + 5.0 * draw.normal(),
            Self::Lognormal(sigma) => 100.0 * (sigma * draw.normal()).exp(),
            Self::Exponential => 50.0 + 50.0 * draw.exponential(),
            Self::Outliers => (100.0 + 5.0 * draw.normal()) * if draw.uniform() < 0.1 { 3.0 } else { 1.0 },
        }
    }

    pub(crate) fn mean(self) -> f64 {
        match self {
            Self::Normal | Self::Exponential => 100.0,
            Self::Lognormal(sigma) => 100.0 * (sigma * sigma / 2.0).exp(),
            Self::Outliers => 120.0,
        }
    }
}
