//! The collector, when there is one.

use agent::{AgentHandle, AgentOptions, Ready, Wish};
use probe::Probe;
use recording::spec::{Level, Levels};
use streaming::encode::{EncoderSettings, InForce};

use crate::options::StreamOptions;
use crate::settings::{self, Live};

/// Reports to the collector; does nothing without one.
pub(crate) struct Recorder(Option<AgentHandle>);

impl Recorder {
    /// Connects to the collector that the options name.
    pub(crate) fn start(options: &StreamOptions, probe: &Probe) -> anyhow::Result<Self> {
        let Some(collector) = &options.collector else { return Ok(Self(None)) };
        let (program, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let agent = AgentOptions::new(collector.clone(), options.panel, program, version);
        let agent = AgentOptions { settings: true, ..agent };
        Ok(Self(Some(agent::start(agent, probe)?)))
    }

    /// The stream runs with these settings.
    pub(crate) fn ready(&self, source: &str, settings: &EncoderSettings, in_force: &InForce) {
        let Some(agent) = &self.0 else { return };
        let size = settings.size;
        let mut levels = Levels::from([
            ("source".to_owned(), Level::Text(source.to_owned())),
            ("width".to_owned(), Level::Int(size.width().into())),
            ("height".to_owned(), Level::Int(size.height().into())),
            ("codec".to_owned(), Level::Text(settings.codec.to_string())),
            ("encoder".to_owned(), Level::Text(settings.element().to_owned())),
            ("gop".to_owned(), Level::Int(settings.gop.into())),
        ]);
        for live in Live::ALL {
            levels.insert(live.name().to_owned(), live.in_force(settings, in_force));
        }
        for (name, value) in &in_force.properties {
            levels.insert(format!("encoder.{name}"), level(value));
        }
        let mut versions = in_force.versions.clone();
        versions.insert(env!("CARGO_PKG_NAME").into(), env!("CARGO_PKG_VERSION").into());
        let facts = [("live settings".to_owned(), settings::list())].into();
        agent.ready(Ready { in_force: levels, versions, facts });
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

    /// A setting that somebody wants changed.
    pub(crate) fn next_wish(&self) -> Option<Wish> {
        self.0.as_ref()?.next_wish()
    }

    /// Answers a wish: with what is in force now, or with why nothing was changed.
    pub(crate) fn answer(&self, wish: &Wish, outcome: Result<Level, String>) {
        let Some(agent) = &self.0 else { return };
        match outcome {
            Ok(in_force) => agent.applied(wish, in_force),
            Err(why) => agent.refused(wish, &why),
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
