//! A panel's recorder: samplers and probes to a collector.
