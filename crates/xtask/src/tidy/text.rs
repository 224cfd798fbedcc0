//! Rules for every text file: no machine of ours in it, no loose ends.

/// Paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &["/work/", "/tmp/t/", "/Users/"];

/// Notes to oneself; an issue is the place. Split so that this file does not report itself.
const LOOSE_ENDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Broken rules of a file.
pub(super) fn problems(path: &str, content: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lock = path.ends_with("Cargo.lock");
    for (index, line) in content.lines().enumerate() {
        let place = format!("{path}:{}", index + 1);
        if lock {
            let source = line.strip_prefix("source = \"").map(|rest| rest.trim_end_matches('"'));
            if source.is_some_and(|source| source != REGISTRY) {
                problems.push(format!("{place}: a source other than crates.io: {line}"));
            }
            continue;
        }
        if path.ends_with("tidy/text.rs") {
            continue;
        }
        for end in LOOSE_ENDS {
            if contains_word(line, end) {
                problems.push(format!("{place}: {end}: finish it, or open an issue"));
            }
        }
        for machine in MACHINE_PATHS {
            if contains_path(line, machine) {
                problems.push(format!("{place}: {machine}… exists on one machine only"));
            }
        }
    }
    problems
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// `/work/` at the beginning of a path, not inside one (`docs/work/…`).
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-*}".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_ends_and_machine_paths_are_found_with_their_line() {
        let text = format!("fine\n// {}: later\nlet p = \"/Users/me/x\";\nsrc/Users/page\n", LOOSE_ENDS[0]);
        let found = problems("a.rs", &text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a.rs:2:") && found[1].starts_with("a.rs:3:"), "{found:?}");
    }

    #[test]
    fn only_crates_io_is_a_source() {
        assert_eq!(problems("Cargo.lock", &format!("source = \"{REGISTRY}\"\n")), Vec::<String>::new());
        assert_eq!(problems("Cargo.lock", "source = \"sparse+http://mirror.local/\"\n").len(), 1);
    }
}
