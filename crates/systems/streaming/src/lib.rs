//! Frame sources, encoders in a process of their own, decoders and presentation.
