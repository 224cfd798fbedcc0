//! Manifest files as they lie on disk or come in by standard input, and their problems as people see them.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use api::apply::Source;
use api::problem::{Diagnostic, Severity};

use crate::failure::{C, Failure};
use crate::output::printable;

pub(crate) use check::{check, keys};

mod check;

/// Largest sum of all manifests of one command, in bytes.
const SIZE_MAX: u64 = 16 << 20;

/// Reads every file named; a directory stands for its `*.yaml`, `*.yml` and `*.json` in order of name, `-` for standard
/// input.
///
/// Errors: a file that cannot be read, is no text, or a directory without manifests.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    let mut room = SIZE_MAX;
    for file in files {
        if file.as_os_str() == "-" {
            sources.push(text_of(Path::new("<stdin>"), io::stdin().lock(), &mut room)?);
        } else if file.is_dir() {
            for file in listed(file)? {
                sources.push(open(&file, &mut room)?);
            }
        } else {
            sources.push(open(file, &mut room)?);
        }
    }
    Ok(sources)
}

fn open(file: &Path, room: &mut u64) -> Result<Source, Failure> {
    let opened = fs::File::open(file).map_err(|error| Failure::unreadable(file, &error))?;
    text_of(file, opened, room)
}

fn text_of(file: &Path, reader: impl Read, room: &mut u64) -> Result<Source, Failure> {
    let mut bytes = Vec::new();
    let mut limited = reader.take(*room + 1);
    limited.read_to_end(&mut bytes).map_err(|error| Failure::unreadable(file, &error))?;
    let name = file.display().to_string();
    let unfit = |what: &str, mend: &str| Failure::new(C::FILE_UNREADABLE, format!("cannot read {name}: {what}"), mend);
    *room = room
        .checked_sub(bytes.len() as u64)
        .ok_or_else(|| unfit(&format!("more than {} MiB in all", SIZE_MAX >> 20), "apply it in several steps"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unfit(&format!("it is no UTF-8 text (at byte {at})"), "save it as UTF-8")
    })?;
    Ok(Source { name, text })
}

fn listed(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |error| Failure::unreadable(directory, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let manifest = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Failure::new(
            C::FILE_UNREADABLE,
            format!("{} holds no manifest", directory.display()),
            "manifests end in .yaml, .yml or .json; directories inside are not searched",
        )),
        false => Ok(files),
    }
}

/// Prints every diagnostic on standard error, as a compiler does, and says how many errors there were.
pub(crate) fn report(diagnostics: &[Diagnostic]) -> usize {
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&rendered(diagnostic));
        text.push('\n');
    }
    // Where standard error is gone there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
    diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}

/// One diagnostic: code and sentence, the place, the text of the place, what to do.
fn rendered(diagnostic: &Diagnostic) -> String {
    // Where the server has the text, its excerpt is all of this already.
    if let Some(whole) = diagnostic.excerpt.as_deref().filter(|text| text.contains(&format!("[{}]", diagnostic.code))) {
        return whole.lines().map(|line| format!("{}\n", printable(line))).collect();
    }
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut text = format!("{severity}[{}]: {}\n", diagnostic.code, printable(&diagnostic.message));
    if let Some(source) = &diagnostic.source {
        text.push_str(&format!("  --> {}", printable(source)));
        for number in [diagnostic.line, diagnostic.column].into_iter().flatten() {
            text.push_str(&format!(":{number}"));
        }
        text.push('\n');
    }
    let named: Vec<String> =
        [&diagnostic.object, &diagnostic.field].into_iter().flatten().map(|s| printable(s)).collect();
    if !named.is_empty() {
        text.push_str(&format!("   in {}\n", named.join(", ")));
    }
    for line in diagnostic.excerpt.iter().flat_map(|excerpt| excerpt.lines()) {
        text.push_str(&format!("{}\n", printable(line)));
    }
    for line in diagnostic.help.iter().flat_map(|help| help.lines()) {
        text.push_str(&format!("  help: {}\n", printable(line)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_its_manifests_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "notes.txt", "c.yml"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let sources = read(&[directory.path().to_owned()]).unwrap();
        let texts: Vec<&str> = sources.iter().map(|source| source.text.as_str()).collect();
        assert_eq!(texts, ["a.json", "b.yaml", "c.yml"]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let empty = read(&[directory.path().to_owned()]).unwrap_err().to_string();
        assert!(empty.contains("holds no manifest"), "{empty}");
        let missing = read(&[directory.path().join("x.yaml")]).unwrap_err().to_string();
        assert!(missing.contains("no such file or directory"), "{missing}");
        let binary = directory.path().join("y.yaml");
        fs::write(&binary, b"ok\xff").unwrap();
        let binary = read(&[binary]).unwrap_err().to_string();
        assert!(binary.contains("no UTF-8 text (at byte 2)"), "{binary}");
    }

    #[test]
    fn diagnostics_look_like_a_compilers() {
        let diagnostic = Diagnostic {
            code: "P2002".into(),
            message: "unknown field `form`".into(),
            help: Some("did you mean `from`?".into()),
            object: Some("Policy /acme:x".into()),
            field: Some("spec".into()),
            source: Some("a.yaml".into()),
            line: Some(4),
            column: Some(3),
            excerpt: Some("4 |   form: []\n  |   ^^^^".into()),
            ..Diagnostic::default()
        };
        assert_eq!(
            rendered(&diagnostic),
            "error[P2002]: unknown field `form`\n  --> a.yaml:4:3\n   in Policy /acme:x, spec\n\
             4 |   form: []\n  |   ^^^^\n  help: did you mean `from`?\n"
        );
        let whole = "error[P2002]: unknown field `form`\n --> a.yaml:4:3";
        let whole = Diagnostic { excerpt: Some(whole.into()), ..diagnostic };
        assert_eq!(rendered(&whole), "error[P2002]: unknown field `form`\n --> a.yaml:4:3\n");
    }
}
