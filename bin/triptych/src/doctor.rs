//! `triptych doctor`: what is here, what is missing, which Debian package brings it.

use std::env;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use subjects::streaming::{PROGRAMS, programs_folder};

use crate::Exit;
use crate::args;

/// One thing that was looked for.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    present: bool,
    /// Without it no study runs; otherwise something is only narrower.
    required: bool,
    /// Empty for what is there.
    remedy: String,
}

pub(crate) fn doctor(options: &args::Doctor) -> anyhow::Result<Exit> {
    let programs = programs_folder();
    let mut findings: Vec<_> = PROGRAMS.iter().map(|name| program(&programs, name)).collect();
    findings.push(Finding {
        what: "Xvfb".into(),
        present: on_path("Xvfb"),
        required: false,
        remedy: "apt install xvfb (or use source = \"scene\" in studies)".into(),
    });
    findings.extend(encoders(&programs.join("triptych-guest")));
    for found in findings.iter_mut().filter(|f| f.present) {
        found.remedy.clear();
    }
    let well = findings.iter().all(|f| f.present || !f.required);
    if options.json {
        writeln!(stdout(), "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        for f in &findings {
            let (mark, remedy) = match (f.present, f.required) {
                (true, _) => ("ok     ", String::new()),
                (false, true) => ("MISSING", format!("  → {}", f.remedy)),
                (false, false) => ("absent ", format!("  → {}", f.remedy)),
            };
            writeln!(stdout(), "{mark}  {}{remedy}", f.what)?;
        }
    }
    Ok(if well { Exit::Success } else { Exit::Failure })
}

fn program(folder: &Path, name: &str) -> Finding {
    let path = folder.join(name);
    // Started, not only found: a library that is missing (libspice-server) shows only then.
    let started = Command::new(&path).arg("--version").output();
    let present = started.as_ref().is_ok_and(|o| o.status.success());
    let remedy = match started {
        Err(_) => "cargo build --release --bins, or set TRIPTYCH_PROGRAMS to its folder".into(),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("it does not start: {}", said.lines().last().unwrap_or("no message"))
        }
    };
    Finding { what: path.display().to_string(), present, required: true, remedy }
}

/// An encoder as `triptych-guest encoders --json` lists it.
#[derive(Debug, Deserialize)]
struct Encoder {
    element: String,
    codec: String,
    installed: bool,
    #[serde(default)]
    package: String,
}

fn encoders(guest: &Path) -> Vec<Finding> {
    let output = Command::new(guest).args(["encoders", "--json"]).output();
    let listed: Vec<Encoder> = match output {
        Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout).unwrap_or_default(),
        _ => Vec::new(),
    };
    if listed.is_empty() {
        return vec![Finding {
            what: "GStreamer encoders".into(),
            present: false,
            required: true,
            remedy:
                "apt install gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
                    .into(),
        }];
    }
    listed
        .into_iter()
        .map(|e| Finding {
            what: format!("{} encoder {}", e.codec, e.element),
            present: e.installed,
            required: false,
            remedy: format!("apt install {}", e.package),
        })
        .collect()
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
