//! House rules that no compiler knows. Each broken one is a line: place, rule, what to do.

mod layers;
mod page;
mod source;
mod text;

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// All broken rules of the files that git knows (new ones included).
pub(crate) fn problems() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in files()? {
        let Ok(content) = std::fs::read_to_string(&path) else { continue };
        problems.extend(text::problems(&path, &content));
        if path.ends_with(".rs") {
            problems.extend(source::problems(&path, &content));
        }
        if path.ends_with(".md") {
            problems.extend(page::problems(&path, &content));
        }
        if path.ends_with("Cargo.toml") {
            problems.extend(layers::problems(&path, &content));
        }
    }
    Ok(problems)
}

fn files() -> Result<Vec<String>> {
    // Root may check a clone that belongs to somebody else.
    let list = ["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output = Command::new("git").args(list).output().context("cannot start git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}
