//! Properties of elements by introspection: set from text with a check first, read back as text.
//!
//! GObject clamps or ignores what does not fit; a study must not, so names, types and ranges are checked here and the
//! message names the nearest valid value.

use std::collections::BTreeMap;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

use super::EncodeError;

/// Sets one property from text.
///
/// # Errors
/// There is no such property, or the value does not fit it.
pub(super) fn set(element: &gst::Element, name: &str, text: &str) -> Result<(), EncodeError> {
    let kind = element.factory().map_or_else(String::new, |f| f.name().into());
    let Some(spec) = element.find_property(name) else { return Err(unknown(element, &kind, name)) };
    let refuse = |expected: String, nearest: Option<String>| EncodeError::Value {
        element: kind.clone(),
        property: name.into(),
        value: text.into(),
        expected,
        hint: nearest.map_or_else(String::new, |n| format!("; the nearest valid value is {n}")),
    };
    if !spec.flags().contains(glib::ParamFlags::WRITABLE)
        || spec.flags().contains(glib::ParamFlags::CONSTRUCT_ONLY)
        || matches!(name, "name" | "parent")
    {
        return Err(refuse("a property that can be set".into(), None));
    }
    if let Some((low, high, whole)) = range(&spec) {
        let expected = || format!("a number from {low} to {high}");
        let number: f64 = text.parse().map_err(|_| refuse(expected(), None))?;
        let fits = number.is_finite() && (low..=high).contains(&number) && (!whole || number.fract() == 0.0);
        if !fits {
            let near = number.clamp(low, high);
            let near = if whole { near.round() } else { near };
            return Err(refuse(expected(), number.is_finite().then(|| near.to_string())));
        }
    }
    let value = glib::Value::deserialize(text, spec.value_type())
        .map_err(|_| refuse(expectation(&spec), nearest_nick(&spec, text)))?;
    element.set_property_from_value(name, &value);
    Ok(())
}

/// Every property that can be read and has a text form, with its present value.
pub(super) fn read_all(element: &gst::Element) -> BTreeMap<String, String> {
    element
        .list_properties()
        .iter()
        .filter(|spec| spec.flags().contains(glib::ParamFlags::READABLE))
        .filter(|spec| !matches!(spec.name(), "name" | "parent"))
        .filter_map(|spec| {
            let value = element.property_value(spec.name());
            Some((spec.name().to_owned(), plain(&value)?))
        })
        .collect()
}

fn plain(value: &glib::Value) -> Option<String> {
    if let Ok(text) = value.get::<Option<String>>() {
        return Some(text.unwrap_or_default());
    }
    Some(value.serialize().ok()?.trim_matches('"').to_owned())
}

fn unknown(element: &gst::Element, kind: &str, name: &str) -> EncodeError {
    let properties = element.list_properties();
    let nearest = properties
        .iter()
        .map(|spec| spec.name())
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    EncodeError::UnknownProperty {
        element: kind.into(),
        property: name.into(),
        nearest: nearest.unwrap_or_default().into(),
    }
}

/// Smallest and largest value of a number, and whether it is whole. `f64` is exact up to 2^53, beyond what any
/// encoder's property means.
fn range(spec: &glib::ParamSpec) -> Option<(f64, f64, bool)> {
    macro_rules! try_type {
        ($type:ty, $whole:expr) => {
            if let Some(s) = spec.downcast_ref::<$type>() {
                return Some((s.minimum() as f64, s.maximum() as f64, $whole));
            }
        };
    }
    try_type!(glib::ParamSpecInt, true);
    try_type!(glib::ParamSpecUInt, true);
    try_type!(glib::ParamSpecInt64, true);
    try_type!(glib::ParamSpecUInt64, true);
    try_type!(glib::ParamSpecLong, true);
    try_type!(glib::ParamSpecULong, true);
    try_type!(glib::ParamSpecFloat, false);
    try_type!(glib::ParamSpecDouble, false);
    None
}

fn nicks(spec: &glib::ParamSpec) -> Vec<String> {
    if let Some(class) = glib::EnumClass::with_type(spec.value_type()) {
        return class.values().iter().map(|v| v.nick().to_owned()).collect();
    }
    if let Some(class) = glib::FlagsClass::with_type(spec.value_type()) {
        return class.values().iter().map(|v| v.nick().to_owned()).collect();
    }
    Vec::new()
}

fn expectation(spec: &glib::ParamSpec) -> String {
    let nicks = nicks(spec);
    if !nicks.is_empty() {
        return format!("one of {}", nicks.join(", "));
    }
    match spec.value_type() {
        glib::Type::BOOL => "true or false".into(),
        other => format!("a value of type {other}"),
    }
}

fn nearest_nick(spec: &glib::ParamSpec, text: &str) -> Option<String> {
    nicks(spec)
        .into_iter()
        .max_by(|a, b| strsim::jaro_winkler(a, text).total_cmp(&strsim::jaro_winkler(b, text)))
}
