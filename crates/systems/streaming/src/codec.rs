//! The codecs that a stream can have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A video codec that SPICE streams carry (`spice/enums.h`, `SPICE_VIDEO_CODEC_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Motion JPEG: every frame stands alone.
    Mjpeg,
    /// VP8.
    Vp8,
    /// H.264 as an Annex B byte stream.
    H264,
    /// VP9.
    Vp9,
    /// H.265 as an Annex B byte stream.
    H265,
}

impl Codec {
    /// Every codec, in order of SPICE's numbers.
    pub const ALL: [Self; 5] = [Self::Mjpeg, Self::Vp8, Self::H264, Self::Vp9, Self::H265];

    /// Name in options, study files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mjpeg => "mjpeg",
            Self::Vp8 => "vp8",
            Self::H264 => "h264",
            Self::Vp9 => "vp9",
            Self::H265 => "h265",
        }
    }

    /// SPICE's number of the codec.
    pub fn spice_type(self) -> u8 {
        match self {
            Self::Mjpeg => 1,
            Self::Vp8 => 2,
            Self::H264 => 3,
            Self::Vp9 => 4,
            Self::H265 => 5,
        }
    }

    /// The inverse of [`Codec::spice_type`].
    pub fn from_spice_type(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.spice_type() == number)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no codec.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a codec: use mjpeg, vp8, h264, vp9 or h265")]
pub struct UnknownCodec(String);

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|c| c.name() == s).ok_or_else(|| UnknownCodec(s.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_the_codec() {
        for codec in Codec::ALL {
            assert_eq!(codec.name().parse(), Ok(codec));
            assert_eq!(Codec::from_spice_type(codec.spice_type()), Some(codec));
        }
        assert!("av1".parse::<Codec>().is_err());
        assert_eq!(Codec::from_spice_type(0), None);
    }
}
