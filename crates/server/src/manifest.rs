//! From files to documents: structure and meaning of each document by itself, every problem with its place.
//!
//! Pure. What depends on other documents is checked in [`crate::admission`], inside the writing transaction.

mod metadata;
mod place;
mod spec;

use std::collections::HashMap;
use std::ops::Range;

use api::apply::Source;
use api::kind::{self, Kind, NAMESPACE, Scope};
use api::object::{API_VERSION, Object};
use api::problem::{Diagnostic, Severity};
use policy::code::manifest as code;
use policy::diagnostic::{self, Problem, Style, render};
use policy::namespace::{NamespacePath, check_name};
use policy::syntax::{Document, Node, Value, parse_documents, schema, suggest};
use serde_json::json;

/// Most documents of one request.
pub const DOCUMENTS_MAX: usize = 20_000;

/// A document that is sound by itself.
#[derive(Clone, Debug)]
pub struct Manifest<'a> {
    /// Its kind.
    pub kind: &'static Kind,
    /// As it is to be stored.
    pub object: Object,
    /// As it was written.
    pub document: Document,
    /// Where it was written.
    pub source: &'a Source,
}

impl Manifest<'_> {
    /// A problem of this document, with its place.
    pub fn diagnose(&self, problem: Problem) -> Diagnostic {
        locate(self.source, Some(self.object.key().to_string()), problem)
    }

    /// The place of a field, or of the document where the field is not written.
    pub fn span(&self, path: &[&str]) -> Range<usize> {
        self.document.root.at(path).map_or(self.document.root.head.clone(), |node| node.span.clone())
    }
}

/// Reads all files. Sound documents come in the order written, even when others have problems.
pub fn read<'a>(sources: &'a [Source], default_namespace: &NamespacePath) -> (Vec<Manifest<'a>>, Vec<Diagnostic>) {
    let mut reader = Reader { default_namespace, schemas: HashMap::new(), found: Vec::new(), diagnostics: Vec::new() };
    for source in sources {
        let (documents, problems) = parse_documents(&source.text);
        let empty = documents.is_empty() && problems.is_empty();
        reader.report(source, None, problems);
        if empty {
            reader.report(source, None, vec![Problem::new(code::EMPTY, 0..0, "there is no document in it")]);
        }
        for document in documents {
            reader.document(source, document);
        }
    }
    (reader.found, reader.diagnostics)
}

/// A problem as the API shows it.
fn locate(source: &Source, object: Option<String>, problem: Problem) -> Diagnostic {
    let name = (!source.name.is_empty()).then_some(source.name.as_str());
    let located = problem.locate(name, &source.text);
    let excerpt = render(std::slice::from_ref(&located), &source.text, Style::Plain);
    let problem = located.problem;
    Diagnostic {
        severity: match problem.severity {
            diagnostic::Severity::Error => Severity::Error,
            diagnostic::Severity::Warning => Severity::Warning,
        },
        code: problem.code.id.to_owned(),
        message: problem.message,
        help: problem.help,
        object,
        field: problem.field,
        source: located.file,
        line: Some(located.line),
        column: Some(located.column),
        excerpt: Some(excerpt),
    }
}

struct Reader<'a, 'd> {
    default_namespace: &'d NamespacePath,
    schemas: HashMap<&'static str, serde_json::Value>,
    found: Vec<Manifest<'a>>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a, '_> {
    fn report(&mut self, source: &Source, object: Option<&str>, mut problems: Vec<Problem>) {
        // Structure and meaning may both find the same place wrong.
        problems.sort_by_key(|problem| (problem.span.start, problem.code, problem.span.end));
        problems
            .dedup_by(|a, b| a.code == b.code && a.span == b.span && (a.field == b.field || a.message == b.message));
        self.diagnostics.extend(problems.into_iter().map(|p| locate(source, object.map(str::to_owned), p)));
    }

    fn document(&mut self, source: &'a Source, document: Document) {
        let root = &document.root;
        let mut problems = Vec::new();
        let Some(kind) = kind_of(root, &mut problems) else {
            return self.report(source, None, problems);
        };
        let schema = self.schemas.entry(kind.name).or_insert_with(|| (kind.schema)().to_value());
        problems.extend(schema::check(root, schema));
        let place = place::of(root, kind, self.default_namespace, &mut problems);
        metadata::check(root, &mut problems);
        let own = place.as_ref().map_or(self.default_namespace, |place| &place.namespace);
        spec::check(kind, root, &source.text, own, &mut problems);
        let sound = problems.iter().all(|p| p.severity != diagnostic::Severity::Error);
        let object = place.filter(|_| sound).and_then(|place| build(kind, root, place, &mut problems));
        let name = root.at(&["metadata", "name"]).and_then(Node::text).unwrap_or("?");
        let shown = object.as_ref().map_or_else(|| format!("{} {name}", kind.name), |o| o.key().to_string());
        self.report(source, Some(&shown), problems);
        let Some(object) = object else { return };
        if self.found.len() >= DOCUMENTS_MAX {
            let message = format!("more than {DOCUMENTS_MAX} documents are too many for one request");
            let problem = Problem::new(code::TOO_LARGE, document.root.head.clone(), message);
            return self.report(source, Some(&shown), vec![problem]);
        }
        self.found.push(Manifest { kind, object, document, source });
    }
}

fn kind_of(root: &Node, problems: &mut Vec<Problem>) -> Option<&'static Kind> {
    if !matches!(root.value, Value::Map(_)) {
        let message =
            format!("a document with apiVersion, kind and metadata is expected here, not {}", root.type_word());
        problems.push(Problem::new(code::WRONG_TYPE, root.span.clone(), message));
        return None;
    }
    match root.get("apiVersion") {
        Some(node) if node.text() == Some(API_VERSION) => {}
        Some(node) => {
            let message = "this apiVersion is none that this version reads";
            let problem = Problem::new(code::API_VERSION, node.span.clone(), message).field("apiVersion");
            problems.push(problem.help(format!("write `apiVersion: {API_VERSION}`")));
        }
        None => problems.push(missing(root, "apiVersion").help(format!("write `apiVersion: {API_VERSION}`"))),
    }
    let Some(node) = root.get("kind") else {
        problems.push(missing(root, "kind"));
        return None;
    };
    let word = node.text().unwrap_or_default();
    match kind::KINDS.iter().find(|kind| kind.name == word) {
        Some(kind) if kind.writable() => Some(kind),
        Some(kind) => {
            let message = format!("a {} is reported by agents and cannot be written", kind.name);
            let problem = Problem::new(policy::code::api::UNSUPPORTED_VERB, node.span.clone(), message).field("kind");
            problems.push(problem.help("take the document out"));
            None
        }
        None => {
            let names = || kind::KINDS.iter().map(|kind| kind.name);
            let near = kind::find(word).map(|kind| kind.name).or_else(|| suggest(word, names()));
            let problem = Problem::new(code::UNKNOWN_KIND, node.span.clone(), format!("there is no kind `{word}`"));
            problems.push(problem.field("kind").help(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the kinds are {}", names().collect::<Vec<_>>().join(", ")),
            }));
            None
        }
    }
}

fn missing(node: &Node, field: &str) -> Problem {
    Problem::new(code::MISSING_FIELD, node.head.clone(), format!("the field `{field}` is missing")).field(field)
}

/// The document as it is stored: typed once, so that equal meaning is stored equally.
fn build(kind: &Kind, root: &Node, place: place::Placed, problems: &mut Vec<Problem>) -> Option<Object> {
    let mut json = root.to_json();
    json["metadata"]["namespace"] = json!(place.namespace.as_str());
    json["metadata"]["name"] = json!(place.name);
    let built = serde_json::from_value::<Object>(json).and_then(|mut object| {
        object.spec = spec::normalised(kind, object.spec)?;
        // The system's word, whatever was sent.
        object.status = None;
        object.metadata.created = None;
        object.metadata.updated = None;
        Ok(object)
    });
    match built {
        Ok(object) => Some(object),
        Err(error) => {
            problems.push(Problem::new(code::WRONG_TYPE, root.head.clone(), error.to_string()));
            None
        }
    }
}

#[cfg(test)]
mod tests;
