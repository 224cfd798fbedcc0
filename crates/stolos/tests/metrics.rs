//! docs/book/metrics.md is what the registries of agent and server hold. `STOLOS_GOLDEN=accept cargo test -p stolos
//! --test metrics` writes its tables anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One metric: the name that is scraped, its type, its labels and what it says.
#[derive(Debug, Default)]
struct Metric {
    name: String,
    kind: String,
    labels: BTreeSet<String>,
    about: String,
}

/// Reads OpenMetrics text.
fn metrics(text: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in text.lines() {
        let words = |text: &str| text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        if let Some((name, about)) = line.strip_prefix("# HELP ").and_then(words) {
            metrics.push(Metric { name, about: about.trim_end_matches('.').to_owned(), ..Metric::default() });
            continue;
        }
        let Some(metric) = metrics.last_mut() else { continue };
        if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(words) {
            metric.name += if kind == "counter" { "_total" } else { "" };
            metric.kind = kind;
        } else if let Some((_, labels)) = line.split_once('{') {
            let keys = labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(key, _)| key.to_owned());
            metric.labels.extend(keys);
        }
    }
    metrics
}

fn table(text: &str) -> String {
    let mut table = "| metric | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for Metric { name, kind, labels, about } in metrics(text) {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{name}` | {kind} | {} | {about} |\n", labels.join(", "));
    }
    table
}

/// The page with what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` replaced.
fn with(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("the page has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("the page has no {end}"));
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/metrics.md");
    let page = fs::read_to_string(&path).expect("the page is part of the repository");
    let right = with(&page, "agent", &table(&agent::metrics::catalogue()));
    let right = with(&right, "server", &table(&server::metrics::Metrics::new().encode()));
    if std::env::var("STOLOS_GOLDEN").is_ok_and(|value| value == "accept") {
        fs::write(&path, right).expect("the page can be written");
        return;
    }
    assert!(
        page == right,
        "docs/book/metrics.md is stale; run: STOLOS_GOLDEN=accept cargo test -p stolos --test metrics"
    );
}

#[test]
fn units_stand_in_names_and_every_metric_says_something() {
    for text in [agent::metrics::catalogue(), server::metrics::Metrics::new().encode()] {
        let metrics = metrics(&text);
        assert!(metrics.len() > 3, "{text}");
        for metric in metrics {
            assert!(!metric.about.is_empty() && !metric.kind.is_empty(), "{metric:?}");
            let bare = ["_ms", "_us", "_secs", "_sec"].iter().any(|unit| metric.name.ends_with(unit));
            assert!(!bare, "{} abbreviates its unit", metric.name);
        }
    }
}
