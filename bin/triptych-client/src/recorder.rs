//! The collector, when there is one.

use std::collections::BTreeMap;

use agent::{AgentHandle, AgentOptions, Ready};
use probe::Probe;
use recording::spec::{Level, Levels};
use spice::messages::StreamCreate;

use crate::options::Options;

/// Reports to the collector; does nothing without one.
pub(crate) struct Recorder(Option<AgentHandle>);

impl Recorder {
    /// Connects to the collector that the options name.
    pub(crate) fn start(options: &Options, probe: &Probe) -> anyhow::Result<Self> {
        let Some(collector) = &options.collector else { return Ok(Self(None)) };
        let (program, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let agent = AgentOptions::new(collector.clone(), options.panel, program, version);
        Ok(Self(Some(agent::start(agent, probe)?)))
    }

    /// A stream is being shown.
    pub(crate) fn ready(
        &self,
        stream: &StreamCreate,
        decoder: &str,
        window: bool,
        mut versions: BTreeMap<String, String>,
    ) {
        let Some(agent) = &self.0 else { return };
        versions.insert(env!("CARGO_PKG_NAME").into(), env!("CARGO_PKG_VERSION").into());
        let in_force = Levels::from([
            ("codec".to_owned(), Level::Text(stream.codec.to_string())),
            ("width".to_owned(), Level::Int(stream.width.into())),
            ("height".to_owned(), Level::Int(stream.height.into())),
            ("decoder".to_owned(), Level::Text(decoder.to_owned())),
            ("window".to_owned(), Level::Bool(window)),
        ]);
        agent.ready(Ready { in_force, versions, ..Ready::default() });
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
