//! The collector, when there is one.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use agent::{AgentHandle, AgentOptions, Ready};
use probe::Probe;
use recording::spec::{Level, Levels};

use crate::options::Options;

/// How often the loop looks whether the collector is still there.
pub(crate) const LOOK_EVERY: units::Nanos = units::Nanos(100_000_000);

/// Reports to the collector; does nothing without one.
pub(crate) struct Recorder(Option<AgentHandle>);

impl Recorder {
    /// Connects to the collector that the options name.
    pub(crate) fn start(options: &Options, probe: &Probe) -> anyhow::Result<Self> {
        let Some(collector) = &options.collector else { return Ok(Self(None)) };
        let (program, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let agent = AgentOptions {
            machine: options.machine,
            ..AgentOptions::new(collector.clone(), options.panel, program, version)
        };
        Ok(Self(Some(agent::start(agent, probe)?)))
    }

    /// Clients and a guest may connect.
    pub(crate) fn ready(&self, options: &Options, address: SocketAddr) {
        let Some(agent) = &self.0 else { return };
        let ticket = Level::Bool(options.ticket_file.is_some());
        agent.ready(Ready {
            in_force: Levels::from([("ticket".to_owned(), ticket)]),
            versions: BTreeMap::from([
                (env!("CARGO_PKG_NAME").to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
                ("libspice-server".to_owned(), spice_server::version()),
            ]),
            facts: BTreeMap::from([
                ("spice_port".to_owned(), address.port().to_string()),
                ("spice_address".to_owned(), address.to_string()),
            ]),
        });
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

    /// Whether there is a collector.
    pub(crate) fn is_recording(&self) -> bool {
        self.0.is_some()
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
