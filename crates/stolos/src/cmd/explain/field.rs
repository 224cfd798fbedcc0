//! `stolos explain field`: what a field of a manifest means, read from the API's own schemas.

use std::io::Write;

use api::kind::Kind;
use serde::Serialize;
use serde_json::Value;

use crate::args::{Format, Output};
use crate::failure::{C, Failure, Outcome};
use crate::output::{Columns, Ink, Screen, wrap};

/// What is known of one field, for machines.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Page {
    /// `Policy.spec.from`
    path: String,
    /// `list of text`
    #[serde(rename = "type")]
    shape: String,
    /// From the type's documentation.
    about: String,
    /// Whether a manifest must have it, where its parent is there.
    required: bool,
    /// What holds where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    /// What its value is held to, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<String>,
    /// Words it takes, where those are few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    choices: Vec<Choice>,
    /// What it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Choice {
    value: String,
    about: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    shape: String,
    required: bool,
    about: String,
}

pub(crate) fn run(path: &str, format: Format) -> Outcome {
    let page = find(path)?;
    Screen::stdout(format.output).answer(&page, show)
}

/// The page for `KIND[.FIELD…]`; list steps need no brackets.
fn find(path: &str) -> Result<Page, Failure> {
    let mut words = path.split('.');
    let kind = super::super::kind_named(words.next().unwrap_or_default())?;
    let root = (kind.schema)().to_value();
    let mut at = kind.name.to_owned();
    let mut node = View::of(&root, &root);
    let mut about = kind.about.to_owned();
    let mut required = true;
    for word in words {
        let step = node.element();
        let Some((name, next)) = step.field(word) else {
            return Err(unknown(word, &at, &step, kind));
        };
        required = step.requires(name);
        about = next.about();
        at = format!("{at}.{name}");
        node = next;
    }
    let inner = node.element();
    Ok(Page {
        path: at,
        shape: node.shape(),
        about,
        required,
        default: node.default(),
        limits: node.limits(),
        choices: inner.choices(),
        fields: inner.fields(),
    })
}

/// The JSON schema of a kind, whichever of its fields is named.
pub(crate) fn schema(path: &str) -> Outcome {
    let kind = super::super::kind_named(path.split('.').next().unwrap_or_default())?;
    // An answer of its own form: neither a table nor YAML would be a schema for editors.
    Screen::stdout(Output::Json).answer(&api::openapi::editor_schema(kind), |_, _| Ok(()))
}

fn unknown(word: &str, at: &str, node: &View<'_>, kind: &Kind) -> Failure {
    let names: Vec<String> = node.fields().into_iter().map(|field| field.name).collect();
    let near = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&name.to_lowercase(), &word.to_lowercase()), name))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| format!("did you mean `{name}`? "))
        .unwrap_or_default();
    let has = if names.is_empty() { "it has no fields".to_owned() } else { format!("it has {}", names.join(", ")) };
    Failure::usage(
        C::FIELD_UNKNOWN,
        format!("{at} has no field `{word}`"),
        format!("{near}{has}; `stolos explain field {}` shows the whole kind", kind.name.to_lowercase()),
    )
}

/// One place in a JSON schema, with the definitions that references point into.
struct View<'a> {
    root: &'a Value,
    /// The place itself: has the description of the *field*.
    outer: &'a Value,
    /// The same after references and `null` alternatives: has the type.
    inner: &'a Value,
}

impl<'a> View<'a> {
    fn of(root: &'a Value, outer: &'a Value) -> Self {
        let mut inner = outer;
        // A chain of references is as long as a schema author makes it; a cycle would be a bug of ours.
        for _ in 0..16 {
            let reference = inner.get("$ref").and_then(Value::as_str);
            inner = if let Some(definition) = reference.and_then(|name| name.strip_prefix('#')) {
                root.pointer(definition).unwrap_or(&Value::Null)
            } else if let Some(real) = only_alternative(inner) {
                real
            } else {
                break;
            };
        }
        Self { root, outer, inner }
    }

    /// What a list or map holds, else the place itself.
    fn element(&self) -> View<'a> {
        let held = self.inner.get("items").or_else(|| self.inner.get("additionalProperties").filter(|v| v.is_object()));
        match held {
            Some(held) => View::of(self.root, held).element(),
            None => View { root: self.root, outer: self.outer, inner: self.inner },
        }
    }

    fn field(&self, word: &str) -> Option<(&'a str, View<'a>)> {
        let properties = self.inner.get("properties")?.as_object()?;
        let (name, value) = properties.iter().find(|(name, _)| name.eq_ignore_ascii_case(word))?;
        Some((name, View::of(self.root, value)))
    }

    fn fields(&self) -> Vec<Field> {
        let properties = self.inner.get("properties").and_then(Value::as_object);
        properties
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                let view = View::of(self.root, value);
                Field { name: name.clone(), shape: view.shape(), required: self.requires(name), about: view.about() }
            })
            .collect()
    }

    fn requires(&self, name: &str) -> bool {
        let list = self.inner.get("required").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|entry| entry == name))
    }

    /// What holds where the field is left out; nothing for what is then simply not there.
    fn default(&self) -> Option<Value> {
        let said = self.outer.get("default").or_else(|| self.inner.get("default"));
        said.filter(|value| !value.is_null()).cloned()
    }

    fn limits(&self) -> Vec<String> {
        let number = |key: &str| self.outer.get(key).or_else(|| self.inner.get(key)).filter(|value| value.is_number());
        let mut limits = Vec::new();
        match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => limits.push(format!("{least} to {most}")),
            (Some(least), None) => limits.push(format!("at least {least}")),
            (None, Some(most)) => limits.push(format!("at most {most}")),
            (None, None) => {}
        }
        limits.extend(number("maxLength").map(|most| format!("at most {most} characters")));
        limits.extend(number("maxItems").map(|most| format!("at most {most} entries")));
        let word = |key: &str| self.outer.get(key).or_else(|| self.inner.get(key)).and_then(Value::as_str);
        limits.extend(
            word("format").filter(|format| *format == "date-time").map(|_| "a point in time (RFC 3339)".into()),
        );
        limits.extend(word("pattern").map(|pattern| format!("of the form {pattern}")));
        limits
    }

    fn choices(&self) -> Vec<Choice> {
        let about = |value: &Value| description(value).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let alternatives = self.inner.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let mut choices: Vec<Choice> = alternatives
            .filter_map(|value| Some(Choice { value: text(value.get("const")?)?, about: about(value) }))
            .collect();
        let words = self.inner.get("enum").and_then(Value::as_array).into_iter().flatten();
        choices.extend(words.filter_map(text).map(|value| Choice { value, about: String::new() }));
        choices
    }

    fn about(&self) -> String {
        description(self.outer).or_else(|| description(self.inner)).unwrap_or_default()
    }

    fn shape(&self) -> String {
        if !self.choices().is_empty() {
            return "word".to_owned();
        }
        let named = self.inner.get("type");
        let named = match named {
            Some(Value::Array(names)) => names.iter().find(|name| *name != "null"),
            other => other,
        };
        match named.and_then(Value::as_str) {
            Some("string") => "text".to_owned(),
            Some("integer" | "number") => "number".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            Some("array") => format!("list of {}", self.held("items")),
            Some("object") if self.inner.get("properties").is_none() => {
                format!("map of text to {}", self.held("additionalProperties"))
            }
            Some("object") => "mapping".to_owned(),
            _ => "any value".to_owned(),
        }
    }

    fn held(&self, key: &str) -> String {
        match self.inner.get(key) {
            Some(value) if value.is_object() => View::of(self.root, value).shape(),
            _ => "any value".to_owned(),
        }
    }
}

/// The one alternative of `anyOf` that is not `null`.
fn only_alternative(value: &Value) -> Option<&Value> {
    let alternatives = value.get("anyOf")?.as_array()?;
    let mut real = alternatives.iter().filter(|value| value.get("type").and_then(Value::as_str) != Some("null"));
    let first = real.next()?;
    real.next().is_none().then_some(first)
}

fn description(value: &Value) -> Option<String> {
    let text = value.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn show<W: Write>(screen: &mut Screen<W>, page: &Page) -> Outcome {
    let head = screen.paint(Ink::Head, &page.path);
    let required = if page.required && page.path.contains('.') { ", required" } else { "" };
    screen.line(format!("{head}  ({}{required})", page.shape))?;
    if !page.about.is_empty() {
        screen.line(wrap(&page.about, "  "))?;
    }
    if let Some(default) = &page.default {
        let said = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        screen.line(format!("  Left out: {said}"))?;
    }
    if !page.limits.is_empty() {
        screen.line(wrap(&format!("Takes: {}", page.limits.join("; ")), "  "))?;
    }
    if !page.choices.is_empty() {
        screen.line("")?;
        let mut columns = Columns::new(["CHOICE", "ABOUT"]);
        for choice in &page.choices {
            columns.row([&choice.value, &choice.about]);
        }
        screen.table(&columns)?;
    }
    for field in &page.fields {
        screen.line("")?;
        let name = screen.paint(Ink::Head, &field.name);
        screen.line(format!("{name}  ({}{})", field.shape, if field.required { ", required" } else { "" }))?;
        if !field.about.is_empty() {
            screen.line(wrap(&field.about, "  "))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::kind;

    use super::*;

    #[test]
    fn fields_are_found_through_references_options_and_lists() {
        let page = find("policy.spec.from").unwrap();
        assert_eq!((page.path.as_str(), page.shape.as_str()), ("Policy.spec.from", "list of text"));
        assert!(page.about.contains("selectors"), "{}", page.about);
        let members = find("svc.spec.members.endpoints.port").unwrap();
        assert_eq!((members.path.as_str(), members.shape.as_str()), ("Service.spec.members.endpoints.port", "number"));
        let action = find("policies.spec.action").unwrap();
        let words: Vec<&str> = action.choices.iter().map(|choice| choice.value.as_str()).collect();
        assert_eq!(words, ["allow", "deny"]);
    }

    #[test]
    fn defaults_and_limits_are_said() {
        let protocol = find("service.spec.addresses.protocol").unwrap();
        assert_eq!((protocol.default, protocol.required), (Some(Value::from("tcp")), false));
        assert_eq!(find("service.spec.members.endpoints.port").unwrap().limits, ["1 to 65535"]);
        let name = find("policy.metadata.name").unwrap();
        assert!(name.required && name.limits[0] == "at most 253 characters", "{:?}", name.limits);
        assert_eq!(find("namespace.spec.observeUntil").unwrap().limits, ["a point in time (RFC 3339)"]);
        assert_eq!(find("policy.spec.reason").unwrap().default, None);
    }

    #[test]
    fn required_fields_say_so() {
        let page = find("policy.spec").unwrap();
        let required = |name: &str| page.fields.iter().find(|field| field.name == name).unwrap().required;
        assert!(required("from") && required("action") && !required("ports"));
    }

    #[test]
    fn a_wrong_field_gets_a_suggestion_and_the_list() {
        let text = find("policy.spec.form").unwrap_err().to_string();
        assert!(text.contains("did you mean `from`?") && text.contains("Policy.spec has no field `form`"), "{text}");
        assert!(find("polcy").unwrap_err().to_string().contains("did you mean `policy`"));
        assert!(find("policy.spec.action.deny").unwrap_err().to_string().contains("it has no fields"));
    }

    /// Every field that a user may write has documentation.
    #[test]
    fn every_field_of_every_kind_is_documented() {
        for kind in kind::KINDS {
            for path in ["metadata", "spec"] {
                let page = find(&format!("{}.{path}", kind.name)).unwrap();
                for field in page.fields {
                    assert!(!field.about.is_empty(), "{}.{path}.{}", kind.name, field.name);
                    assert_ne!(field.shape, "any value", "{}.{path}.{}", kind.name, field.name);
                }
            }
        }
    }
}
