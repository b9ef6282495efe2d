//! Levels written as a range: `20..60 step 10`, `0.5..8 count 4`, `1..64 count 7 log`. Both ends are levels.

use recording::spec::Level;

/// Levels at most that one range may stand for.
pub(crate) const MAX_LEVELS: usize = 10_000;
/// How ranges are written, for messages.
pub(crate) const FORM: &str = "`FIRST..LAST step S`, `FIRST..LAST count N` or `FIRST..LAST count N log`";

/// The levels of `text`, or what is wrong with it. A text without `..` is no range: `None`.
///
/// Levels are whole where the ends and the step are, or where the levels of a count come out whole.
pub(crate) fn levels(text: &str) -> Option<Result<Vec<Level>, String>> {
    let (first, rest) = text.split_once("..")?;
    Some(parse(first.trim(), rest.trim()))
}

fn parse(first: &str, rest: &str) -> Result<Vec<Level>, String> {
    let mut words = rest.split_whitespace();
    let last = words.next().unwrap_or_default();
    let number = |text: &str| {
        let number = text.parse::<f64>().ok().filter(|x| x.is_finite());
        number.ok_or_else(|| format!("`{text}` is no number"))
    };
    let (from, to) = (number(first)?, number(last)?);
    if from >= to {
        return Err(format!("{first} is not below {last}"));
    }
    let way = words.next().ok_or("it says neither `step` nor `count`")?;
    let amount = words.next().ok_or_else(|| format!("`{way}` needs a number"))?;
    let log = match (words.next(), words.next()) {
        (None, _) => false,
        (Some("log"), None) if way == "count" => true,
        (Some(word), _) => return Err(format!("`{word}` is not understood")),
    };
    match way {
        "step" => steps((first, from), (last, to), (amount, number(amount)?)),
        "count" => {
            let count = amount.parse::<usize>().ok().filter(|n| (2..=MAX_LEVELS).contains(n));
            let count = count.ok_or_else(|| format!("{amount} is no count from 2 to {MAX_LEVELS}"))?;
            if log && from <= 0.0 {
                return Err(format!("{first} has no logarithm: a `log` range begins above 0"));
            }
            Ok(counted(from, to, count, log))
        }
        other => Err(format!("`{other}` is neither `step` nor `count`")),
    }
}

fn steps(first: (&str, f64), last: (&str, f64), step: (&str, f64)) -> Result<Vec<Level>, String> {
    if step.1 <= 0.0 {
        return Err(format!("a step of {} leads nowhere", step.0));
    }
    let steps = (last.1 - first.1) / step.1;
    if steps >= MAX_LEVELS as f64 {
        return Err(format!("it stands for more than {MAX_LEVELS} levels"));
    }
    // The last level is the end, or the whole steps do not reach it.
    if (steps - steps.round()).abs() > 1e-9 * steps.max(1.0) {
        return Err(format!("steps of {} from {} do not reach {}", step.0, first.0, last.0));
    }
    let whole = [first.0, last.0, step.0].iter().all(|text| text.parse::<i64>().is_ok());
    let level = |i: usize| first.1 + i as f64 * step.1;
    Ok((0..=steps.round() as usize)
        .map(|i| if whole { Level::Int(level(i) as i64) } else { tidy(level(i)) })
        .collect())
}

fn counted(from: f64, to: f64, count: usize, log: bool) -> Vec<Level> {
    let at = |i: usize| {
        let share = i as f64 / (count - 1) as f64;
        match () {
            () if i == 0 => from,
            () if i == count - 1 => to,
            () if log => (from.ln() + share * (to.ln() - from.ln())).exp(),
            () => from + share * (to - from),
        }
    };
    let values: Vec<f64> = (0..count).map(|i| rounded(at(i))).collect();
    if values.iter().all(|x| x.fract() == 0.0 && x.abs() < 1e15) {
        values.into_iter().map(|x| Level::Int(x as i64)).collect()
    } else {
        values.into_iter().map(Level::Float).collect()
    }
}

fn tidy(value: f64) -> Level {
    Level::Float(rounded(value))
}

/// Twelve digits: `0.1 + 0.2` is 0.3 to a person.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let told = match levels(text) {
            None => "no range".to_owned(),
            Some(Err(wrong)) => wrong,
            Some(Ok(levels)) => levels.iter().map(Level::to_string).collect::<Vec<_>>().join(" "),
        };
        assert_eq!(told, expected, "{text}");
    }

    #[test]
    fn ranges_are_levels_with_both_ends() {
        check("20..60 step 10", "20 30 40 50 60");
        check("0.1..0.5 step 0.1", "0.1 0.2 0.3 0.4 0.5");
        check("-1 .. 1 step 1", "-1 0 1");
        check("0.5..8 count 4", "0.5 3 5.5 8");
        check("1..64 count 7 log", "1 2 4 8 16 32 64");
        check("1..10 count 3 log", "1 3.16227766017 10");
        assert_eq!(levels("20..60 step 20").unwrap().unwrap()[0], Level::Int(20));
        assert_eq!(levels("0..1 count 3").unwrap().unwrap()[1], Level::Float(0.5));
    }

    #[test]
    fn what_is_no_range_is_told() {
        check("fast", "no range");
        check("60..20 step 10", "60 is not below 20");
        check("20..60", "it says neither `step` nor `count`");
        check("20..60 step 15", "steps of 15 from 20 do not reach 60");
        check("20..60 step 0", "a step of 0 leads nowhere");
        check("0..1e9 step 1", "it stands for more than 10000 levels");
        check("0..8 count 4 log", "0 has no logarithm: a `log` range begins above 0");
        check("1..8 count 1", "1 is no count from 2 to 10000");
        check("1..x step 1", "`x` is no number");
        check("1..8 step 1 log", "`log` is not understood");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[-0-9.e]{0,6}\\.\\.[-0-9.e ]{0,6}(step|count|)[ 0-9a-z.-]{0,12}") {
            if let Some(Ok(levels)) = levels(&text) {
                prop_assert!(levels.len() >= 2 && levels.len() <= MAX_LEVELS + 1);
            }
        }
    }
}
