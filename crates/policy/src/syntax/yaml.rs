//! YAML events -> trees with places. JSON is a subset.

use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

use super::{DEPTH_MAX, Document, Entry, FILE_LEN_MAX, Node, PROBLEMS_MAX, Value};
use crate::code::manifest as code;
use crate::diagnostic::{Problem, line_and_column};

pub(super) fn parse(text: &str) -> (Vec<Document>, Vec<Problem>) {
    if text.len() > FILE_LEN_MAX {
        let problem = Problem::new(code::TOO_LARGE, 0..0, "the file is larger than 4 MiB");
        return (Vec::new(), vec![problem]);
    }
    // The parser's own limit lies beyond ours, so that ours can point at the place.
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX + 8,
        block_nesting_limit: DEPTH_MAX + 8,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { text, documents: Vec::new(), problems: Vec::new(), stack: Vec::new(), sound: true };
    loop {
        match parser.next_event() {
            None => break,
            Some(Ok((event, span))) => reader.event(event, &span),
            Some(Err(error)) => {
                reader.scan_error(&error);
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
        if reader.problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    if reader.documents.is_empty() && reader.problems.is_empty() {
        reader.problems.push(Problem::new(code::EMPTY, 0..0, "the file has no document"));
    }
    (reader.documents, reader.problems)
}

struct Reader<'a> {
    text: &'a str,
    documents: Vec<Document>,
    problems: Vec<Problem>,
    stack: Vec<Open>,
    /// Whether the document in hand can be used.
    sound: bool,
}

/// A list or mapping whose end has not come yet.
struct Open {
    node: Node,
    /// In a mapping, the key whose value comes next.
    key: Option<(String, Range<usize>)>,
}

impl Reader<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span) {
        let place = span.byte_range().unwrap_or(0..0);
        match event {
            Event::DocumentStart(..) => {
                self.stack.clear();
                self.sound = true;
            }
            Event::DocumentEnd => {
                self.stack.clear();
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_only(anchor, tag.is_some(), &place);
                let value = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                self.value(Node { value, head: place.clone(), span: place });
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.plain_only(anchor, tag.is_some(), &place);
                self.open(Value::List(Vec::new()), place);
            }
            Event::MappingStart(_, anchor, tag) => {
                self.plain_only(anchor, tag.is_some(), &place);
                self.open(Value::Map(Vec::new()), place);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.problem(code::UNSUPPORTED_YAML, place.clone(), "an alias stands here", "write the value out");
                self.value(Node { value: Value::Null, head: place.clone(), span: place });
            }
            _ => {}
        }
    }

    fn plain_only(&mut self, anchor: usize, tagged: bool, place: &Range<usize>) {
        if anchor != 0 {
            self.problem(code::UNSUPPORTED_YAML, place.clone(), "a value with an anchor", "take the `&name` out");
        }
        if tagged {
            self.problem(code::UNSUPPORTED_YAML, place.clone(), "a value with a tag", "take the `!tag` out");
        }
    }

    fn open(&mut self, value: Value, place: Range<usize>) {
        if self.stack.len() == DEPTH_MAX {
            self.problem(code::TOO_LARGE, place.clone(), "lists and mappings are nested too deeply", "flatten it");
        }
        self.stack.push(Open { node: Node { value, head: place.start..place.start, span: place }, key: None });
    }

    fn close(&mut self, place: Range<usize>) {
        let Some(Open { mut node, .. }) = self.stack.pop() else { return };
        let flow = self.text[..place.end].ends_with(['}', ']']) && !place.is_empty();
        let last = match &node.value {
            Value::Map(entries) => entries.last().map(|entry| entry.value.span.end.max(entry.span.end)),
            Value::List(items) => items.last().map(|item| item.span.end),
            _ => None,
        };
        node.span.end = if flow { place.end } else { last.unwrap_or(place.end).max(node.span.start) };
        node.head = match &node.value {
            Value::Map(entries) if !entries.is_empty() => entries[0].span.clone(),
            Value::List(items) if !items.is_empty() => items[0].head.clone(),
            _ => node.span.clone(),
        };
        self.value(node);
    }

    /// A finished value: the document itself, an item, a key, or the value of a key.
    fn value(&mut self, mut node: Node) {
        let Some(open) = self.stack.last_mut() else {
            if self.sound && node.value != Value::Null {
                let (line, _) = line_and_column(self.text, node.span.start);
                self.documents.push(Document { root: node, line });
            }
            return;
        };
        match (&mut open.node.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, span))) => {
                if !matches!(node.value, Value::Text(_) | Value::Number(_) | Value::Bool(_)) {
                    node.head = span.clone();
                }
                if !entries.iter().any(|entry| entry.key == key) {
                    entries.push(Entry { key, span, value: node });
                }
            }
            (Value::Map(entries), None) => {
                let key = match node.value {
                    Value::Text(text) => Some(text),
                    Value::Number(number) => Some(number.to_string()),
                    Value::Bool(value) => Some(value.to_string()),
                    _ => None,
                };
                let twice = key.as_ref().is_some_and(|key| entries.iter().any(|entry| entry.key == *key));
                open.key = Some((key.clone().unwrap_or_default(), node.span.clone()));
                match key {
                    None => self.problem(code::WRONG_TYPE, node.span, "a key must be text", "write a plain word"),
                    Some(key) if twice => {
                        let message = format!("the key `{key}` stands here twice");
                        self.problem(code::DUPLICATE_KEY, node.span, &message, "take one of the two out");
                    }
                    Some(key) if key == "<<" => {
                        self.problem(
                            code::UNSUPPORTED_YAML,
                            node.span,
                            "a merge key stands here",
                            "write the keys out",
                        );
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }

    fn scan_error(&mut self, error: &granit_parser::ScanError) {
        let at = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
        let mut problem = match error.kind() {
            ErrorKind::RecursionLimitExceeded => {
                Problem::new(code::TOO_LARGE, at..at, "lists and mappings are nested too deeply").help("flatten it")
            }
            _ => Problem::new(code::SYNTAX, at..at, format!("this is not YAML: {}", error.info())),
        };
        let line_start = self.text.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        if self.text.get(line_start..).is_some_and(|line| line.trim_start_matches(' ').starts_with('\t')) {
            problem = problem.help("indent with spaces, not with tabs");
        }
        self.problems.push(problem);
        self.stack.clear();
        self.sound = false;
    }

    fn problem(&mut self, code: crate::code::Code, span: Range<usize>, message: &str, help: &str) {
        self.problems.push(Problem::new(code, span, message).help(help));
        self.sound = false;
    }
}

/// What an unquoted word is, by the core schema of YAML 1.2. `yes`, `on` and `0x10` are text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match serde_json::from_str::<serde_json::Number>(text) {
        Ok(number) if numeric => Value::Number(number),
        _ => Value::Text(text.to_owned()),
    }
}
