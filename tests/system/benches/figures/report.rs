//! Medians, ratios and their spread; the machine's state; raw samples on disk.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// One line about the machine: cores, model, load.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown CPU", |l| l.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg").split_whitespace().next().unwrap_or("?").to_owned();
    format!("machine: {cores} × {model}, load {load}")
}

/// The quantile `q` of unsorted values by linear interpolation; NaN when there are none.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// The median.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// `0.93 [0.90 … 0.97]`: the median of the rounds' ratios, the smallest and the largest.
pub(crate) fn spread(ratios: &[f64]) -> String {
    format!("{:.3} [{:.3} … {:.3}]", median(ratios), quantile(ratios, 0.0), quantile(ratios, 1.0))
}

/// `0.98 … 1.01 (95 %)`: where the median lies, by the bootstrap over the rounds.
pub(crate) fn certainty(ratios: &[f64]) -> String {
    let interval = stats::bootstrap(ratios, median, 0.95, 10_000, 1);
    interval.map_or_else(|| "unknown".into(), |i| format!("{:.4} … {:.4} (95 %)", i.low, i.high))
}

/// Raw samples of one figure, under `target/figures/`.
pub(crate) struct Samples {
    file: fs::File,
    path: PathBuf,
}

impl Samples {
    /// Starts the file anew with its header line.
    pub(crate) fn create(name: &str, header: &str) -> anyhow::Result<Self> {
        let folder = system_tests::target_folder().join("figures");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}.csv"));
        let mut file = fs::File::create(&path)?;
        writeln!(file, "{header}")?;
        Ok(Self { file, path })
    }

    /// Adds one line.
    pub(crate) fn add(&mut self, line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
        writeln!(self.file, "{line}")?;
        Ok(())
    }

    /// Where they are.
    pub(crate) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}
