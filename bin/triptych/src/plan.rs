//! `triptych plan`: what a study would run, how long that takes, and what it could find out. Nothing is run.

use std::collections::BTreeMap;
use std::io::{Write, stdout};

use bench::{DesignKind, StudyFile};
use comfy_table::{Table, presets};
use recording::facts::StudyFacts;
use recording::spec::Level;
use serde::Serialize;
use stats::design::{Precision, resolvable_effect};
use store::Study;

use crate::Exit;
use crate::args;
use crate::compare::Wrong;
use crate::locate::locate;
use crate::run::{name_of, read};

/// What a study would be.
#[derive(Serialize)]
struct Plan {
    name: String,
    title: String,
    design: &'static str,
    /// Combinations of levels, of which the design has some.
    combinations: u64,
    points: usize,
    repeats: u32,
    runs: usize,
    seed: u64,
    /// Seconds; `measured` where runs of `--like` say how long one takes, else the least.
    time_s: f64,
    measured: bool,
    factors: Vec<Factor>,
    /// By response, with the spread of `--like`.
    responses: BTreeMap<String, Response>,
}

#[derive(Serialize)]
struct Factor {
    name: String,
    levels: Vec<Level>,
    /// The smallest difference between two levels that would be seen, in standard deviations of runs at one point; none where
    /// there are too few runs.
    resolves_sd: Option<f64>,
}

#[derive(Serialize)]
struct Response {
    unit: String,
    /// Standard deviation of runs at one point.
    sd: f64,
    /// By factor.
    resolves: BTreeMap<String, f64>,
}

pub(crate) fn plan(options: &args::Plan) -> anyhow::Result<Exit> {
    let (study, seed) = read(&options.study, options.seed)?;
    let facts = bench::plan::plan(&study, &name_of(&options.study), String::new(), seed);
    let like = options
        .like
        .as_ref()
        .map(|name| Study::open(&locate(name, &options.results)?).map_err(anyhow::Error::from));
    let like = like.transpose()?;
    if let Some(like) = &like
        && like.plan.subject.name != study.subject.name
    {
        let (other, own) = (&like.plan.subject.name, &study.subject.name);
        return Err(Wrong(format!("{} is a study of `{other}`, not of `{own}`", like.dir.display())).into());
    }
    let plan = made(&study, &facts, like.as_ref())?;
    let mut out = stdout();
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
    } else {
        write!(out, "{}", plan.told())?;
    }
    Ok(Exit::Success)
}

fn made(study: &StudyFile, facts: &StudyFacts, like: Option<&Study>) -> anyhow::Result<Plan> {
    let counts: Vec<usize> = study.factors.iter().map(|(_, levels)| levels.len()).collect();
    let terms = 1 + counts.iter().map(|n| n - 1).sum::<usize>();
    let points = facts.points.len();
    let resolves = |levels: usize, sd: f64| {
        // Two levels of several are compared by the runs at these two.
        let compared = (2 * points / levels.max(2)).max(2);
        resolvable_effect(compared, facts.repeats as usize, 2, sd, Precision::default())
            .ok()
            .filter(|_| points * facts.repeats as usize > terms)
    };
    let factor = |(name, levels): &(String, Vec<Level>)| Factor {
        name: name.clone(),
        levels: levels.clone(),
        resolves_sd: resolves(levels.len(), 1.0),
    };
    let mut responses = BTreeMap::new();
    let mut run_s = None;
    if let Some(like) = like {
        for response in &facts.subject.responses {
            let Ok(cells) = like.matrix(&response.name) else { continue };
            let (squares, free) =
                cells.iter().filter(|cell| cell.n > 1).fold((0.0, 0.0), |(squares, free), cell| {
                    let n = (cell.n - 1) as f64;
                    (squares + cell.sd * cell.sd * n, free + n)
                });
            if free < 1.0 {
                continue;
            }
            let sd = f64::sqrt(squares / free);
            let by =
                |(name, levels): &(String, Vec<Level>)| Some((name.clone(), resolves(levels.len(), sd)?));
            let resolves = study.factors.iter().filter_map(by).collect();
            responses.insert(response.name.clone(), Response { unit: response.unit.clone(), sd, resolves });
        }
        run_s = seconds(like)?;
    }
    let least = study.warmup_s + study.record_s;
    Ok(Plan {
        name: facts.name.clone(),
        title: study.title.clone(),
        design: match study.design.kind {
            DesignKind::Full => "full",
            DesignKind::Pairwise => "pairwise",
            DesignKind::LatinHypercube => "latin-hypercube",
            DesignKind::Fractional => "fractional",
            DesignKind::Points => "points",
        },
        combinations: counts.iter().fold(1, |all, n| all.saturating_mul(*n as u64)),
        points,
        repeats: facts.repeats,
        runs: facts.runs.len(),
        seed: facts.seed,
        time_s: run_s.unwrap_or(least) * facts.runs.len() as f64,
        measured: run_s.is_some(),
        factors: study.factors.iter().map(factor).collect(),
        responses,
    })
}

/// Seconds from one run's beginning to the next one's, the median of an earlier study.
fn seconds(study: &Study) -> anyhow::Result<Option<f64>> {
    let mut begun: Vec<i64> = study.runs()?.iter().map(|run| run.facts.started_ns).collect();
    begun.sort_unstable();
    let mut between: Vec<f64> = begun.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e9).collect();
    Ok(stats::quantile(&mut between, 0.5))
}

impl Plan {
    fn told(&self) -> String {
        let of = match self.points as u64 {
            points if points == self.combinations => String::new(),
            _ => format!(" ({} design of {} combinations)", self.design, self.combinations),
        };
        let time = match (self.measured, self.time_s) {
            (true, s) => format!("about {}", duration(s)),
            (false, 0.0) => "as long as the command takes; --like STUDY tells from an earlier study".into(),
            (false, s) => format!("at least {}, and the time that programs take to start", duration(s)),
        };
        let mut text = format!(
            "{}  {} points{of} × {} runs = {} runs, seed {}\ntime  {time}\n",
            self.name, self.points, self.repeats, self.runs, self.seed
        );
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut head = vec!["factor".to_owned(), "levels".into(), "resolves".into()];
        head.extend(self.responses.iter().map(|(name, r)| format!("{name} [{}]", r.unit)));
        table.set_header(head);
        for factor in &self.factors {
            let levels: Vec<_> = factor.levels.iter().map(Level::to_string).collect();
            let mut row = vec![factor.name.clone(), short(&levels)];
            row.push(factor.resolves_sd.map_or("too few runs".into(), |sd| format!("{sd:.2} sd")));
            row.extend(self.responses.values().map(|response| {
                response.resolves.get(&factor.name).map_or("-".into(), |x| crate::table::number(*x))
            }));
            table.add_row(row);
        }
        if !self.factors.is_empty() {
            for line in table.to_string().lines() {
                text.push_str(line.trim_end());
                text.push('\n');
            }
            text.push_str(
                "resolves: the smallest difference between two levels that is seen at 95 % with a chance of 80 %\n",
            );
        }
        text
    }
}

fn short(levels: &[String]) -> String {
    match levels {
        [first, second, .., last] if levels.len() > 8 => {
            format!("{first} {second} … {last} ({})", levels.len())
        }
        all => all.join(" "),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
