//! The encoders that are known: element, Debian package, and the settings that make each one encode at once.

use serde::Serialize;

use super::EncoderSettings;
use crate::codec::Codec;

/// One encoder element that the guest knows how to set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it encodes.
    pub codec: Codec,
    /// GStreamer element.
    pub element: &'static str,
    /// Debian package that brings it.
    pub package: &'static str,
}

/// Every known encoder; the first of a codec is its default.
pub const KNOWN: [Known; 6] = [
    Known { codec: Codec::Mjpeg, element: "jpegenc", package: "gstreamer1.0-plugins-good" },
    Known { codec: Codec::Vp8, element: "vp8enc", package: "gstreamer1.0-plugins-good" },
    Known { codec: Codec::H264, element: "x264enc", package: "gstreamer1.0-plugins-ugly" },
    Known { codec: Codec::H264, element: "openh264enc", package: "gstreamer1.0-plugins-bad" },
    Known { codec: Codec::Vp9, element: "vp9enc", package: "gstreamer1.0-plugins-good" },
    Known { codec: Codec::H265, element: "x265enc", package: "gstreamer1.0-plugins-bad" },
];

/// A known encoder and whether this machine has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncoderEntry {
    /// What it encodes.
    pub codec: Codec,
    /// GStreamer element.
    pub element: &'static str,
    /// Whether GStreamer can make one.
    pub installed: bool,
    /// Whether it is the one used when only the codec is named.
    pub default: bool,
    /// Debian package that brings it.
    pub package: &'static str,
    /// Version of the plugin, when installed.
    pub version: Option<String>,
}

/// The encoder used for a codec when none is named.
pub fn default_element(codec: Codec) -> &'static str {
    KNOWN.iter().find(|k| k.codec == codec).map_or("", |k| k.element)
}

/// The package that brings `element`, as far as is known.
pub fn package_of(element: &str) -> Option<&'static str> {
    KNOWN.iter().find(|k| k.element == element).map(|k| k.package)
}

/// The property that holds an element's bit rate, and its unit in bits a second.
pub(super) fn bitrate(element: &str) -> Option<(&'static str, f64)> {
    match element {
        "x264enc" | "x265enc" => Some(("bitrate", 1000.0)),
        "openh264enc" => Some(("bitrate", 1.0)),
        "vp8enc" | "vp9enc" => Some(("target-bitrate", 1.0)),
        _ => None,
    }
}

/// Whether the bit rate of the settings reaches the element.
pub(super) fn has_rate(element: &str) -> bool {
    element == "jpegenc" || bitrate(element).is_some()
}

/// Whether an element follows another bit rate while it plays. `x265enc` says so, but its buffer model, without which
/// the rate is not kept, is fixed when it starts; of an unknown element nothing is known.
pub(super) fn is_live(element: &str) -> bool {
    matches!(element, "x264enc" | "openh264enc" | "vp8enc" | "vp9enc" | "jpegenc")
}

/// Whether a property of the element, set by a person, decides its bit rate.
pub(super) fn steers_rate(element: &str, property: &str) -> bool {
    let own = bitrate(element).map_or("quality", |(name, _)| name);
    property == own || (element == "x265enc" && property == "option-string")
}

/// Those of [`defaults`] that hold the bit rate.
pub(super) fn rate_properties(settings: &EncoderSettings) -> Vec<(&'static str, String)> {
    let Some((property, _)) = bitrate(settings.element()) else { return Vec::new() };
    let mut all = defaults(settings.element(), settings);
    all.retain(|(name, _)| *name == property);
    all
}

/// Low-latency settings as property and value, in the element's own units. What the person sets comes after these.
///
/// Common rules: no B-frames and no lookahead (a unit comes out for each frame that goes in), constant bit rate, and
/// keyframes no further apart than the period asked for.
pub(super) fn defaults(element: &str, settings: &EncoderSettings) -> Vec<(&'static str, String)> {
    let kbps = settings.bitrate_kbps.to_string();
    let bps = (u64::from(settings.bitrate_kbps) * 1000).to_string();
    let gop = settings.gop.to_string();
    match element {
        "x264enc" => vec![
            ("tune", "zerolatency".into()),
            ("speed-preset", "ultrafast".into()),
            ("key-int-max", gop),
            ("bitrate", kbps),
            ("bframes", "0".into()),
        ],
        "openh264enc" => vec![
            ("rate-control", "bitrate".into()),
            ("complexity", "low".into()),
            ("gop-size", gop),
            ("bitrate", bps),
            // Skipping would leave frames without a unit.
            ("enable-frame-skip", "false".into()),
            ("scene-change-detection", "false".into()),
        ],
        "vp8enc" | "vp9enc" => {
            let mut list = vec![
                ("deadline", "1".into()),
                ("cpu-used", if element == "vp8enc" { "16" } else { "8" }.into()),
                ("target-bitrate", bps),
                ("end-usage", "cbr".into()),
                ("error-resilient", "default".into()),
                ("keyframe-max-dist", gop),
                ("lag-in-frames", "0".into()),
                // A second of buffer instead of six: rate control as libwebrtc sets it for calls.
                ("buffer-size", "1000".into()),
                ("buffer-initial-size", "500".into()),
                ("buffer-optimal-size", "600".into()),
            ];
            if element == "vp9enc" {
                list.push(("row-mt", "true".into()));
            }
            list
        }
        "x265enc" => vec![
            ("tune", "zerolatency".into()),
            ("speed-preset", "ultrafast".into()),
            ("key-int-max", gop),
            ("bitrate", kbps),
            // x265's own default is open GOPs and scene cuts; a stream that is joined needs closed ones.
            (
                "option-string",
                "bframes=0:open-gop=0:scenecut=0:repeat-headers=1:strict-cbr=1:vbv-maxrate={kbps}:vbv-bufsize={kbps}"
                    .replace("{kbps}", &settings.bitrate_kbps.to_string()),
            ),
        ],
        // jpegenc has no rate control: see `quality`.
        "jpegenc" => vec![("quality", super::quality::START.to_string()), ("idct-method", "ifast".into())],
        _ => Vec::new(),
    }
}
