//! Builds the fuzz targets and runs each for a while; fails on the first input that breaks one.
//!
//! Stable Rust: the coverage that libFuzzer needs is asked of LLVM directly (`fuzz/.cargo/config.toml`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// Longest input tried: several messages of any kind.
const MAX_LEN: usize = 4096;

/// Runs every target for `seconds`, or only `only`.
///
/// # Errors
/// A target cannot be built, or an input breaks it; the input is kept and named.
pub(crate) fn run(seconds: u32, only: Option<&str>) -> anyhow::Result<()> {
    let root =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?.to_owned();
    let fuzz = root.join("fuzz");
    // With a target named, build scripts and macros are built without the instrumentation, which they cannot have.
    let triple = host_triple()?;
    let mut build = Command::new("cargo");
    let built =
        build.args(["build", "--release", "--locked", "--target", &triple]).current_dir(&fuzz).status()?;
    if !built.success() {
        bail!("the fuzz targets cannot be built (g++ is needed: scripts/setup test)");
    }
    let mut targets: Vec<String> = fs::read_dir(fuzz.join("targets"))?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .filter(|name| only.is_none_or(|only| only == name))
        .collect();
    targets.sort();
    if targets.is_empty() {
        bail!("no such fuzz target: {}", only.unwrap_or("(none at all)"));
    }
    for target in &targets {
        one(&root, &triple, target, seconds)?;
    }
    println!("fuzz: {} targets, {seconds} s each, nothing found", targets.len());
    Ok(())
}

fn host_triple() -> anyhow::Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.lines().find_map(|l| l.strip_prefix("host: ")).map(str::to_owned).context("rustc -vV names no host")
}

fn one(root: &Path, triple: &str, target: &str, seconds: u32) -> anyhow::Result<()> {
    let out = root.join("target/fuzz");
    let (corpus, artifacts) = (out.join("corpus").join(target), out.join("artifacts").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let seeds = root.join("fuzz/seeds").join(target);
    let mut command = Command::new(out.join(triple).join("release").join(target));
    command.arg(&corpus);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_LEN}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-verbosity=0", "-timeout=5", "-rss_limit_mb=2048"]);
    let output = command.output().with_context(|| format!("cannot run {target}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{log}");
        bail!("fuzz target {target} was broken by an input: it is in {}", artifacts.display());
    }
    let runs =
        log.lines().find_map(|l| l.strip_prefix("stat::number_of_executed_units:")).map_or("?", str::trim);
    println!("fuzz: {target:16} {runs:>10} inputs");
    Ok(())
}
