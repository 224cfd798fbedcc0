//! A tree compared with a JSON schema: every unknown field, missing field and wrong type at once, each with its place.
//!
//! Understands what `schemars` writes for the kinds: types, properties, required, items, enumerations, alternatives and
//! references. Keywords it does not know are not checked here; the typed reading that follows checks them.

use serde_json::Value as Json;

use super::{DEPTH_MAX, Node, PROBLEMS_MAX, Value, suggest};
use crate::code::manifest as code;
use crate::diagnostic::Problem;

/// Every way in which a document differs from a schema.
pub fn check(root: &Node, schema: &Json) -> Vec<Problem> {
    let mut checker = Checker { definitions: schema.get("$defs"), problems: Vec::new() };
    checker.node(root, schema, "", 0);
    checker.problems.truncate(PROBLEMS_MAX);
    checker.problems
}

struct Checker<'a> {
    definitions: Option<&'a Json>,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn node(&mut self, node: &Node, schema: &'a Json, field: &str, depth: usize) {
        // References to references would go round for ever in a broken schema.
        if depth > 2 * DEPTH_MAX {
            return;
        }
        if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
            let name = target.rsplit('/').next().unwrap_or_default();
            if let Some(schema) = self.definitions.and_then(|d| d.get(name)) {
                self.node(node, schema, field, depth + 1);
            }
            return;
        }
        if let Some(alternatives) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
            return self.alternatives(node, alternatives, field, depth);
        }
        if let Some(words) = words(schema) {
            return self.word(node, &words, field);
        }
        if !self.fits_type(node, schema) {
            return self.wrong_type(node, schema, field);
        }
        match &node.value {
            Value::Map(_) => self.mapping(node, schema, field, depth),
            Value::List(items) => {
                if let Some(schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.node(item, schema, &format!("{field}[{index}]"), depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    fn mapping(&mut self, node: &Node, schema: &'a Json, field: &str, depth: usize) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let known = || properties.into_iter().flat_map(|p| p.keys()).map(String::as_str);
        let below = |key: &str| if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") };
        let required: Vec<&str> =
            schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        for entry in node.entries() {
            let field = below(&entry.key);
            if let Some(schema) = properties.and_then(|p| p.get(&entry.key)) {
                // `key:` with nothing behind it is as good as no key, unless the field is required.
                if entry.value.value != Value::Null || required.contains(&entry.key.as_str()) {
                    self.node(&entry.value, schema, &field, depth + 1);
                }
                continue;
            }
            match schema.get("additionalProperties") {
                Some(Json::Bool(false)) => {
                    let message = format!("there is no field `{}` here", entry.key);
                    let help = match suggest(&entry.key, known()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the fields are {}", known().collect::<Vec<_>>().join(", ")),
                    };
                    let problem = Problem::new(code::UNKNOWN_FIELD, entry.span.clone(), message);
                    self.problems.push(problem.help(help).field(field));
                }
                Some(schema) => self.node(&entry.value, schema, &field, depth + 1),
                None => {}
            }
        }
        for key in required.into_iter().filter(|key| node.entry(key).is_none()) {
            let message = format!("the field `{key}` is missing");
            self.problems.push(Problem::new(code::MISSING_FIELD, node.head.clone(), message).field(below(key)));
        }
    }

    /// One of several schemas must fit; if none does, the one of the right type says why.
    fn alternatives(&mut self, node: &Node, alternatives: &'a [Json], field: &str, depth: usize) {
        let mut closest: Option<Vec<Problem>> = None;
        for schema in alternatives {
            let mut attempt = Checker { definitions: self.definitions, problems: Vec::new() };
            attempt.node(node, schema, field, depth + 1);
            if attempt.problems.is_empty() {
                return;
            }
            let right_type = attempt.problems.iter().all(|p| p.code != code::WRONG_TYPE || p.span != node.span);
            if closest.is_none() || right_type {
                closest = Some(attempt.problems);
            }
        }
        let choices: Option<Vec<Vec<&str>>> = alternatives.iter().map(words).collect();
        match choices {
            Some(choices) => self.word(node, &choices.concat(), field),
            None => self.problems.extend(closest.unwrap_or_default()),
        }
    }

    fn word(&mut self, node: &Node, words: &[&str], field: &str) {
        let said = match &node.value {
            Value::Text(text) if words.contains(&text.as_str()) => return,
            Value::Text(text) => format!("`{text}`"),
            _ => node.type_word().to_owned(),
        };
        let message = format!("{said} is not one of {}", words.join(", "));
        let problem = Problem::new(code::BAD_CHOICE, node.span.clone(), message).field(field);
        let near = node.text().and_then(|text| suggest(text, words.iter().copied()));
        self.problems.push(match near {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem,
        });
    }

    fn fits_type(&self, node: &Node, schema: &Json) -> bool {
        let fits = |name: &str| match (&node.value, name) {
            (Value::Null, "null")
            | (Value::Bool(_), "boolean")
            | (Value::Text(_), "string")
            | (Value::List(_), "array")
            | (Value::Map(_), "object") => true,
            (Value::Number(number), "integer") => {
                let least = schema.get("minimum").and_then(Json::as_f64).unwrap_or(f64::MIN);
                let most = schema.get("maximum").and_then(Json::as_f64).unwrap_or(f64::MAX);
                !number.is_f64() && number.as_f64().is_some_and(|n| (least..=most).contains(&n))
            }
            (Value::Number(_), "number") => true,
            _ => false,
        };
        match schema.get("type") {
            Some(Json::String(name)) => fits(name),
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).any(fits),
            _ => true,
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &Json, field: &str) {
        let names: Vec<&str> = match schema.get("type") {
            Some(Json::String(name)) => vec![name],
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).filter(|n| *n != "null").collect(),
            _ => Vec::new(),
        };
        let expected: Vec<String> = names.iter().map(|name| expected(name, schema)).collect();
        let said = match &node.value {
            Value::Bool(value) => format!("`{value}`"),
            Value::Text(text) if text.chars().count() <= 40 => format!("`{text}`"),
            _ => node.type_word().to_owned(),
        };
        let message = format!("{} is expected here, not {said}", expected.join(" or "));
        let problem = Problem::new(code::WRONG_TYPE, node.span.clone(), message).field(field);
        self.problems.push(match (&node.value, names.first()) {
            (Value::Number(_) | Value::Bool(_), Some(&"string")) => problem.help("write it in quotes"),
            (Value::Text(text), Some(&"array")) => problem.help(format!("write a list: [{text:?}]")),
            _ => problem,
        });
    }
}

fn expected(name: &str, schema: &Json) -> String {
    let bound = |key: &str| schema.get(key).and_then(Json::as_i64);
    match (name, bound("minimum"), bound("maximum")) {
        ("integer", Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
        ("integer", _, _) => "a whole number".to_owned(),
        ("number", _, _) => "a number".to_owned(),
        ("string", _, _) => "text".to_owned(),
        ("array", _, _) => "a list".to_owned(),
        ("object", _, _) => "a mapping".to_owned(),
        ("boolean", _, _) => "true or false".to_owned(),
        (name, _, _) => name.to_owned(),
    }
}

/// The words of a schema that takes one of a few words.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(word) = schema.get("const") {
        return Some(vec![word.as_str()?]);
    }
    schema.get("enum")?.as_array()?.iter().map(Json::as_str).collect()
}
