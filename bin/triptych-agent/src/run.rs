//! `triptych-agent run`.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use agent::catalogue;
use agent::recorder::{self, RecorderOptions};
use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Exit;
use crate::options;

pub(crate) fn run(options: &options::Run) -> anyhow::Result<Exit> {
    let (mut signals, told) = UnixStream::pair().context("no socket pair for signals")?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    let sampling = &options.sampling;
    let samplers = catalogue::chosen(sampling.no_defaults, &sampling.samplers, options.rate)?;
    let recorder = recorder::start(RecorderOptions {
        collector: options.collector.clone(),
        panel: options.panel,
        source: options.source.clone(),
        token: options.token_file.as_deref().map(recording::read_token).transpose()?,
        samplers,
        probes: folder(options.probes.clone(), || Some(probe::readers_folder())),
        spool: folder(options.spool.clone(), spool),
        keep: options.keep as usize * (1 << 20),
    })?;
    tracing::info!("panel {} reports to {}", options.panel, options.collector);
    let _ = signals.read(&mut [0; 16]);
    recorder.finish();
    Ok(Exit::Success)
}

fn folder(asked: Option<PathBuf>, usual: impl FnOnce() -> Option<PathBuf>) -> Option<PathBuf> {
    match asked {
        Some(path) if path == Path::new("none") => None,
        Some(path) => Some(path),
        None => usual(),
    }
}

fn spool() -> Option<PathBuf> {
    if rustix::process::getuid().is_root() {
        return Some("/var/lib/triptych".into());
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    if state.is_none() {
        tracing::warn!("no $HOME: what cannot be sent is kept in memory only");
    }
    Some(state?.join("triptych"))
}
