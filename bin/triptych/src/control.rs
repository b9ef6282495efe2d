//! `triptych note` and `triptych set`: what a person wants of a record under way.

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use recording::collector::CONTROL;
use recording::control::{self, ControlError};
use recording::hold::is_held;
use recording::spec::{Level, Panel};
use recording::{Address, read_token};

use crate::Exit;
use crate::locate::locate;

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The study that is being recorded: its folder, its name below --results, or `latest`
    #[arg(long, value_name = "STUDY", default_value = "latest")]
    pub(crate) study: String,
    /// Folder of the studies
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub(crate) results: PathBuf,
    /// Address of the collector, where the study is on another machine
    #[arg(long, value_name = "ADDRESS", conflicts_with = "study")]
    pub(crate) collector: Option<Address>,
    /// File whose first line is the collector's token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  triptych note \"the fan is loud now\"")]
pub(crate) struct Note {
    /// The remark
    pub(crate) text: String,
    /// The panel that it is about
    #[arg(long)]
    pub(crate) panel: Option<Panel>,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  triptych set guest bitrate        prints what is in force
  triptych set guest bitrate 2      changes it, and prints what is in force then")]
pub(crate) struct Set {
    /// The panel whose program is meant: guest, host or client
    pub(crate) panel: Panel,
    /// The setting
    pub(crate) name: String,
    /// Its new value [default: leave it, and print what is in force]
    pub(crate) value: Option<String>,
    #[command(flatten)]
    pub(crate) place: Where,
}

pub(crate) fn note(options: &Note) -> anyhow::Result<Exit> {
    let (address, token) = options.place.find()?;
    control::note(&address, token.as_deref(), options.panel, &options.text)?;
    Ok(Exit::Success)
}

pub(crate) fn set(options: &Set) -> anyhow::Result<Exit> {
    let (address, token) = options.place.find()?;
    let (token, panel, name) = (token.as_deref(), options.panel, &options.name);
    let outcome = match &options.value {
        Some(value) => control::set(&address, token, panel, name, level(value)),
        None => control::get(&address, token, panel, name),
    };
    let in_force = match outcome {
        Err(ControlError::Refused(why)) => bail!("{name}: {why}"),
        other => other?,
    };
    if let Some(level) = in_force {
        writeln!(stdout(), "{} = {level}", options.name)?;
    }
    Ok(Exit::Success)
}

/// A word as TOML would read it where it is a number or a flag, else as it is.
fn level(word: &str) -> Level {
    if let Ok(flag) = word.parse() {
        return Level::Bool(flag);
    }
    if let Ok(whole) = word.parse() {
        return Level::Int(whole);
    }
    match word.parse::<f64>() {
        Ok(number) if number.is_finite() => Level::Float(number),
        _ => Level::Text(word.to_owned()),
    }
}

impl Where {
    fn find(&self) -> anyhow::Result<(Address, Option<String>)> {
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        let address = match &self.collector {
            Some(address) => address.clone(),
            None => under_way(&locate(&self.study, &self.results)?)?,
        };
        Ok((address, token))
    }
}

/// Address of the collector of the run that is under way.
fn under_way(study: &Path) -> anyhow::Result<Address> {
    if !is_held(study) {
        bail!("no run of {} is under way", study.display());
    }
    let runs = study.join("runs");
    let folders = fs::read_dir(&runs).with_context(|| format!("cannot read {}", runs.display()))?;
    let mut found: Vec<_> = folders
        .filter_map(|entry| Some(entry.ok()?.path().join(CONTROL)))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    let Some((_, path)) = found.pop() else {
        bail!("no run of {} is under way", study.display());
    };
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_levels_as_in_a_study_file() {
        for (word, expected) in [
            ("true", Level::Bool(true)),
            ("30", Level::Int(30)),
            ("0.5", Level::Float(0.5)),
            ("vp8", Level::Text("vp8".into())),
            ("nan", Level::Text("nan".into())),
        ] {
            assert_eq!(level(word), expected);
        }
    }
}
