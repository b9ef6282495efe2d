//! `triptych-agent run`.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::catalogue;
use agent::recorder::{self, RecorderOptions};
use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Exit;
use crate::options;

pub(crate) fn run(options: &options::Run) -> anyhow::Result<Exit> {
    let (mut signals, told) = UnixStream::pair().context("no socket pair for signals")?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    let mut samplers = Vec::new();
    let usual = Duration::from_secs_f64(1.0 / options.rate);
    if !options.sampling.no_defaults {
        samplers.extend(catalogue::defaults().into_iter().map(|sampler| (sampler, usual)));
    }
    for choice in &options.sampling.samplers {
        let every = choice.hz.map_or(usual, |hz| Duration::from_secs_f64(1.0 / hz));
        let sampler = choice.open()?;
        // Who names a sampler that is taken anyway wants another rate.
        samplers.retain(|(s, _)| choice.target.is_some() || s.info().name != choice.name);
        samplers.push((sampler, every));
    }
    let recorder = recorder::start(RecorderOptions {
        collector: options.collector.clone(),
        panel: options.panel,
        source: options.source.clone(),
        token: options.token_file.as_deref().map(token).transpose()?,
        samplers,
        probes: folder(options.probes.clone(), || Some(probes())),
        spool: folder(options.spool.clone(), spool),
        keep: options.keep as usize * (1 << 20),
    })?;
    tracing::info!("panel {} reports to {}", options.panel, options.collector);
    let _ = signals.read(&mut [0; 16]);
    recorder.finish();
    Ok(Exit::Success)
}

/// The first line of a file that others cannot read.
fn token(path: &Path) -> anyhow::Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() {
        bail!("{}: its first line is to be the token, and is empty", path.display());
    }
    Ok(token.to_owned())
}

fn folder(asked: Option<PathBuf>, usual: impl FnOnce() -> Option<PathBuf>) -> Option<PathBuf> {
    match asked {
        Some(path) if path == Path::new("none") => None,
        Some(path) => Some(path),
        None => usual(),
    }
}

fn probes() -> PathBuf {
    std::env::var_os(probe::FOLDER_VARIABLE)
        .filter(|v| !v.is_empty())
        .map_or_else(probe::default_folder, PathBuf::from)
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
