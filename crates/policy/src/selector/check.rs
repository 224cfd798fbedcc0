//! Selectors that can be read and still could never match: found before they are stored.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Parsed, Pattern, Requirement, Selector, Test};
use crate::attribute::{EXTERNAL_KEY, NAMESPACE_KEY};
use crate::code::manifest as code;
use crate::diagnostic::Problem;
use crate::namespace::{ExternalId, NamespacePath, path_contains};

impl Parsed {
    /// Every reason why this selector, in a policy of namespace `own`, can never match anything.
    pub fn problems(&self, own: &NamespacePath) -> Vec<Problem> {
        let mut problems = Vec::new();
        let external: Vec<usize> = self.positions(|r| r.key == EXTERNAL_KEY);
        for &index in &external {
            self.external_problems(own, index, &mut problems);
        }
        if let (Some(&first), true) = (external.first(), self.selector.requirements.len() > 1) {
            let (span, message) = match external.get(1) {
                Some(&second) => (self.span(second), "`@external` stands twice in one selector"),
                None => (self.span(first), "`@external` stands beside other requirements"),
            };
            let help = "give `@external` a selector of its own; for one of several networks write `@external in (a,b)`";
            problems.push(Problem::new(code::SELECTOR_EXTERNAL_MIXED, span, message).help(help));
            return problems;
        }
        let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, requirement) in self.selector.requirements.iter().enumerate() {
            by_key.entry(&requirement.key).or_default().push(index);
        }
        for (key, indexes) in by_key {
            let tests: Vec<&Test> = indexes.iter().map(|&i| &self.selector.requirements[i].test).collect();
            if key != EXTERNAL_KEY && !can_hold(&tests) {
                let last = *indexes.last().expect("BUG: a key without requirements");
                let all: Vec<String> =
                    indexes.iter().map(|&i| format!("`{}`", self.selector.requirements[i])).collect();
                let message = match &all[..] {
                    [one] => format!("{one} excludes every value"),
                    more => format!("no workload can meet {} at once", more.join(" and ")),
                };
                problems.push(Problem::new(code::SELECTOR_CONTRADICTION, self.span(last), message).help(or_help(key)));
            }
        }
        if problems.is_empty() && !self.selector.names_namespaces() && excludes_scope(&self.selector, own) {
            let message = format!("`{}` excludes everything in the policy's namespace {own}", self.selector);
            let help = "to reach other namespaces, name them: `@namespace=/a/b/**`";
            problems.push(Problem::new(code::SELECTOR_CONTRADICTION, self.whole(), message).help(help));
        }
        problems
    }

    fn external_problems(&self, own: &NamespacePath, index: usize, problems: &mut Vec<Problem>) {
        match &self.selector.requirements[index].test {
            Test::Absent | Test::NotIn(_) => {
                let message = "a negation never matches an external end";
                let help = "name the networks: `@external=NAME` or `@external in (a,b)`";
                let problem = Problem::new(code::SELECTOR_EXTERNAL_NEGATED, self.span(index), message);
                problems.push(problem.help(help));
            }
            Test::In(patterns) => {
                for id in patterns.iter().filter_map(qualified).filter(|id| !id.namespace().contains(own)) {
                    let message = format!("`{id}` is neither in {own} nor above it");
                    problems.push(Problem::new(code::SELECTOR_EXTERNAL_SCOPE, self.span(index), message).help(
                        format!(
                            "declare the network in {own} or above it, or move the policy below {}",
                            id.namespace()
                        ),
                    ));
                }
            }
            Test::Exists => {}
        }
    }

    fn positions(&self, is: impl Fn(&Requirement) -> bool) -> Vec<usize> {
        let all = self.selector.requirements.iter().enumerate();
        all.filter(|(_, r)| is(r)).map(|(index, _)| index).collect()
    }

    fn span(&self, index: usize) -> Range<usize> {
        self.spans.get(index).cloned().unwrap_or_default()
    }

    fn whole(&self) -> Range<usize> {
        self.spans.first().map_or(0, |s| s.start)..self.spans.last().map_or(0, |s| s.end)
    }
}

fn or_help(key: &str) -> String {
    match key {
        NAMESPACE_KEY => "a comma means *and*; for *or* write `@namespace in (/a,/b)`".to_owned(),
        _ => format!("a comma means *and*; for *or* write `{key} in (a,b)`"),
    }
}

fn qualified(pattern: &Pattern) -> Option<ExternalId> {
    match pattern {
        Pattern::Exact(text) => text.parse().ok(),
        _ => None,
    }
}

/// `@namespace!=/a/**` in a policy of `/a` or below leaves nobody.
fn excludes_scope(selector: &Selector, own: &NamespacePath) -> bool {
    selector.requirements.iter().filter(|r| r.key == NAMESPACE_KEY).any(|r| match &r.test {
        Test::NotIn(patterns) => patterns.iter().any(|p| matches!(p, Pattern::Subtree(path) if path.contains(own))),
        Test::Absent => true,
        _ => false,
    })
}

/// Whether some value, or absence, passes all tests of one key.
fn can_hold(tests: &[&Test]) -> bool {
    let absent = tests.iter().all(|t| matches!(t, Test::Absent | Test::NotIn(_)));
    if absent {
        return true;
    }
    if tests.iter().any(|t| matches!(t, Test::Absent)) {
        return false;
    }
    let mut left = vec![Pattern::Prefix(String::new())];
    for test in tests {
        if let Test::In(patterns) = test {
            left = left.iter().flat_map(|a| patterns.iter().filter_map(move |b| intersection(a, b))).collect();
        }
    }
    for test in tests {
        if let Test::NotIn(patterns) = test {
            left.retain(|a| !patterns.iter().any(|b| covers(b, a)));
        }
    }
    !left.is_empty()
}

/// What both patterns match. Two of them are nested or disjoint, so it is one of the two, or nothing.
fn intersection(a: &Pattern, b: &Pattern) -> Option<Pattern> {
    if covers(a, b) {
        Some(b.clone())
    } else if covers(b, a) {
        Some(a.clone())
    } else {
        None
    }
}

/// Whether `outer` matches everything that `inner` matches.
fn covers(outer: &Pattern, inner: &Pattern) -> bool {
    match (outer, inner) {
        (outer, Pattern::Exact(value)) => outer.matches(value),
        (Pattern::Prefix(prefix), Pattern::Prefix(inner)) => inner.starts_with(prefix.as_str()),
        (Pattern::Prefix(prefix), Pattern::Subtree(path)) => path.as_str().starts_with(prefix.as_str()),
        (Pattern::Subtree(outer), Pattern::Subtree(inner)) => path_contains(outer.as_str(), inner.as_str()),
        (Pattern::Exact(_), _) | (Pattern::Subtree(_), Pattern::Prefix(_)) => false,
    }
}
