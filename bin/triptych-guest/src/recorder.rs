//! The collector, when there is one.

use agent::{AgentHandle, AgentOptions, Ready};
use probe::Probe;
use recording::spec::{Level, Levels};
use streaming::encode::InForce;
use streaming::frame::FrameSize;

use crate::options::StreamOptions;

/// Reports to the collector; does nothing without one.
pub(crate) struct Recorder(Option<AgentHandle>);

impl Recorder {
    /// Connects to the collector that the options name.
    pub(crate) fn start(options: &StreamOptions, probe: &Probe) -> anyhow::Result<Self> {
        let Some(collector) = &options.collector else { return Ok(Self(None)) };
        let (program, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let agent = AgentOptions::new(collector.clone(), options.panel, program, version);
        Ok(Self(Some(agent::start(agent, probe)?)))
    }

    /// The stream runs with these settings.
    pub(crate) fn ready(&self, options: &StreamOptions, size: FrameSize, in_force: &InForce) {
        let Some(agent) = &self.0 else { return };
        let settings = options.encoder_settings(size);
        let mut levels = Levels::from([
            ("source".to_owned(), Level::Text(options.source.to_string())),
            ("width".to_owned(), Level::Int(size.width().into())),
            ("height".to_owned(), Level::Int(size.height().into())),
            ("codec".to_owned(), Level::Text(settings.codec.to_string())),
            ("encoder".to_owned(), Level::Text(settings.element().to_owned())),
            ("fps".to_owned(), Level::Float(settings.fps)),
            ("bitrate".to_owned(), Level::Float(f64::from(settings.bitrate_kbps) / 1e3)),
            ("gop".to_owned(), Level::Int(settings.gop.into())),
        ]);
        for (name, value) in &in_force.properties {
            levels.insert(format!("encoder.{name}"), level(value));
        }
        let mut versions = in_force.versions.clone();
        versions.insert(env!("CARGO_PKG_NAME").into(), env!("CARGO_PKG_VERSION").into());
        agent.ready(Ready { in_force: levels, versions, ..Ready::default() });
    }

    /// The program cannot go on.
    pub(crate) fn fault(&self, reason: &str) {
        if let Some(agent) = &self.0 {
            agent.fault(reason);
        }
    }

    /// Something happened just now.
    pub(crate) fn mark(&self, kind: &str, text: &str) {
        if let Some(agent) = &self.0 {
            agent.mark(kind, text);
        }
    }

    /// Whether the collector wants the program to end, or is gone.
    pub(crate) fn stop_requested(&self) -> bool {
        self.0.as_ref().is_some_and(AgentHandle::stop_requested)
    }

    /// Sends what is left.
    pub(crate) fn finish(self) {
        if let Some(agent) = self.0 {
            agent.finish();
        }
    }
}

/// A property's text as the narrowest level that holds it.
fn level(text: &str) -> Level {
    if let Ok(value) = text.parse() {
        return Level::Bool(value);
    }
    if let Ok(value) = text.parse() {
        return Level::Int(value);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Level::Float(value),
        _ => Level::Text(text.into()),
    }
}
