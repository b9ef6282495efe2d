//! The SPICE protocol: messages, link, client channels, stream device.
