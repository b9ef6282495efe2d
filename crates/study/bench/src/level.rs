//! Is a value a level of a factor? If not: what is wrong, and which level is nearest.

use recording::spec::{Domain, Factor, Level};

use crate::diagnostic::nearest_word;

/// Why a value is no level.
pub(crate) struct Fault {
    pub(crate) wrong: String,
    pub(crate) nearest: Option<String>,
}

fn fault<T>(wrong: String, nearest: Option<String>) -> Result<T, Fault> {
    Err(Fault { wrong, nearest })
}

/// The level that `given` stands for: whole numbers are also numbers.
pub(crate) fn check(factor: &Factor, given: Level) -> Result<Level, Fault> {
    match (&factor.domain, given) {
        (Domain::Enum { values }, Level::Text(text)) => {
            if values.contains(&text) {
                return Ok(Level::Text(text));
            }
            let nearest = nearest_word(&text, values.iter().map(String::as_str));
            fault(format!("`{text}` is unknown"), nearest.map(|n| format!("\"{n}\"")))
        }
        (Domain::Int { min, max }, Level::Int(n)) => {
            if (*min..=*max).contains(&n) {
                return Ok(Level::Int(n));
            }
            fault(format!("{n} is out of range"), Some(n.clamp(*min, *max).to_string()))
        }
        (Domain::Int { min, max }, Level::Float(x)) => {
            let nearest = x.is_finite().then(|| (x.round() as i64).clamp(*min, *max).to_string());
            fault(format!("{x} is not whole"), nearest)
        }
        (Domain::Float { min, max }, given @ (Level::Int(_) | Level::Float(_))) => {
            let x = given.as_f64().unwrap_or(f64::NAN);
            if (*min..=*max).contains(&x) {
                return Ok(Level::Float(x));
            }
            let nearest = x.is_finite().then(|| x.clamp(*min, *max).to_string());
            fault(format!("{x} is out of range"), nearest)
        }
        (Domain::Bool, Level::Bool(b)) => Ok(Level::Bool(b)),
        (Domain::Bool, Level::Text(text)) => {
            let nearest = nearest_word(&text, ["true", "false"]).map(str::to_owned);
            fault(format!("\"{text}\" is a text"), nearest)
        }
        (Domain::Int { .. } | Domain::Float { .. }, Level::Text(text)) => {
            let number = text.trim().parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| x.to_string());
            fault(format!("\"{text}\" is a text"), number)
        }
        (Domain::Text, Level::Text(text)) => Ok(Level::Text(text)),
        (Domain::Enum { values }, other) => {
            let shown = other.to_string();
            let nearest = values.iter().find(|v| **v == shown).map(|v| format!("\"{v}\""));
            fault(format!("{shown} is not a word"), nearest)
        }
        (Domain::Text, other) => fault(format!("{other} is not a text"), Some(format!("\"{other}\""))),
        (_, other) => fault(format!("{other} is of another type"), None),
    }
}

/// What would be valid, for a message.
pub(crate) fn expected(factor: &Factor) -> String {
    let unit = if factor.unit.is_empty() { String::new() } else { format!(" {}", factor.unit) };
    match &factor.domain {
        Domain::Enum { values } => {
            let quoted: Vec<_> = values.iter().map(|v| format!("\"{v}\"")).collect();
            format!("one of {}", quoted.join(", "))
        }
        Domain::Int { min, max } => format!("a whole number from {min} to {max}{unit}"),
        Domain::Float { min, max } => format!("a number from {min} to {max}{unit}"),
        Domain::Bool => "true or false".into(),
        Domain::Text => "a text in quotes".into(),
    }
}

/// Is `level` one that `factor` may take?
pub fn is_level(factor: &Factor, level: &Level) -> bool {
    check(factor, level.clone()).is_ok()
}
