//! Rules for Rust files: lengths, the paragraph at the top, names, constructs.

/// Lines of a file, its tests left out.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, signature and braces included.
const FUNCTION_LINES_MAX: usize = 70;
const BANNED_MODULES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "core", "shared"];
/// The crates that may hold unsafe code.
const MAY_BE_UNSAFE: &[&str] = &["crates/datapath/", "crates/linux/"];

/// What code must not say, and what to do instead. Looked for outside of comments and strings.
const BANNED_CODE: &[(&str, &str)] = &[
    ("unbounded_channel", "channels are bounded, with a named capacity"),
    ("mpsc::channel()", "channels are bounded: sync_channel with a named capacity"),
    ("#[ignore", "no ignored tests: assert what is, or put it where it belongs"),
];

/// Broken rules of a file.
pub(super) fn problems(path: &str, content: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let code = blank(content);
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let is_test = path.contains("/tests/") || stem == "tests" || stem.ends_with("_tests");
    if BANNED_MODULES.contains(&stem) {
        problems.push(format!("{path}: a module called {stem} says nothing; name what it does"));
    }
    if stem == "mod" {
        problems.push(format!("{path}: modules are foo.rs + foo/, not foo/mod.rs"));
    }
    if !content.starts_with("//!") && !is_test {
        problems.push(format!("{path}: begins without a //! paragraph (what it owns, what it must not know)"));
    }
    let lines = code.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or_else(|| code.lines().count());
    if lines > FILE_LINES_MAX && !is_test {
        problems.push(format!("{path}: {lines} lines without tests; at most {FILE_LINES_MAX}"));
    }
    let root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    if root && !MAY_BE_UNSAFE.iter().any(|safe| path.starts_with(safe)) && !code.contains("#![forbid(unsafe_code)]") {
        problems.push(format!("{path}: lacks #![forbid(unsafe_code)]"));
    }
    for (index, line) in code.lines().enumerate() {
        for (banned, instead) in BANNED_CODE {
            if line.contains(banned) {
                problems.push(format!("{path}:{}: {banned}: {instead}", index + 1));
            }
        }
        if is_test && line.contains("thread::sleep(") {
            problems.push(format!("{path}:{}: tests wait on a predicate with a limit, never for a time", index + 1));
        }
    }
    for (name, line, length) in functions(&code) {
        if length > FUNCTION_LINES_MAX {
            problems.push(format!("{path}:{line}: fn {name} has {length} lines; at most {FUNCTION_LINES_MAX}"));
        }
    }
    problems
}

/// Name, first line and number of lines of every function with a body. `code` is [`blank`]ed.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        let Some(open) = body(&bytes[at..]).map(|offset| at + offset) else { continue };
        let close = closing(bytes, open);
        let line = |until: usize| bytes[..until].iter().filter(|byte| **byte == b'\n').count() + 1;
        found.push((name, line(at), line(close) - line(at) + 1));
    }
    found
}

/// Where the body's brace is; `None` for a declaration, which ends with a semicolon outside of brackets.
fn body(signature: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    for (offset, byte) in signature.iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(offset),
            _ => {}
        }
    }
    None
}

fn closing(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in bytes[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    bytes.len()
}

/// The source with the insides of comments, strings and characters replaced by spaces; newlines stay.
fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' if !word_before(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => at + 1,
            },
            b'\'' => match character_end(bytes, at) {
                Some(end) => end,
                None => at + 1,
            },
            _ => at + 1,
        };
        if end > at + 1 {
            out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |offset| at + offset)
}

fn comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn word_before(bytes: &[u8], at: usize) -> bool {
    // `br"…"` and `cr"…"` are raw strings, too.
    let before = if at > 0 && matches!(bytes[at - 1], b'b' | b'c') { at - 1 } else { at };
    before > 0 && (bytes[before - 1].is_ascii_alphanumeric() || bytes[before - 1] == b'_')
}

fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    (bytes.get(open) == Some(&b'"')).then_some(())?;
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let offset = bytes[open + 1..].windows(close.len()).position(|window| window == close)?;
    Some(open + 1 + offset + close.len())
}

/// `None` for a lifetime or a label.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let offset = bytes[at + 3..].iter().take(10).position(|byte| *byte == b'\'')?;
        return Some(at + 3 + offset + 1);
    }
    let text = std::str::from_utf8(&bytes[at + 1..bytes.len().min(at + 5)]);
    let valid = text.map_or_else(|error| error.valid_up_to(), str::len);
    let first = std::str::from_utf8(&bytes[at + 1..at + 1 + valid]).ok()?.chars().next()?;
    let close = at + 1 + first.len_utf8();
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked_and_lifetimes_are_not() {
        let source = "let a = \"fn {\"; // fn {\nlet b = '{'; /* { /* } */ */ let c: &'a str = r#\"{\"#; 'x: loop {}";
        let code = blank(source);
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert!(code.contains("&'a str") && code.contains("'x: loop {}"), "{code}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let code = "trait T { fn declared(&self, a: [u8; 2]); }\npub fn one() {}\nasync fn two(\n    a: u8,\n) -> [u8; 2] {\n    { a }\n}\n";
        assert_eq!(functions(code), [("one".to_owned(), 2, 1), ("two".to_owned(), 3, 5)]);
    }

    #[test]
    fn a_long_function_and_a_bare_file_are_reported() {
        let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(70));
        let found = problems("crates/policy/src/x.rs", &long);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn banned_names_and_constructs_are_reported() {
        let found =
            problems("crates/a/src/utils.rs", "//! Things.\nlet (a, b) = mpsc::channel();\n// mpsc::channel()\n");
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
