//! Files of YAML or JSON documents, read with the place of every value.
//!
//! Knows nothing of kinds: [`parse_documents`] makes trees, [`schema`] compares them with a JSON schema,
//! `crate::manifest` reads policies and postures out of them.

pub mod schema;
mod yaml;

use std::ops::Range;

use crate::diagnostic::Problem;

/// Largest file in bytes.
pub const FILE_LEN_MAX: usize = 4 * 1024 * 1024;
/// Deepest nesting of lists and mappings.
pub const DEPTH_MAX: usize = 48;
/// Most problems reported of one file; after that many, reading on helps nobody.
pub const PROBLEMS_MAX: usize = 200;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it says.
    pub root: Node,
    /// Line of its first value in the file, from 1.
    pub line: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Bytes of the file that it takes, quotes included.
    pub span: Range<usize>,
    /// The place to point at when something is missing in it: its key, or its first key.
    pub head: Range<usize>,
}

/// A value as YAML and JSON share it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; kept as JSON prints it.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the author's order, keys unique.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub span: Range<usize>,
    /// The value.
    pub value: Node,
}

/// Reads all documents of a file. Documents with problems of syntax are left out, and the problems of all of them are
/// reported; empty documents are skipped.
pub fn parse_documents(text: &str) -> (Vec<Document>, Vec<Problem>) {
    yaml::parse(text)
}

impl Node {
    /// The value of a key, when this is a mapping that has it and it is not null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value).filter(|node| node.value != Value::Null)
    }

    /// The entry of a key, when this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Entries, when this is a mapping; else none.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Items, when this is a list; else none.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text, when this is text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a path of keys, as in `["metadata", "name"]`.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The same value without places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json()));
                serde_json::Value::Object(pairs.collect())
            }
        }
    }

    /// The place in the file of a byte range of this text; the whole value where quoting moved the characters.
    pub fn place_of(&self, source: &str, inner: Range<usize>) -> Range<usize> {
        let verbatim = self.text().zip(source.get(self.span.clone()));
        match verbatim.and_then(|(text, written)| written.find(text)) {
            Some(offset) => {
                let base = self.span.start + offset;
                base + inner.start..base + inner.end
            }
            None => self.span.clone(),
        }
    }

    /// What it is, in a user's words.
    pub fn type_word(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// The candidate that somebody may have meant, if one is near enough.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let near = |candidate: &str| strsim::damerau_levenshtein(&candidate.to_lowercase(), &lower);
    let best = candidates.into_iter().map(|candidate| (near(candidate), candidate)).min()?;
    let limit = (lower.chars().count() / 3).clamp(1, 3);
    (best.0 <= limit).then_some(best.1)
}

#[cfg(test)]
mod tests;
