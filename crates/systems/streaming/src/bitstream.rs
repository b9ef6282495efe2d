//! What can be told of an access unit without decoding it.

use crate::codec::Codec;

/// Whether decoding can start at this access unit, as far as its first bytes tell. Never panics, whatever the bytes.
///
/// Sources: RFC 6386 section 9.1 (VP8), VP9 bitstream specification 6.2, ITU-T H.264 table 7-1, H.265 table 7-1.
pub fn is_keyframe(codec: Codec, unit: &[u8]) -> bool {
    match codec {
        Codec::Mjpeg => true,
        Codec::Vp8 => unit.first().is_some_and(|b| b & 1 == 0),
        Codec::Vp9 => unit.first().is_some_and(|b| vp9_keyframe(*b)),
        // The first slice decides; parameter sets and the like come before it.
        Codec::H264 => nal_headers(unit).map(|b| b & 0x1f).find(|t| (1..=5).contains(t)) == Some(5),
        Codec::H265 => {
            nal_headers(unit).map(|b| b >> 1 & 0x3f).find(|t| *t < 32).is_some_and(|t| (16..=21).contains(&t))
        }
    }
}

/// `frame_marker(2) profile(2) [reserved(1) in profile 3] show_existing(1) frame_type(1)`, most significant bit first.
fn vp9_keyframe(first: u8) -> bool {
    let profile_3 = first >> 4 & 3 == 3;
    let shift = if profile_3 { 1 } else { 2 };
    let (show_existing, frame_type) = (first >> (shift + 1) & 1, first >> shift & 1);
    first >> 6 == 2 && show_existing == 0 && frame_type == 0
}

/// The byte after each start code of an Annex B byte stream.
fn nal_headers(unit: &[u8]) -> impl Iterator<Item = u8> {
    unit.windows(4).filter(|w| w[..3] == [0, 0, 1]).map(|w| w[3])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(codec: Codec, unit: &[u8], expected: bool) {
        assert_eq!(is_keyframe(codec, unit), expected, "{codec} {unit:x?}");
    }

    #[test]
    fn first_bytes_tell_keyframes() {
        check(Codec::Vp8, &[0x10], true);
        check(Codec::Vp8, &[0x11], false);
        check(Codec::Vp9, &[0x82], true);
        check(Codec::Vp9, &[0x86], false);
        check(Codec::Vp9, &[0x88], false);
        check(Codec::H264, &[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 0, 0, 1, 0x65, 9], true);
        check(Codec::H264, &[0, 0, 0, 1, 0x09, 0xf0, 0, 0, 1, 0x41, 9], false);
        check(Codec::H265, &[0, 0, 1, 0x40, 1, 0, 0, 1, 0x26, 1], true);
        check(Codec::H265, &[0, 0, 1, 0x02, 1], false);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(unit in prop::collection::vec(any::<u8>(), 0..40)) {
            for codec in Codec::ALL {
                is_keyframe(codec, &unit);
            }
        }
    }
}
