//! `stolos explain code` and `stolos explain field` by the real binary: a page for every code that any message can show, and
//! for every field of every kind, as deep as kinds go.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn stolos(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stolos"));
    command.args(words).env_clear().output().expect("the binary was built for this test")
}

fn json(words: &[&str]) -> Value {
    let output = stolos(&[words, &["-o", "json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn every_code_has_a_page() {
    let all = json(&["explain", "code", "all"]);
    let all = all.as_array().expect("a list");
    assert_eq!(all.len(), policy::code::all().count());
    for code in all {
        let id = text(code, "code");
        let page = stolos(&["explain", "code", id]);
        let shown = String::from_utf8_lossy(&page.stdout).into_owned();
        assert!(page.status.success(), "{id}");
        assert!(shown.starts_with(&format!("{id}: {}\n\n", text(code, "title"))), "{shown}");
        assert!(shown.contains("\nWhat to do\n  "), "{shown}");
        // Advice that names a verb or a flag of ours must name one that there is.
        for command in text(code, "mend").split('`').skip(1).step_by(2).filter(|word| word.starts_with("stolos ")) {
            let words: Vec<&str> = command.split(' ').skip(1).take_while(|word| is_verb(word)).collect();
            let help = stolos(&[&words[..], &["--help"]].concat());
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            assert!(help.contains("Usage: stolos"), "{id} advises `{command}`, and there is no {words:?}");
            for flag in command.split(' ').filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{id} advises `{command}`, and there is no {flag}");
            }
        }
    }
}

fn is_verb(word: &str) -> bool {
    !word.starts_with('-') && word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-')
}

/// On a terminal of its own, made by `script` (of Debian's essential bsdutils).
fn on_a_terminal(no_color: Option<&str>) -> String {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{} explain code P1002", env!("CARGO_BIN_EXE_stolos")), "/dev/null"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm").stdin(Stdio::null());
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    String::from_utf8_lossy(&command.output().expect("script is there").stdout).into_owned()
}

#[test]
fn colour_is_for_terminals_and_no_color_switches_it_off() {
    assert!(on_a_terminal(None).contains('\u{1b}'));
    assert!(on_a_terminal(Some("")).contains('\u{1b}'), "an empty NO_COLOR says nothing");
    let plain = on_a_terminal(Some("1"));
    assert!(plain.contains("P1002") && !plain.contains('\u{1b}'), "{plain:?}");
    let piped = stolos(&["explain", "code", "P1002"]).stdout;
    assert!(!piped.contains(&0x1b));
}

#[test]
fn every_field_of_every_kind_has_a_page() {
    let kinds = json(&["get"]);
    let mut seen = 0;
    for kind in kinds.as_array().expect("a list") {
        let mut open = vec![text(kind, "kind").to_owned()];
        while let Some(path) = open.pop() {
            let page = json(&["explain", "field", &path]);
            assert_eq!(text(&page, "path"), path);
            assert!(!text(&page, "type").is_empty(), "{path} has no type");
            // Of `status` only the top must explain itself here; its fields are what the system says.
            let own = path.contains(".spec.") || path.contains(".metadata.");
            assert!(!own || !text(&page, "about").is_empty(), "{path} is not explained");
            let fields = page["fields"].as_array().into_iter().flatten();
            open.extend(fields.map(|field| format!("{path}.{}", text(field, "name"))));
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn the_schema_for_editors_is_the_servers() {
    for word in ["policy", "Service", "ns"] {
        let output = stolos(&["explain", "field", word, "--schema"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kind = api::kind::find(word).expect("a kind");
        let schema: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(schema, api::openapi::editor_schema(kind));
    }
    assert!(!stolos(&["explain", "field", "polcy", "--schema"]).status.success());
}
