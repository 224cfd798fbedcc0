//! Values as people type them: durations, labels, names, endpoints. Each error is a sentence that says what is expected.

use std::time::Duration;

use api::audit::Fingerprint;
use serde_json_path::JsonPath;

use super::Output;

/// `table`, `wide`, `json`, `yaml` or `jsonpath=EXPR`. An expression may also be written as kubectl's: `{.metadata.name}`.
pub(crate) fn output(text: &str) -> Result<Output, String> {
    let Some(expression) = text.strip_prefix("jsonpath=") else {
        return match text {
            "table" => Ok(Output::Table),
            "wide" => Ok(Output::Wide),
            "json" => Ok(Output::Json),
            "yaml" => Ok(Output::Yaml),
            _ => Err(format!("`{text}` is no form; write table, wide, json, yaml or jsonpath=EXPR")),
        };
    };
    let inner = expression.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(expression);
    let whole = if inner.starts_with('$') { inner.to_owned() } else { format!("${inner}") };
    let path = JsonPath::parse(&whole).map_err(|error| {
        format!("`{expression}` is no JSONPath ({error}); write for example jsonpath='$.items[*].metadata.name'")
    })?;
    Ok(Output::Path(Box::leak(Box::new(path))))
}

/// What `stolos wait` waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The object is there.
    Exists,
    /// It is not, or no more.
    Deleted,
    /// A field, by its path, has a value.
    Field(String, String),
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exists => f.write_str("exists"),
            Self::Deleted => f.write_str("deleted"),
            Self::Field(path, value) => write!(f, "{path}={value}"),
        }
    }
}

/// `exists`, `deleted` or `FIELD=VALUE`.
pub(crate) fn condition(text: &str) -> Result<Condition, String> {
    match (text, text.split_once('=')) {
        ("exists", _) => Ok(Condition::Exists),
        ("deleted", _) => Ok(Condition::Deleted),
        (_, Some((path, value))) if !path.is_empty() => Ok(Condition::Field(path.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no condition; write exists, deleted or FIELD=VALUE, as in status.state=live")),
    }
}

/// The number and hash of an entry of the audit trail.
pub(crate) fn anchor(text: &str) -> Result<(u64, Fingerprint), String> {
    let parsed = text.split_once(':').and_then(|(number, hash)| Some((number.parse().ok()?, hash.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is no place in the trail; copy NUMBER:HASH from an earlier `audit verify`"))
}

/// A duration with a unit, `"90s"`, `"10m"`, `"1h30m"`; zero and negative ones are refused.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is no duration; write a number and a unit, for example 90s, 10m or 1h30m");
    let span: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    let duration = Duration::try_from(span).map_err(|_| expected())?;
    if duration.is_zero() { Err(expected()) } else { Ok(duration) }
}

/// `KEY=VALUE` of a label. System keys (with `@`) are not users' to give.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is no label; write KEY=VALUE"))?;
    Ok((label_key(key)?, value.to_owned()))
}

fn label_key(key: &str) -> Result<String, String> {
    if key.starts_with('@') {
        return Err(format!("`{key}` is a system key, which only the system gives; choose a key without `@`"));
    }
    if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "=,*()!'\"".contains(c)) {
        return Err(format!("`{key}` is no key; use letters, digits, `.`, `_`, `-` and `/`"));
    }
    Ok(key.to_owned())
}

/// One change of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabelChange {
    /// `KEY=VALUE`
    Set(String, String),
    /// `KEY-`
    Remove(String),
}

/// `KEY=VALUE` or `KEY-`.
pub(crate) fn label_change(text: &str) -> Result<LabelChange, String> {
    if text.contains('=') {
        return label(text).map(|(key, value)| LabelChange::Set(key, value));
    }
    match text.strip_suffix('-') {
        Some(key) => label_key(key).map(LabelChange::Remove),
        None => Err(format!("`{text}` changes nothing; write {text}=VALUE to set it or {text}- to remove it")),
    }
}

/// A name: lower-case letters, digits, `-` and `.`, 1 to 63 bytes, a letter or digit at both ends.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let sound = text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last());
    if sound {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no name; use up to 63 lower-case letters, digits, `-` and `.`, for example web-1"))
    }
}

/// An absolute namespace path, `/` or `/acme/prod`.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    match text.strip_prefix('/') {
        Some("") => Ok(text.to_owned()),
        Some(rest) if rest.split('/').all(|part| name(part).is_ok()) => Ok(text.to_owned()),
        Some(_) => Err(format!("`{text}` is no namespace path; its parts are names, for example /acme/prod")),
        None => Err(format!("`{text}` is no namespace path; it starts with `/`, for example /{text}")),
    }
}

/// A namespace relative to the cluster's, `shop` or `shop/cart`.
pub(crate) fn relative_namespace(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Err(format!(
            "`{text}` is absolute; a workload's namespace is relative to its cluster's, for example {}",
            text.trim_matches('/').rsplit('/').next().filter(|s| !s.is_empty()).unwrap_or("shop")
        ));
    }
    if text.split('/').all(|part| name(part).is_ok()) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no namespace; its parts are names joined by `/`, for example shop/cart"))
    }
}

/// A workload or external end, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As typed: `NAME`, `NAME@CLUSTER`, `/NAMESPACE/NAME`, an address, …
    pub(crate) end: String,
    /// The port, 1 to 65535.
    pub(crate) port: u16,
}

/// `END:PORT`; an IPv6 address stands in brackets.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let expected = || format!("`{text}` names no port; write TO:PORT, for example db:5432 or [2001:db8::1]:443");
    let (end, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(expected)?;
    let bare = end.strip_prefix('[').and_then(|end| end.strip_suffix(']'));
    let end = match bare {
        Some(address) => address,
        None if end.is_empty() || end.contains(':') => return Err(expected()),
        None => end,
    };
    Ok(Endpoint { end: end.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "10", "-5s", "0s", "ten", "5 parsecs"] {
            assert!(duration(bad).unwrap_err().contains("90s, 10m"), "{bad}");
        }
    }

    #[test]
    fn forms_take_expressions_of_both_dialects() {
        assert_eq!(output("yaml"), Ok(Output::Yaml));
        for good in
            ["$.items[*].metadata.name", "{.metadata.name}", ".spec", "$..port", "{.items[?@.spec.action=='deny']}"]
        {
            assert!(matches!(output(&format!("jsonpath={good}")), Ok(Output::Path(_))), "{good}");
        }
        assert!(output("jsonpath={.a").unwrap_err().contains("for example jsonpath="));
        assert!(output("xml").unwrap_err().contains("is no form; write table"));
    }

    #[test]
    fn system_keys_are_not_users_to_give() {
        assert!(label("@cluster=eu").unwrap_err().contains("system key"));
        assert!(label_change("@cluster-").unwrap_err().contains("system key"));
    }

    #[test]
    fn labels_set_remove_and_keep_equal_signs_in_values() {
        assert_eq!(label_change("app=web"), Ok(LabelChange::Set("app".into(), "web".into())));
        assert_eq!(label_change("q=a=b"), Ok(LabelChange::Set("q".into(), "a=b".into())));
        assert_eq!(label_change("beta-"), Ok(LabelChange::Remove("beta".into())));
        assert!(label_change("beta").unwrap_err().contains("beta- to remove"));
        assert!(label_change("-").is_err());
        assert!(label("=x").is_err());
    }

    #[test]
    fn namespaces_are_absolute_where_they_must_be() {
        assert_eq!(namespace("/"), Ok("/".into()));
        assert_eq!(namespace("/acme/prod"), Ok("/acme/prod".into()));
        assert!(namespace("acme").unwrap_err().contains("/acme"));
        for bad in ["/acme/", "//", "/A", "/a b"] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
        assert!(relative_namespace("/acme/shop").unwrap_err().contains("shop"));
        assert_eq!(relative_namespace("shop/cart"), Ok("shop/cart".into()));
        assert!(relative_namespace("..").is_err());
    }

    #[test]
    fn endpoints_split_at_the_last_colon() {
        assert_eq!(endpoint("db:5432"), Ok(Endpoint { end: "db".into(), port: 5432 }));
        assert_eq!(endpoint("db@us-1:5432").unwrap().end, "db@us-1");
        assert_eq!(endpoint("/acme/shop/db:5432").unwrap().end, "/acme/shop/db");
        assert_eq!(endpoint("[2001:db8::1]:443").unwrap().end, "2001:db8::1");
        for bad in ["db", "db:", "db:0", "db:70000", ":80", "2001:db8::1:443", "db:http"] {
            assert!(endpoint(bad).unwrap_err().contains("TO:PORT"), "{bad}");
        }
    }
}
