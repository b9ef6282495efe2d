//! Where a service is, as a person says it: `unix:/run/vm/qmp.sock`, `127.0.0.1:1234,name=left`.

use crate::devices::{SamplerError, table_part};

/// A target taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// What is before the first option.
    pub(super) place: &'a str,
    /// What tables begin with: the sampler's name, and `-` and the `name` option where there is one.
    pub(super) prefix: String,
    /// Whether the option `all` is there.
    pub(super) all: bool,
}

/// Takes a target apart.
///
/// # Errors
/// An unknown option, or nothing before it.
pub(super) fn parts<'a>(sampler: &'static str, target: &'a str) -> Result<Parts<'a>, SamplerError> {
    let wrong = |reason: String| SamplerError::Target { name: sampler, target: target.into(), reason };
    let mut pieces = target.split(',');
    let place = pieces.next().unwrap_or_default();
    if place.is_empty() {
        return Err(wrong("it does not say where".into()));
    }
    let mut parts = Parts { place, prefix: sampler.into(), all: false };
    for option in pieces {
        match option.split_once('=') {
            Some(("name", name)) if !name.is_empty() && table_part(name, 20) == name => {
                parts.prefix = format!("{sampler}-{name}");
            }
            Some(("name", _)) => {
                return Err(wrong("a name is 1 to 20 of a-z, 0-9, '_' and '-'".into()));
            }
            None if option == "all" => parts.all = true,
            _ => return Err(wrong(format!("'{option}' is no option: there are 'name=NAME' and 'all'"))),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_place_and_options() {
        let get = |target: &'static str| parts("qmp", target).map(|p| (p.place, p.prefix, p.all));
        assert_eq!(get("unix:/q"), Ok(("unix:/q", "qmp".into(), false)));
        assert_eq!(get("unix:/q,name=left,all"), Ok(("unix:/q", "qmp-left".into(), true)));
        for (wrong, reason) in [
            ("", "does not say where"),
            ("x,name=", "a name is"),
            ("x,name=A b", "a name is"),
            ("x,fast", "is no option"),
        ] {
            let error = get(wrong).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
