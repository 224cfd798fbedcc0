//! docs/book/codes.md is the table of codes. `STOLOS_GOLDEN=accept cargo test -p api --test codes` writes it anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use api::problem;
use policy::code;

/// The layers, by the letter and first digit of their codes.
const LAYERS: &[(&str, &str)] = &[
    ("P1", "Verdicts: why a connection is refused"),
    ("P2", "Manifests and policies"),
    ("A3", "The API"),
    ("E4", "Enrolment, and what agents report"),
    ("K5", "Agents, kernels, `stolos doctor`"),
    ("C6", "The command line"),
];

fn page() -> String {
    let mut page = String::from(
        "# Codes\n\nEvery message of Stolos has a code that never changes its meaning. `stolos explain code CODE` prints what stands \
         here.\nThe page is made from the tables in `crates/policy/src/code`; a test compares them.\n",
    );
    for (layer, title) in LAYERS {
        let _ = write!(page, "\n## {layer}xxx: {title}\n");
        for code in code::all().filter(|code| code.id.starts_with(layer)) {
            let status = problem::find(code.id).map(|kind| {
                let again = if kind.retryable { ", the same request may succeed later" } else { "" };
                format!(" (HTTP {}{again})", kind.status)
            });
            let status = status.unwrap_or_default();
            let _ = write!(
                page,
                "\n### {}: {}{status}\n{}\n\n*What to do:* {}\n",
                code.id, code.title, code.meaning, code.mend
            );
        }
    }
    page
}

#[test]
fn the_page_has_every_code_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/codes.md");
    if std::env::var("STOLOS_GOLDEN").is_ok_and(|value| value == "accept") {
        fs::write(&path, page()).expect("the page can be written");
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page(),
        "docs/book/codes.md is stale; run: STOLOS_GOLDEN=accept cargo test -p api --test codes"
    );
}

#[test]
fn every_code_belongs_to_a_layer() {
    for code in code::all() {
        assert!(LAYERS.iter().any(|(layer, _)| code.id.starts_with(layer)), "{}", code.id);
    }
}
