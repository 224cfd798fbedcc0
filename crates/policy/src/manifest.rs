//! Policies and postures out of trees: what the words of a manifest mean, with every problem and its place.
//!
//! Structure (unknown fields, missing ones, wrong types) is compared with the kind's schema in `syntax::schema`; here
//! the values get their meaning. What is not well-formed is reported here, too: nothing is guessed.

use std::ops::Range;
use std::str::FromStr;

use jiff::Timestamp;

use crate::code::Code;
use crate::code::manifest as code;
use crate::diagnostic::{Problem, Severity};
use crate::namespace::{NamespacePath, PolicyId, check_name};
use crate::policy::{Action, Mode, PORTS_MAX, Policy, SELECTORS_MAX, Side, UnknownWord};
use crate::port::Port;
use crate::posture::{Encryption, OnAgentLoss, PostureTree, Protection};
use crate::selector::{Parsed, Pattern, Selector, SelectorError};
use crate::syntax::{Node, Value, parse_documents, suggest};

/// What is read, and what is wrong with it: the value is there when no problem is an error.
pub type Checked<T> = (Option<T>, Vec<Problem>);

/// Where a document says it belongs: `metadata.namespace` (else `default`) and `metadata.name`.
pub fn policy_id(root: &Node, default: &NamespacePath) -> Checked<PolicyId> {
    let mut reader = Reader { source: "", problems: Vec::new() };
    let metadata = root.get("metadata");
    let namespace = match metadata.and_then(|m| m.get("namespace")) {
        Some(node) => reader.namespace(node),
        None => Some(default.clone()),
    };
    let name = match metadata.and_then(|m| m.get("name")) {
        Some(node) => reader.name(node),
        None => {
            reader.missing(metadata.unwrap_or(root), "metadata.name");
            None
        }
    };
    let id = namespace.zip(name).and_then(|(namespace, name)| PolicyId::new(namespace, &name).ok());
    reader.finish(id)
}

/// Reads a Policy document. `source` is the file that it was parsed from; `default` the namespace for documents that
/// name none.
pub fn policy(root: &Node, source: &str, default: &NamespacePath) -> Checked<Policy> {
    let (id, problems) = policy_id(root, default);
    let mut reader = Reader { source, problems };
    let Some(spec) = root.get("spec") else {
        reader.missing(root, "spec");
        return reader.finish(None);
    };
    let own = id.as_ref().map_or(default, PolicyId::namespace).clone();
    let action = reader.required_word::<Action>(spec, "action");
    let mode = reader.word::<Mode>(spec, "mode").unwrap_or(Mode::Enforce);
    let from = reader.selectors(spec, "from", &own);
    let to = reader.selectors(spec, "to", &own);
    let ports = reader.ports(spec);
    let reason = reader.text(spec, "reason");
    reader.not_honoured(spec);
    if let (Some(action), Some(from), Some(to)) = (action, &from, &to) {
        reader.reach(spec, &own, action, from, to);
    }
    let (from, to) = (from.map(strip), to.map(strip));
    let read = (|| Some(Policy { id: id?, from: from?, to: to?, ports: ports?, action: action?, mode, reason }))();
    reader.finish(read)
}

/// Reads one Policy from its JSON (or YAML) document, as agents receive it.
pub fn policy_document(text: &str) -> Result<Policy, Vec<Problem>> {
    let (documents, mut problems) = parse_documents(text);
    let [document] = &documents[..] else {
        if problems.is_empty() {
            problems.push(Problem::new(code::SYNTAX, 0..0, "exactly one document is expected"));
        }
        return Err(problems);
    };
    let (read, more) = policy(&document.root, text, &NamespacePath::root());
    problems.extend(more);
    read.ok_or(problems)
}

/// Writes a policy as the YAML document that reads back as the same policy.
pub fn to_yaml(policy: &Policy) -> String {
    let mut text = format!(
        "apiVersion: stolos.dev/v1\nkind: Policy\nmetadata:\n  namespace: {}\n  name: {}\nspec:\n",
        scalar(policy.namespace().as_str()),
        scalar(policy.id.name()),
    );
    let mut list = |key: &str, items: Vec<String>| {
        text.push_str(&format!("  {key}:\n"));
        for item in items {
            text.push_str(&format!("  - {}\n", scalar(&item)));
        }
    };
    list("from", policy.from.iter().map(Selector::to_string).collect());
    list("to", policy.to.iter().map(Selector::to_string).collect());
    list("ports", policy.ports.iter().map(Port::to_string).collect());
    text.push_str(&format!("  action: {}\n", policy.action));
    if policy.mode != Mode::Enforce {
        text.push_str(&format!("  mode: {}\n", policy.mode));
    }
    if let Some(reason) = &policy.reason {
        text.push_str(&format!("  reason: {}\n", scalar(reason)));
    }
    text
}

/// Text as a YAML scalar: bare where that is safe, else in the quotes of JSON, which YAML reads.
fn scalar(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '=' | '-' | '_' | '.');
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(word);
    match bare && !matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off")
    {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// Reads what a Namespace document says for itself. What it loosens is [`loosenings`]'s business.
pub fn protection(root: &Node, source: &str) -> Checked<Protection> {
    let mut reader = Reader { source, problems: Vec::new() };
    let mut read = Protection::default();
    if let Some(node) = root.at(&["spec", "protection"]) {
        read.mode = reader.word_at(node, "mode", "spec.protection.mode");
        read.encryption = reader.word_at(node, "encryption", "spec.protection.encryption");
        read.on_agent_loss = reader.word_at(node, "onAgentLoss", "spec.protection.onAgentLoss");
        if let Some(default) = node.get("default") {
            read.ingress = reader.word_at(default, "ingress", "spec.protection.default.ingress");
            read.egress = reader.word_at(default, "egress", "spec.protection.default.egress");
        }
        if read.encryption.is_some_and(|e| e != Encryption::Off) {
            reader.unavailable(node, "encryption", "spec.protection.encryption", code::ENCRYPTION_UNAVAILABLE);
        }
        if read.on_agent_loss == Some(OnAgentLoss::Open) {
            reader.unavailable(node, "onAgentLoss", "spec.protection.onAgentLoss", code::ON_AGENT_LOSS_UNAVAILABLE);
        }
    }
    if let Some(node) = root.at(&["spec", "observeUntil"]) {
        read.observe_until = node.text().and_then(|text| text.parse::<Timestamp>().ok());
        if read.observe_until.is_none() {
            let message = "this is no point in time";
            let problem = Problem::new(code::BAD_TIME, node.span.clone(), message).field("spec.observeUntil");
            reader.problems.push(problem.help("write it as in RFC 3339: `2030-01-31T00:00:00Z`"));
        } else if read.mode != Some(Mode::Enforce) {
            let message = "`observeUntil` stands in a namespace that does not enforce";
            let problem = Problem::new(code::OBSERVE_UNTIL, node.span.clone(), message).field("spec.observeUntil");
            reader.problems.push(problem.help("set `protection.mode: enforce` beside it, or take it out"));
        }
    }
    reader.finish(Some(read))
}

/// The settings of a Namespace document that do not hold because what stands above it is tighter.
pub fn loosenings(
    root: &Node,
    namespace: &NamespacePath,
    read: &Protection,
    tree: &PostureTree,
    now: Timestamp,
) -> Vec<Problem> {
    let problem = |loosening: crate::posture::Loosening| {
        let path: Vec<&str> = ["spec", "protection"].into_iter().chain(loosening.field.split('.')).collect();
        let span = root.at(&path).map_or(root.head.clone(), |node| node.span.clone());
        let message =
            format!("`{}: {}` is looser than `{}` above {namespace}", loosening.field, loosening.said, loosening.holds);
        let problem = Problem::new(code::POSTURE_LOOSENS, span, message).field(path.join("."));
        problem.help("a namespace may tighten what holds above it, never loosen it: take the setting out")
    };
    tree.loosenings(namespace, read, now).into_iter().map(problem).collect()
}

/// A selector, and its place in the file.
struct Placed {
    parsed: Parsed,
    span: Range<usize>,
    field: String,
}

fn strip(placed: Vec<Placed>) -> Vec<Selector> {
    placed.into_iter().map(|p| p.parsed.selector).collect()
}

struct Reader<'a> {
    source: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn finish<T>(self, read: Option<T>) -> Checked<T> {
        let sound = self.problems.iter().all(|p| p.severity != Severity::Error);
        (read.filter(|_| sound), self.problems)
    }

    fn error(&mut self, code: Code, span: Range<usize>, field: &str, message: impl Into<String>) -> &mut Problem {
        self.problems.push(Problem::new(code, span, message).field(field));
        self.problems.last_mut().expect("BUG: just pushed")
    }

    fn missing(&mut self, node: &Node, field: &str) {
        let key = field.rsplit('.').next().unwrap_or(field);
        self.error(code::MISSING_FIELD, node.head.clone(), field, format!("the field `{key}` is missing"));
    }

    fn wrong_type(&mut self, node: &Node, field: &str, expected: &str) {
        let message = format!("{expected} is expected here, not {}", node.type_word());
        self.error(code::WRONG_TYPE, node.span.clone(), field, message);
    }

    fn namespace(&mut self, node: &Node) -> Option<NamespacePath> {
        let field = "metadata.namespace";
        let Some(text) = node.text() else {
            self.wrong_type(node, field, "text");
            return None;
        };
        let read = NamespacePath::new(text);
        read.map_err(|e| self.error(code::BAD_NAMESPACE, node.span.clone(), field, e.to_string()).message.clone()).ok()
    }

    fn name(&mut self, node: &Node) -> Option<String> {
        let field = "metadata.name";
        let Some(text) = node.text() else {
            self.wrong_type(node, field, "text");
            return None;
        };
        match check_name(text) {
            Ok(()) => Some(text.to_owned()),
            Err(error) => {
                self.error(code::BAD_NAME, node.span.clone(), field, error.to_string());
                None
            }
        }
    }

    fn text(&mut self, spec: &Node, key: &str) -> Option<String> {
        let node = spec.get(key)?;
        if node.text().is_none() {
            self.wrong_type(node, &format!("spec.{key}"), "text");
        }
        node.text().map(str::to_owned)
    }

    fn required_word<T: FromStr<Err = UnknownWord>>(&mut self, spec: &Node, key: &str) -> Option<T> {
        if spec.get(key).is_none() {
            self.missing(spec, &format!("spec.{key}"));
        }
        self.word(spec, key)
    }

    fn word<T: FromStr<Err = UnknownWord>>(&mut self, spec: &Node, key: &str) -> Option<T> {
        self.word_at(spec, key, &format!("spec.{key}"))
    }

    fn word_at<T: FromStr<Err = UnknownWord>>(&mut self, node: &Node, key: &str, field: &str) -> Option<T> {
        let node = node.get(key)?;
        let said = node.text().unwrap_or_default();
        match said.parse() {
            Ok(word) => Some(word),
            Err(UnknownWord { choices }) => {
                let shown = if said.is_empty() { node.type_word().to_owned() } else { format!("`{said}`") };
                let message = format!("{shown} is not one of {}", choices.join(", "));
                let near = suggest(said, choices.iter().copied());
                self.error(code::BAD_CHOICE, node.span.clone(), field, message).help =
                    near.map(|near| format!("did you mean `{near}`?"));
                None
            }
        }
    }

    fn selectors(&mut self, spec: &Node, key: &str, own: &NamespacePath) -> Option<Vec<Placed>> {
        let field = format!("spec.{key}");
        let Some(list) = spec.get(key) else {
            self.missing(spec, &field);
            return None;
        };
        let Value::List(items) = &list.value else {
            self.wrong_type(list, &field, "a list");
            return None;
        };
        if items.is_empty() {
            self.error(code::NO_ENDS, list.span.clone(), &field, format!("`{key}` is empty")).help =
                Some("name the ends; `any` means every identity in the policy's namespace".into());
        }
        if items.len() > SELECTORS_MAX {
            self.error(code::TOO_MANY, list.span.clone(), &field, format!("`{key}` has more than 256 selectors"));
        }
        let read: Vec<Option<Placed>> = items
            .iter()
            .enumerate()
            .map(|(index, node)| self.selector(node, format!("{field}[{index}]"), own))
            .collect();
        read.into_iter().collect()
    }

    fn selector(&mut self, node: &Node, field: String, own: &NamespacePath) -> Option<Placed> {
        let Some(text) = node.text() else {
            self.wrong_type(node, &field, "a selector, as in app=web,");
            return None;
        };
        let (parsed, problems) = match Selector::parse(text) {
            Ok(parsed) => {
                let problems = parsed.problems(own);
                (Some(parsed), problems)
            }
            Err(SelectorError(problems)) => (None, problems),
        };
        for mut problem in problems {
            problem.span = node.place_of(self.source, problem.span);
            self.problems.push(problem.field(field.clone()));
        }
        Some(Placed { parsed: parsed?, span: node.span.clone(), field })
    }

    fn ports(&mut self, spec: &Node) -> Option<Vec<Port>> {
        let field = "spec.ports";
        let Some(list) = spec.get("ports") else {
            return Some(vec![Port::Any]);
        };
        let Value::List(items) = &list.value else {
            self.wrong_type(list, field, "a list");
            return None;
        };
        if items.is_empty() {
            self.error(code::BAD_PORT, list.span.clone(), field, "`ports` is empty").help =
                Some("name the ports, or leave the field out for all of them".into());
        }
        if items.len() > PORTS_MAX {
            self.error(code::TOO_MANY, list.span.clone(), field, "`ports` has more than 256 entries");
        }
        let mut ports = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            let text = match &node.value {
                Value::Text(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => String::new(),
            };
            match text.parse::<Port>() {
                Ok(port) => ports.push(port),
                Err(error) => {
                    let field = format!("{field}[{index}]");
                    self.error(code::BAD_PORT, node.span.clone(), &field, error.to_string());
                }
            }
        }
        Some(ports)
    }

    /// Fields that no enforcer meets yet are refused, never stored and ignored.
    fn not_honoured(&mut self, spec: &Node) {
        for (key, code) in [
            ("encryption", code::ENCRYPTION_UNAVAILABLE),
            ("http", code::HTTP_UNAVAILABLE),
            ("schedule", code::SCHEDULE_UNAVAILABLE),
            ("expires", code::EXPIRES_UNAVAILABLE),
        ] {
            if spec.get(key).is_some() {
                self.unavailable(spec, key, &format!("spec.{key}"), code);
            }
        }
    }

    fn unavailable(&mut self, node: &Node, key: &str, field: &str, code: Code) {
        let Some(entry) = node.entry(key) else { return };
        let message = format!("`{key}` cannot be enforced by this version");
        self.error(code, entry.span.clone(), field, message).help = Some(code.mend.to_owned());
    }

    /// For whom the policy speaks, and whom a deny does not reach.
    fn reach(&mut self, spec: &Node, own: &NamespacePath, action: Action, from: &[Placed], to: &[Placed]) {
        let here = |placed: &[Placed]| placed.iter().any(|p| may_lie_below(&p.parsed.selector, own));
        if !from.is_empty() && !to.is_empty() && !here(from) && !here(to) {
            let message = format!("neither end can lie in {own} or below, so the policy speaks for nobody");
            self.error(code::SPEAKS_FOR_NOBODY, spec.head.clone(), "spec", message).help =
                Some("put the policy into the namespace of one of its ends".into());
        }
        if action == Action::Allow || own.is_root() {
            return;
        }
        for (side, placed) in [(Side::Egress, from), (Side::Ingress, to)] {
            let all = |p: &&Placed| !p.parsed.selector.is_external() && !p.parsed.selector.names_namespaces();
            if let Some(first) = placed.iter().find(all) {
                let (who, whom) = match side {
                    Side::Egress => ("clients", "from"),
                    Side::Ingress => ("servers", "to"),
                };
                let message = format!("this deny does not reach {who} outside {own}");
                let problem = Problem::new(code::DENY_WITHOUT_SCOPE, first.span.clone(), message).warning();
                let help = format!("if they are meant, add `@namespace=/**` to `{whom}`");
                self.problems.push(problem.help(help).field(first.field.clone()));
            }
        }
    }
}

/// Whether a selector of a policy of `own` can mean a workload in `own` or below.
fn may_lie_below(selector: &Selector, own: &NamespacePath) -> bool {
    let meets = |pattern: &Pattern| match pattern {
        Pattern::Exact(path) => path.parse().is_ok_and(|path: NamespacePath| own.contains(&path)),
        Pattern::Subtree(path) => path.contains(own) || own.contains(path),
        Pattern::Prefix(_) => true,
    };
    !selector.is_external() && selector.namespace_patterns().all(|patterns| patterns.iter().any(meets))
}

#[cfg(test)]
mod tests;
