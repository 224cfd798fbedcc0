//! The text of a selector -> its requirements, with every problem and where it stands.

use std::ops::Range;

use super::{Pattern, REQUIREMENTS_MAX, Requirement, SELECTOR_LEN_MAX, Selector, SelectorError, Test, VALUES_MAX};
use crate::attribute::{EXTERNAL_KEY, NAMESPACE_KEY, SYSTEM_KEYS, VALUE_LEN_MAX, check_attribute, is_key_char};
use crate::code::manifest as code;
use crate::diagnostic::Problem;
use crate::namespace::{ExternalId, NamespacePath, check_name};

/// A selector and where its requirements stand in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The selector.
    pub selector: Selector,
    /// For each requirement its byte range in the text.
    pub spans: Vec<Range<usize>>,
}

/// Characters of a value that need no quotes.
pub(super) fn is_bare(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !matches!(c, ',' | '=' | '*' | '(' | ')' | '"' | '\'' | '!')
}

pub(super) fn parse(text: &str) -> Result<Parsed, SelectorError> {
    if text.len() > SELECTOR_LEN_MAX {
        let problem = Problem::new(code::SELECTOR_TOO_LARGE, 0..0, "the selector is longer than 16 KiB");
        return Err(SelectorError(vec![problem]));
    }
    if text.trim() == "any" {
        return Ok(Parsed { selector: Selector::any(), spans: Vec::new() });
    }
    let mut parser = Parser { text, at: 0, problems: Vec::new() };
    let (requirements, spans): (Vec<_>, Vec<_>) = parser.requirements().into_iter().unzip();
    if requirements.len() > REQUIREMENTS_MAX {
        let span = spans[REQUIREMENTS_MAX].start..text.len();
        parser.problem(code::SELECTOR_TOO_LARGE, span, "the selector has more than 64 requirements");
    }
    match parser.problems.is_empty() {
        true => Ok(Parsed { selector: Selector { requirements }, spans }),
        false => Err(SelectorError(parser.problems)),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    problems: Vec<Problem>,
}

/// A value as written, before it is known what the key makes of it.
struct Value {
    text: String,
    stars: usize,
    span: Range<usize>,
}

impl<'a> Parser<'a> {
    fn requirements(&mut self) -> Vec<(Requirement, Range<usize>)> {
        let mut found = Vec::new();
        loop {
            self.space();
            let start = self.at;
            match self.requirement() {
                Some(requirement) => found.push((requirement, start..self.at)),
                None => self.skip_requirement(),
            }
            self.space();
            if self.eat(',') {
                continue;
            }
            if self.at >= self.text.len() {
                return found;
            }
            let start = self.at;
            self.skip_requirement();
            let rest = self.text[start..self.at].trim();
            self.problem(code::SELECTOR_SYNTAX, start..self.at, format!("`{rest}` is not expected here")).help =
                Some("join requirements with commas; put values with spaces in quotes".into());
            if !self.eat(',') {
                return found;
            }
        }
    }

    fn requirement(&mut self) -> Option<Requirement> {
        let start = self.at;
        let negated = self.eat('!');
        self.space();
        let key = self.key(start)?;
        let key_span = start..self.at;
        self.space();
        if negated {
            if self.rest().starts_with(['=', '!']) {
                let help = format!("write `{key}!=VALUE`");
                self.problem(code::SELECTOR_SYNTAX, key_span, "`!` before a key takes no value").help = Some(help);
                return None;
            }
            return Some(Requirement { key, test: Test::Absent });
        }
        let test = if self.eat_str("!=") {
            Test::NotIn(vec![self.single(&key)?])
        } else if self.eat_str("==") || self.eat('=') {
            Test::In(vec![self.single(&key)?])
        } else if self.eat_word("in") {
            Test::In(self.list(&key)?)
        } else if self.eat_word("notin") {
            Test::NotIn(self.list(&key)?)
        } else if key == "any" {
            self.problem(code::SELECTOR_ANY, key_span, "`any` stands beside other requirements").help =
                Some("leave `any` out".into());
            return None;
        } else {
            Test::Exists
        };
        Some(Requirement { key, test })
    }

    fn key(&mut self, start: usize) -> Option<String> {
        let from = self.at;
        let system = self.rest().starts_with('@');
        let end = self.rest().char_indices().find(|&(i, c)| !(is_key_char(c) || (i == 0 && c == '@')));
        self.at += end.map_or(self.rest().len(), |(i, _)| i);
        let key = &self.text[from..self.at];
        if key.is_empty() {
            let next: String = self.rest().chars().take(1).collect();
            let (message, help) = match next.as_str() {
                "" | "," => ("a requirement is missing here".to_owned(), "take the comma out, or write `any`"),
                "*" => ("`*` is no requirement".to_owned(), "for every identity in scope write `any`"),
                _ => (format!("`{next}` is no key"), "keys have letters, digits and `-_./:`"),
            };
            let end = self.at + next.len();
            self.problem(code::SELECTOR_SYNTAX, start..end, message).help = Some(help.into());
            return None;
        }
        if key == EXTERNAL_KEY || check_attribute(key, "").is_ok() {
            return Some(key.to_owned());
        }
        let span = from..self.at;
        if !system {
            self.problem(code::SELECTOR_SYNTAX, span, format!("`{key}` is no key")).help =
                Some("keys have letters, digits and `-_./:` inside".into());
            return None;
        }
        let near = SYSTEM_KEYS
            .iter()
            .chain([&EXTERNAL_KEY])
            .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        self.problem(code::SELECTOR_SYSTEM_KEY, span, format!("`{key}` is no system attribute")).help = help;
        Some(key.to_owned())
    }

    fn single(&mut self, key: &str) -> Option<Pattern> {
        self.space();
        let start = self.at;
        let value = self.value()?;
        if value.text.is_empty() && value.stars == 0 && value.span == (start..start) {
            let help = format!("write `{key}=\"\"` for an empty value, `{key}` for any value");
            self.problem(code::SELECTOR_SYNTAX, start..start, format!("a value for `{key}` is missing")).help =
                Some(help);
            return None;
        }
        self.pattern(key, value)
    }

    fn list(&mut self, key: &str) -> Option<Vec<Pattern>> {
        self.space();
        let open = self.at;
        if !self.eat('(') {
            self.problem(code::SELECTOR_SYNTAX, open..self.at, "values in parentheses are expected here").help =
                Some(format!("write `{key} in (a,b)`"));
            return None;
        }
        self.space();
        if self.eat(')') {
            let help = "name the values, or take the requirement out";
            self.problem(
                code::SELECTOR_EMPTY_LIST,
                open..self.at,
                format!("the list of values for `{key}` is empty"),
            )
            .help = Some(help.into());
            return Some(Vec::new());
        }
        let mut patterns = Vec::new();
        loop {
            self.space();
            let start = self.at;
            let value = self.value()?;
            if value.span.is_empty() {
                self.problem(code::SELECTOR_SYNTAX, start..start, "a value is missing here");
                return None;
            }
            patterns.push(self.pattern(key, value)?);
            self.space();
            if self.eat(')') {
                break;
            }
            if !self.eat(',') {
                self.problem(code::SELECTOR_SYNTAX, open..self.at, "the list of values has no end").help =
                    Some("close it with `)`, separate values with commas".into());
                return None;
            }
        }
        if patterns.len() > VALUES_MAX {
            self.problem(code::SELECTOR_TOO_LARGE, open..self.at, "more than 256 values in one list");
        }
        Some(patterns)
    }

    fn value(&mut self) -> Option<Value> {
        let start = self.at;
        let text = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => {
                let end = self.rest().find(|c| !is_bare(c)).unwrap_or(self.rest().len());
                self.at += end;
                self.text[start..self.at].to_owned()
            }
        };
        let stars = self.rest().len() - self.rest().trim_start_matches('*').len();
        self.at += stars;
        let more = self.rest().chars().next().is_some_and(|c| is_bare(c) || matches!(c, '"' | '\''));
        if more {
            self.problem(code::SELECTOR_SYNTAX, start..self.at, "a value ends here, and more follows").help =
                Some("`*` stands only at the end of a value; put a value with `*` inside in quotes".into());
            return None;
        }
        let bad = text.len() > VALUE_LEN_MAX || text.chars().any(char::is_control);
        if bad {
            let message = "a value has control characters or more than 1024 bytes";
            self.problem(code::SELECTOR_SYNTAX, start..self.at, message);
            return None;
        }
        Some(Value { text, stars, span: start..self.at })
    }

    fn quoted(&mut self, quote: char) -> Option<String> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\'' | '\\'))) => text.push(escaped),
                    _ => break,
                },
                c if c == quote => {
                    self.at = start + index + 1;
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        let end = self.text.len();
        self.problem(code::SELECTOR_SYNTAX, start..end, "the quotes are not closed").help =
            Some(r#"close them; inside, write `\"` for a quote and `\\` for a backslash"#.into());
        self.at = end;
        None
    }

    /// What the key makes of a value; a wrong one is reported and stands as it is, so that parsing goes on.
    fn pattern(&mut self, key: &str, value: Value) -> Option<Pattern> {
        let Value { text, stars, span } = value;
        if key == NAMESPACE_KEY {
            return self.namespace_pattern(&text, stars, span);
        }
        if stars > 1 {
            self.problem(code::SELECTOR_SYNTAX, span, "`**` has a meaning for `@namespace` only").help =
                Some("write one `*` for a prefix match".into());
            return None;
        }
        if key == EXTERNAL_KEY && stars == 0 {
            let qualified = text.starts_with('/');
            let good = if qualified { text.parse::<ExternalId>().is_ok() } else { check_name(&text).is_ok() };
            if !good {
                self.problem(code::BAD_NAME, span, format!("`{text}` is no name of an ExternalNetwork")).help =
                    Some("write `@external=NAME`, or `@external=/namespace:NAME`".into());
                return None;
            }
        }
        Some(if stars == 1 { Pattern::Prefix(text) } else { Pattern::Exact(text) })
    }

    fn namespace_pattern(&mut self, text: &str, stars: usize, span: Range<usize>) -> Option<Pattern> {
        let (path, subtree) = match (stars, text.strip_suffix('/')) {
            (0, _) => (text, false),
            (2, Some("")) => ("/", true),
            (2, Some(path)) => (path, true),
            _ => {
                let base = text.trim_end_matches('/');
                self.problem(code::SELECTOR_NAMESPACE, span, "namespaces are matched whole, or with all below them")
                    .help = Some(format!("write `{base}/**` for the subtree"));
                return None;
            }
        };
        match NamespacePath::new(path) {
            Ok(path) if subtree => Some(Pattern::Subtree(path)),
            Ok(path) => Some(Pattern::Exact(path.to_string())),
            Err(error) => {
                self.problem(code::SELECTOR_NAMESPACE, span, format!("`{text}` can be no namespace: {error}"));
                None
            }
        }
    }

    fn problem(&mut self, code: crate::code::Code, span: Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.problems.push(Problem::new(code, span, message));
        self.problems.last_mut().expect("BUG: just pushed")
    }

    /// To the comma that ends a broken requirement, over quotes and parentheses.
    fn skip_requirement(&mut self) {
        let mut depth = 0_usize;
        let mut quote = None;
        for (index, c) in self.rest().char_indices() {
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => depth = depth.saturating_sub(1),
                (None, ',') if depth == 0 => {
                    self.at += index;
                    return;
                }
                (None, _) => {}
            }
        }
        self.at = self.text.len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        self.at += if there { c.len_utf8() } else { 0 };
        there
    }

    fn eat_str(&mut self, word: &str) -> bool {
        let there = self.rest().starts_with(word);
        self.at += if there { word.len() } else { 0 };
        there
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let ends = |rest: &str| !rest.starts_with(is_key_char);
        let there = self.rest().strip_prefix(word).is_some_and(ends);
        self.at += if there { word.len() } else { 0 };
        there
    }
}
