//! The table of rules and tests in `docs/wire.md` names tests that exist, and leaves no rule out.

use std::collections::BTreeSet;
use std::path::Path;

/// Rules that concern TCP and UDP without proxies.
const RULES: std::ops::RangeInclusive<u32> = 1..=17;

/// Names of all functions marked as tests below a directory.
fn tests_below(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() && entry.file_name().is_some_and(|name| name != "target") {
            tests_below(&entry, names);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&entry).expect("a source");
            let mut marked = false;
            for line in text.lines().map(str::trim_start) {
                let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some(name) = name.filter(|_| marked) {
                    names.insert(name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
                }
                marked = line.starts_with("#[") && (marked || line.contains("test"));
            }
        }
    }
}

#[test]
fn every_test_that_the_page_names_exists_and_every_rule_has_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut known = BTreeSet::new();
    tests_below(&root.join("crates"), &mut known);
    let page = std::fs::read_to_string(root.join("docs/wire.md")).expect("docs/wire.md");
    let table = page.split("## 6. Rules and their tests").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows: Vec<(u32, Vec<&str>)> = table
        .expect("the table")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let rule = cells.next()?.split(' ').next()?.parse().ok()?;
            Some((rule, cells.next()?.split('`').skip(1).step_by(2).collect()))
        })
        .collect();
    let absent: Vec<_> = rows.iter().flat_map(|(_, names)| names).filter(|name| !known.contains(**name)).collect();
    assert!(absent.is_empty(), "docs/wire.md names tests that do not exist: {absent:?}");
    let covered: Vec<u32> = rows.iter().filter(|(_, names)| !names.is_empty()).map(|(rule, _)| *rule).collect();
    assert_eq!(covered, RULES.collect::<Vec<_>>());
}
