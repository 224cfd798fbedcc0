//! Rules for pages: every command that a page shows is executed by a test, or says in its fence why not.

/// How a block of commands may be meant; crates/testbed/tests/it/docs.rs acts on it.
const MEANT: &[&str] = &["sh", "sh until", "sh fails"];
/// Why a block is not executed. The list is closed: a new reason needs a good one.
const SKIPPED: &[&str] = &[
    "ci",         // it is what continuous integration itself runs
    "build",      // builds the project
    "systemd",    // needs systemd as process 1
    "foreground", // runs until Ctrl-C; a test of its own does that
];
/// Other words for a shell that readers' tools know, and this check does not want.
const OTHER_SHELLS: &[&str] = &["bash", "shell", "console", "zsh", "shell-session"];

/// Broken rules of a page.
pub(super) fn problems(path: &str, content: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut inside = false;
    for (index, line) in content.lines().enumerate() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        inside = !inside;
        if !inside {
            continue;
        }
        let place = format!("{path}:{}", index + 1);
        let language = info.split(' ').next().unwrap_or_default();
        if OTHER_SHELLS.contains(&language) {
            problems.push(format!("{place}: write ```sh, so that the block is executed"));
        }
        if language != "sh" {
            continue;
        }
        let skipped = info.strip_prefix("sh skip=").is_some_and(|reason| SKIPPED.contains(&reason));
        if !skipped && !MEANT.contains(&info) {
            let (meant, reasons) = (MEANT.join("`, `"), SKIPPED.join(", "));
            problems.push(format!("{place}: `{info}`: write `{meant}`, or `sh skip=` and one of {reasons}"));
        }
    }
    if inside {
        problems.push(format!("{path}: a block is not closed"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_runs_or_says_why_not() {
        let page = |info: &str| problems("a.md", &format!("```{info}\nls\n```\n"));
        for fine in ["sh", "sh until", "sh fails", "sh skip=systemd", "yaml", ""] {
            assert_eq!(page(fine), Vec::<String>::new(), "{fine}");
        }
        for wrong in ["sh skip", "sh skip=lazy", "sh maybe", "bash", "console"] {
            assert_eq!(page(wrong).len(), 1, "{wrong}");
        }
        assert_eq!(problems("a.md", "```sh\nls\n").len(), 1);
    }
}
