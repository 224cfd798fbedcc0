//! Where a document belongs, and what it is called.

use super::*;

/// Namespace and name of a document.
pub(super) struct Placed {
    pub(super) namespace: NamespacePath,
    pub(super) name: String,
}

/// Reads them; `None` with a problem where they are not valid.
pub(super) fn of(
    root: &Node,
    kind: &Kind,
    default_namespace: &NamespacePath,
    problems: &mut Vec<Problem>,
) -> Option<Placed> {
    let metadata = root.get("metadata")?;
    let namespace = match metadata.get("namespace") {
        Some(node) => namespace(node, kind, problems),
        None if kind.scope == Scope::Fleet => Some(NamespacePath::root()),
        None => Some(default_namespace.clone()),
    };
    let name = name(metadata.get("name")?, kind, problems);
    let (namespace, name) = (namespace?, name?);
    if kind.name != NAMESPACE {
        return Some(Placed { namespace, name });
    }
    // The root is called `/` and lives in itself, whatever the default namespace is.
    if name == "/" {
        return Some(Placed { namespace: NamespacePath::root(), name });
    }
    if let Err(error) = namespace.join(&name) {
        let span = metadata.get("name").map_or(metadata.head.clone(), |node| node.span.clone());
        problems.push(Problem::new(code::BAD_NAMESPACE, span, error.to_string()).field("metadata.name"));
        return None;
    }
    Some(Placed { namespace, name })
}

fn namespace(node: &Node, kind: &Kind, problems: &mut Vec<Problem>) -> Option<NamespacePath> {
    let bad =
        |message: String| Problem::new(code::BAD_NAMESPACE, node.span.clone(), message).field("metadata.namespace");
    match NamespacePath::new(node.text()?) {
        Ok(path) if kind.scope == Scope::Fleet && !path.is_root() => {
            let problem = bad(format!("a {} belongs to the whole fleet, not to {path}", kind.name));
            problems.push(problem.help("take `namespace` out"));
            None
        }
        Ok(path) => Some(path),
        Err(error) => {
            problems.push(bad(error.to_string()));
            None
        }
    }
}

fn name(node: &Node, kind: &Kind, problems: &mut Vec<Problem>) -> Option<String> {
    let text = node.text()?;
    let bad = |message: String| Problem::new(code::BAD_NAME, node.span.clone(), message).field("metadata.name");
    if kind.name == NAMESPACE {
        if let Some((parent, last)) = text.rsplit_once('/').filter(|(_, last)| !last.is_empty()) {
            let parent = if parent.is_empty() { "/" } else { parent };
            let problem = bad("a Namespace's name is the last segment of its path".into());
            problems.push(problem.help(format!("write `namespace: {parent}` and `name: {last}`")));
            return None;
        }
        if text == "/" {
            return Some(text.to_owned());
        }
        if text.contains('.') || check_name(text).is_err() {
            problems.push(bad(format!("`{text}` is no namespace segment: use a-z, 0-9 and `-` inside")));
            return None;
        }
        return Some(text.to_owned());
    }
    match check_name(text) {
        Ok(()) => Some(text.to_owned()),
        Err(error) => {
            problems.push(bad(error.to_string()));
            None
        }
    }
}
