//! What can be seen to be wrong with manifests before the server is asked: all of it at once, as a compiler shows it.
//!
//! The server checks everything again, and more: what other objects say is known only there.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};

use api::apply::Source;
use api::kind::{self, Kind, Scope};
use api::object::{API_VERSION, ObjectKey};
use policy::code::manifest as code;
use policy::diagnostic::{Diagnostic, Problem, Severity, Style, render};
use policy::manifest;
use policy::namespace::NamespacePath;
use policy::syntax::{Document, Node, parse_documents, schema};

use crate::failure::{Failure, Outcome};

/// Refuses manifests that have problems, after showing every problem of every file on standard error.
pub(crate) fn check(sources: &[Source]) -> Outcome {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = if plain || !io::stderr().is_terminal() { Style::Plain } else { Style::Colour };
    let mut errors = 0;
    for source in sources {
        let found = problems(&source.text);
        errors += found.iter().filter(|problem| problem.severity == Severity::Error).count();
        let located: Vec<Diagnostic> =
            found.into_iter().map(|problem| problem.locate(Some(&source.name), &source.text)).collect();
        if !located.is_empty() {
            // Where standard error is gone there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{}\n", render(&located, &source.text, style));
        }
    }
    match errors {
        0 => Ok(()),
        1 => Err(Failure::Reported("1 problem; nothing was written".to_owned())),
        errors => Err(Failure::Reported(format!("{errors} problems; nothing was written"))),
    }
}

/// What each document names, in order; documents without a namespace are in `default`.
///
/// Errors: none for sources that [`check`] accepts.
pub(crate) fn keys(sources: &[Source], default: Option<&str>) -> Vec<ObjectKey> {
    let documents = sources.iter().flat_map(|source| parse_documents(&source.text).0);
    documents.filter_map(|document| key(&document.root, default)).collect()
}

fn key(root: &Node, default: Option<&str>) -> Option<ObjectKey> {
    let kind = kind::find(root.get("kind")?.text()?)?;
    let name = root.at(&["metadata", "name"])?.text()?;
    let namespace = root.at(&["metadata", "namespace"]).and_then(Node::text).or(default).unwrap_or("/");
    let namespace = if kind.scope == Scope::Fleet { "/" } else { namespace };
    Some(ObjectKey::new(kind.name, namespace, name))
}

/// Every problem of one file.
fn problems(text: &str) -> Vec<Problem> {
    let (documents, mut problems) = parse_documents(text);
    for document in &documents {
        problems.extend(of_document(document, text));
    }
    problems
}

fn of_document(document: &Document, text: &str) -> Vec<Problem> {
    let root = &document.root;
    let mut problems = Vec::new();
    if let Some(version) = root.get("apiVersion").filter(|version| version.text() != Some(API_VERSION)) {
        let problem = Problem::new(code::API_VERSION, version.span.clone(), "this apiVersion is unknown");
        problems.push(problem.field("apiVersion").help(format!("write `apiVersion: {API_VERSION}`")));
    }
    let Some(kind) = root.get("kind") else {
        let problem = Problem::new(code::MISSING_FIELD, root.head.clone(), "`kind` is missing");
        problems.push(problem.field("kind").help("`stolos get` lists the kinds"));
        return problems;
    };
    match kind.text().and_then(|word| kind::KINDS.iter().find(|kind| kind.name == word)) {
        Some(kind) => problems.extend(of_kind(kind, root, text)),
        None => problems.push(unknown_kind(kind)),
    }
    problems
}

fn unknown_kind(node: &Node) -> Problem {
    let word = node.text().unwrap_or_default();
    // Another form of a kind's word (`policy`) is not taken in a file, but known.
    let near = kind::find(word).or_else(|| kind::suggest(word));
    let problem =
        Problem::new(code::UNKNOWN_KIND, node.span.clone(), format!("there is no kind `{word}`")).field("kind");
    match near {
        Some(kind) => problem.help(format!("did you mean `{}`?", kind.name)),
        None => problem.help("`stolos get` lists the kinds"),
    }
}

fn of_kind(kind: &Kind, root: &Node, text: &str) -> Vec<Problem> {
    let mut problems = schema::check(root, (kind.schema)().as_value());
    let meaning = match kind.name {
        "Policy" => manifest::policy(root, text, &NamespacePath::root()).1,
        "Namespace" => manifest::protection(root, text).1,
        _ => Vec::new(),
    };
    // The schema and the reading may both stumble over one place; it is told once.
    let told: BTreeSet<(&str, usize)> = problems.iter().map(|problem| (problem.code.id, problem.span.start)).collect();
    let new = meaning.into_iter().filter(|problem| !told.contains(&(problem.code.id, problem.span.start)));
    let new: Vec<Problem> = new.collect();
    problems.extend(new);
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<&'static str> {
        problems(text).iter().map(|problem| problem.code.id).collect()
    }

    const SOUND: &str = "apiVersion: stolos.dev/v1\nkind: Policy\nmetadata: {namespace: /acme, name: a}\n\
                         spec: {from: [app=web], to: [app=db], ports: [tcp/5432], action: allow}\n";

    #[test]
    fn what_is_sound_has_no_problems() {
        assert_eq!(codes(SOUND), Vec::<&str>::new());
        let json = r#"{"apiVersion":"stolos.dev/v1","kind":"Namespace","metadata":{"name":"acme"},"spec":{}}"#;
        assert_eq!(codes(json), Vec::<&str>::new());
    }

    #[test]
    fn the_problems_of_all_documents_come_at_once() {
        let text =
            format!("{SOUND}---\n{}---\nkind: Polcy\n", SOUND.replace("from:", "form:").replace("tcp/5432", "tcp/x"));
        let found = codes(&text);
        for code in ["P2002", "P2004", "P2202", "P2003"] {
            assert!(found.contains(&code), "{code} is not among {found:?}");
        }
        let missing = found.iter().filter(|code| **code == "P2004").count();
        assert_eq!(missing, 1, "one missing field is told once: {found:?}");
    }

    #[test]
    fn nothing_in_a_file_is_a_problem() {
        assert_eq!(codes("# only a comment\n"), ["P2008"]);
    }

    #[test]
    fn keys_are_read_in_order_with_the_default_namespace() {
        let text = "kind: Cluster\nmetadata: {name: eu-1}\n---\nkind: Policy\nmetadata: {name: a}\n".to_owned();
        let keys = keys(&[Source { name: "x".into(), text }], Some("/acme"));
        let named: Vec<String> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["Cluster /:eu-1", "Policy /acme:a"]);
    }
}
