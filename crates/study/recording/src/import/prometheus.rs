//! Answers of Prometheus: `{"data": {"resultType": "matrix", "result": [{"metric": {…}, "values": [[t, "v"], …]}, …]}}`,
//! the result alone, or one series alone; vectors with one `value` each too.

use serde_json::Value;

/// Series of one answer.
const MAX_SERIES: usize = 10_000;

/// One series: its labels, and `(seconds, value)` as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// `{instance="a", job="b"}`, sorted by label.
    pub labels: String,
    /// Samples: seconds since 1970, value.
    pub values: Vec<(String, String)>,
    /// Entries that are not `[t, value]`.
    pub broken: u64,
}

/// Reads an answer.
///
/// # Errors
/// It is no JSON, or no answer of Prometheus.
pub fn parse(bytes: &[u8]) -> Result<Vec<Series>, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if value.get("status").and_then(Value::as_str) == Some("error") {
        let why = value.get("error").and_then(Value::as_str).unwrap_or("no reason");
        return Err(format!("it tells of a failed query: {}", super::shown(why)));
    }
    let result =
        value.get("data").and_then(|d| d.get("result")).or_else(|| value.get("result")).unwrap_or(&value);
    let list = match result {
        Value::Array(list) => list.as_slice(),
        one @ Value::Object(_) => std::slice::from_ref(one),
        _ => return Err("no list of series: neither data.result, nor result, nor the whole is one".into()),
    };
    if list.len() > MAX_SERIES {
        return Err(format!("{} series, more than {MAX_SERIES}", list.len()));
    }
    list.iter()
        .enumerate()
        .map(|(i, s)| series(s).ok_or(format!("series {} has no 'values' or 'value'", i + 1)))
        .collect()
}

fn series(value: &Value) -> Option<Series> {
    let mut labels = Vec::new();
    for (label, text) in value.get("metric").and_then(Value::as_object).into_iter().flatten() {
        labels.push(format!("{label}={text}"));
    }
    labels.sort();
    let samples = match (value.get("values"), value.get("value")) {
        (Some(Value::Array(values)), _) => values.as_slice(),
        (None, Some(one @ Value::Array(_))) => std::slice::from_ref(one),
        _ => return None,
    };
    let text = |v: &Value| match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    let mut series = Series { labels: format!("{{{}}}", labels.join(", ")), values: Vec::new(), broken: 0 };
    for sample in samples {
        match sample.as_array().map(Vec::as_slice) {
            Some([t, v]) if text(t).is_some() && text(v).is_some() => {
                series.values.extend(text(t).zip(text(v)));
            }
            _ => series.broken += 1,
        }
    }
    Some(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_an_answer_is_read() {
        let one =
            r#"{"metric": {"job": "b", "cpu": "0"}, "values": [[1.5, "2"], [2.5, "NaN"], [3, 4], "x"]}"#;
        let expected = Series {
            labels: r#"{cpu="0", job="b"}"#.into(),
            values: [("1.5", "2"), ("2.5", "NaN"), ("3", "4")].map(|(t, v)| (t.into(), v.into())).to_vec(),
            broken: 1,
        };
        for text in [
            one.to_owned(),
            format!("[{one}]"),
            format!(r#"{{"resultType": "matrix", "result": [{one}]}}"#),
            format!(r#"{{"status": "success", "data": {{"resultType": "matrix", "result": [{one}]}}}}"#),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(vec![expected.clone()]), "{text}");
        }
        let vector = parse(br#"{"result": [{"metric": {}, "value": [1, "2"]}]}"#).unwrap();
        assert_eq!(vector[0].values, [("1".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (text, expected) in [
            ("{", "EOF"),
            ("5", "no list of series"),
            (r#"{"status": "error", "error": "query timed out"}"#, "query timed out"),
            (r#"[{"metric": {}}]"#, "series 1 has no"),
        ] {
            assert!(parse(text.as_bytes()).unwrap_err().contains(expected), "{text}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).unwrap_err().contains("recursion"));
    }
}
