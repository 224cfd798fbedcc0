//! Every row of `docs/book/bad-input.md` that is a command line: the code and the words that the page promises, an exit
//! status that is not 0, no panic. Nothing here needs root, a server or an agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// One row: the command line, the code, the words.
struct Row {
    line: String,
    code: String,
    words: String,
}

fn rows() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/bad-input.md");
    let page = fs::read_to_string(page).expect("the page is part of the repository");
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Row> = page
        .lines()
        .filter(|line| line.starts_with("| `stolos "))
        .map(|line| match cells(line).as_slice() {
            [line, code, words] => {
                Row { line: line.trim_matches('`').to_owned(), code: code.clone(), words: words.clone() }
            }
            other => panic!("a row has three cells: {other:?}"),
        })
        .collect();
    assert!(rows.len() > 20, "the page has its rows");
    rows
}

/// A directory with the files that the rows name.
fn fixtures() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &[u8], mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("the directory is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
    };
    file("empty.yaml", b"", 0o600);
    file("open.yaml", b"", 0o644);
    file("binary.yaml", b"kind: \xff", 0o600);
    fs::create_dir(directory.path().join("no-manifests")).expect("the directory is ours");
    // Port 1 is nobody's: a server that is known and does not answer.
    let init = ["server", "init", "--data", "made", "--listen", "127.0.0.1:1"];
    assert_eq!(stolos(directory.path(), &init), (Some(0), String::new()));
    let init = ["server", "init", "--data", "keyless", "--listen", "127.0.0.1:1"];
    assert_eq!(stolos(directory.path(), &init), (Some(0), String::new()));
    fs::remove_file(directory.path().join("keyless/seal.key")).expect("made by init");
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-input");
    for entry in fs::read_dir(manifests).expect("the fixtures are part of the repository") {
        let path = entry.expect("it can be listed").path();
        fs::copy(&path, directory.path().join(path.file_name().expect("a file"))).expect("the directory is ours");
    }
    directory
}

fn stolos(directory: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stolos"))
        .args(words)
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built for this test");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_row_of_the_page_holds() {
    let directory = fixtures();
    let mut wrong = Vec::new();
    for Row { line, code, words } in rows() {
        let typed: Vec<&str> = line.split_whitespace().skip(1).collect();
        let (status, error) = stolos(directory.path(), &typed);
        let promised = error.contains(&format!("[{code}]")) && error.contains(&words);
        if !promised || !matches!(status, Some(1 | 2)) || error.contains("panicked") {
            wrong.push(format!("`{line}` promises {code} `{words}`, gave status {status:?} and:\n{error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_closed_pipe_is_no_accident() {
    let directory = fixtures();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_stolos"))
        .args(["explain", "code", "all"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("the binary was built for this test");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(141), ""));
}
