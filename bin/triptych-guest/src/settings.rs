//! Settings that are changed while the guest streams.

use recording::spec::Level;
use streaming::encode::{EncoderSettings, InForce, MAX_BITRATE_KBPS, MAX_FPS, MIN_FPS, Rates};

/// A setting that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// Mbit/s.
    Bitrate,
    /// Hz.
    Fps,
}

impl Live {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Bitrate, Self::Fps];

    /// As in a study file and in what is in force.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bitrate => "bitrate",
            Self::Fps => "fps",
        }
    }

    /// What it may be.
    pub(crate) fn range(self) -> String {
        match self {
            Self::Bitrate => format!("0.001 to {} Mbit/s", MAX_BITRATE_KBPS / 1000),
            Self::Fps => format!("{MIN_FPS} to {MAX_FPS} Hz"),
        }
    }

    /// By name; the error is for whoever asked.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|live| live.name() == name)
            .ok_or_else(|| format!("it cannot be changed while the guest streams; these can: {}", list()))
    }

    /// The rates with this one changed.
    pub(crate) fn change(self, value: &Level, rates: Rates) -> Result<Rates, String> {
        let number = match value {
            Level::Int(whole) => Some(*whole as f64),
            Level::Float(number) => Some(*number),
            _ => None,
        };
        let changed = number.and_then(|number| match self {
            Self::Bitrate => {
                let kbps = (number * 1000.0).round();
                (1.0..=f64::from(MAX_BITRATE_KBPS))
                    .contains(&kbps)
                    .then_some(Rates { bitrate_kbps: kbps as u32, ..rates })
            }
            Self::Fps => (MIN_FPS..=MAX_FPS).contains(&number).then_some(Rates { fps: number, ..rates }),
        });
        changed.ok_or_else(|| format!("{value} is out of range: use {}", self.range()))
    }

    /// What is in force, as the encoder says where it knows.
    pub(crate) fn in_force(self, settings: &EncoderSettings, said: &InForce) -> Level {
        Level::Float(match self {
            Self::Bitrate => {
                let asked = f64::from(settings.bitrate_kbps);
                said.bitrate_kbps(settings.element()).unwrap_or(asked) / 1000.0
            }
            Self::Fps => settings.fps,
        })
    }
}

/// All of them with their ranges.
pub(crate) fn list() -> String {
    Live::ALL.map(|live| format!("{} ({})", live.name(), live.range())).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        let rates = Rates { fps: 30.0, bitrate_kbps: 4000 };
        for (live, value, expected) in [
            (Live::Bitrate, Level::Int(2), Some(Rates { bitrate_kbps: 2000, ..rates })),
            (Live::Bitrate, Level::Float(0.001), Some(Rates { bitrate_kbps: 1, ..rates })),
            (Live::Bitrate, Level::Float(0.0001), None),
            (Live::Bitrate, Level::Int(2001), None),
            (Live::Fps, Level::Float(59.94), Some(Rates { fps: 59.94, ..rates })),
            (Live::Fps, Level::Int(0), None),
            (Live::Fps, Level::Int(1001), None),
            (Live::Fps, Level::Text("fast".into()), None),
            (Live::Fps, Level::Bool(true), None),
        ] {
            let changed = live.change(&value, rates);
            assert_eq!(changed.as_ref().ok(), expected.as_ref(), "{live:?} {value}");
            assert!(changed.err().is_none_or(|why| why.contains(&live.range())));
        }
        assert!(Live::named("gop").unwrap_err().contains("bitrate (0.001 to 2000 Mbit/s), fps"));
    }
}
