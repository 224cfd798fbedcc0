//! The manual, executed: every `sh` block of every page runs, in order, in one shell on a machine of its own, and what the
//! page shows beneath a block is what comes out.
//!
//! How a block is meant stands behind `sh` in its fence (CONTRIBUTING.md has the list): nothing (it succeeds), `until` (it
//! is repeated until it succeeds and shows what the page shows), `fails` (it must not succeed) or `skip=REASON`. A
//! `text` block right after it is its output; `…` stands for anything, alone on a line for any number of lines.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testbed::machine::Machine;
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

/// How long one block may take.
const BLOCK_LIMIT: Duration = Duration::from_secs(60);
/// Where blocks and their output lie inside of the machine.
const BLOCKS: &str = "/run/docs";

/// One test a page, and the list of them.
macro_rules! pages {
    ($($name:ident = $path:literal;)*) => {
        $(#[test]
        fn $name() -> Result<()> {
            execute($path)
        })*
        const PAGES: &[&str] = &[$($path,)*];
    };
}

pages! {
    bad_input_is_told_as_the_page_says = "docs/book/bad-input.md";
    the_command_line_does_what_the_page_says = "docs/book/cli.md";
    twenty_journeys_end_as_the_page_says = "docs/book/journeys.md";
    one_machine_can_be_followed_to_the_letter = "docs/howto/one-machine.md";
}

#[test]
fn every_page_with_commands_is_executed() -> Result<()> {
    let mut pages = vec![PathBuf::from("README.md")];
    for directory in ["docs/book", "docs/howto"] {
        for entry in fs::read_dir(project().join(directory))? {
            pages.push(Path::new(directory).join(entry?.file_name()));
        }
    }
    for page in pages {
        let page = page.display().to_string();
        let steps = steps(&fs::read_to_string(project().join(&page))?).with_context(|| page.clone())?;
        ensure!(steps.is_empty() || PAGES.contains(&page.as_str()), "{page} has commands, and no test runs them");
    }
    Ok(())
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// How a block is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meant {
    Succeeds,
    Until,
    Fails,
}

/// A block to run.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    meant: Meant,
    script: String,
    shown: Option<String>,
}

/// The blocks of a page that run.
fn steps(page: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut follows = false;
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            follows &= line.trim().is_empty();
            continue;
        };
        let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let body = body.fold(String::new(), |text, line| text + line + "\n");
        let meant = match info {
            "sh" => Meant::Succeeds,
            "sh until" => Meant::Until,
            "sh fails" => Meant::Fails,
            "text" if follows => {
                steps.last_mut().context("BUG: it follows a block")?.shown = Some(body);
                follows = false;
                continue;
            }
            other => {
                let known = !other.starts_with("sh") || other.starts_with("sh skip=");
                ensure!(known, "line {}: `{other}` is no way to mean a block", number + 1);
                follows = false;
                continue;
            }
        };
        steps.push(Step { line: number + 1, meant, script: body, shown: None });
        follows = true;
    }
    Ok(steps)
}

fn execute(page: &str) -> Result<()> {
    let text = fs::read_to_string(project().join(page))?;
    let name = page.rsplit('/').next().unwrap_or(page).trim_end_matches(".md");
    let run = Run::start(&format!("docs-{name}"))?;
    let world = World::one_cluster(&run, 1)?;
    let stolos = Path::new(env!("CARGO_BIN_EXE_testbed-peer")).with_file_name("stolos");
    ensure!(stolos.exists(), "{} is not there; build it: cargo build -p stolos", stolos.display());
    let machine = Machine::of(&world.clusters[0].nodes[0], &stolos)?;
    let mut shell = Shell::start(&machine)?;
    for (number, step) in steps(&text)?.iter().enumerate() {
        shell.perform(&machine, number, step).with_context(|| format!("{page}:{}:\n{}", step.line, step.script))?;
    }
    run.finish()
}

/// The one shell of a page.
struct Shell {
    input: ChildStdin,
    answers: Receiver<String>,
}

/// Read by the shell first. A command that fails is counted, whether its block goes on or not.
const PREPARE: &str = "mkdir -p /run/docs /root/stolos; cd /root/stolos\nset -E; trap 'FAILED=1' ERR\n";

impl Shell {
    fn start(machine: &Machine) -> Result<Self> {
        let (_, mut input, output) = machine.place().start_piped(machine.program("bash"))?;
        input.write_all(PREPARE.as_bytes())?;
        writeln!(input, "ln -sf '{}'/* .; echo ready", project().canonicalize()?.display())?;
        let (sender, answers) = sync_channel(16);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        ensure!(answers.recv_timeout(BLOCK_LIMIT)? == "ready", "the shell of the page does not start");
        Ok(Self { input, answers })
    }

    fn perform(&mut self, machine: &Machine, number: usize, step: &Step) -> Result<()> {
        let file = format!("{BLOCKS}/{number}.sh");
        fs::write(machine.outside(&file), &step.script)?;
        if step.meant != Meant::Until {
            return self.once(machine, number, step);
        }
        wait::until_succeeds("the block to show what the page shows", BLOCK_LIMIT, || self.once(machine, number, step))
    }

    fn once(&mut self, machine: &Machine, number: usize, step: &Step) -> Result<()> {
        let base = format!("{BLOCKS}/{number}");
        writeln!(self.input, "FAILED=0; . {base}.sh >{base}.out 2>&1 </dev/null; echo \"$? $FAILED\"")?;
        let answer = self.answers.recv_timeout(BLOCK_LIMIT).context("the block does not end, or ended the shell")?;
        let output = machine.read(&format!("{base}.out"))?;
        let succeeded = answer == "0 0";
        if succeeded == (step.meant == Meant::Fails) {
            bail!("it {} (status {answer}), and shows:\n{output}", if succeeded { "succeeds" } else { "fails" });
        }
        match &step.shown {
            Some(shown) if !matches(shown, &output) => bail!("the page shows:\n{shown}\nand it is:\n{output}"),
            _ => Ok(()),
        }
    }
}

/// Whether an output is what a page shows.
fn matches(shown: &str, output: &str) -> bool {
    let lines = |text: &str| text.trim().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    lines_match(&lines(shown), &lines(output))
}

fn lines_match(shown: &[String], output: &[String]) -> bool {
    match (shown, output) {
        ([], []) => true,
        ([any, rest @ ..], _) if any.trim() == "…" => {
            (0..=output.len()).any(|skip| lines_match(rest, &output[skip..]))
        }
        ([first, rest @ ..], [line, more @ ..]) => line_matches(first, line) && lines_match(rest, more),
        _ => false,
    }
}

/// `…` stands for anything. Columns are as wide as their widest entry, so any number of spaces is one.
fn line_matches(shown: &str, line: &str) -> bool {
    let narrow = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, line) = (narrow(shown), narrow(line));
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn pages_are_read_as_they_are_written() -> Result<()> {
    let page = "# T\n```sh\na\n```\n\n```text\nout\n```\n```sh skip=build\nb\n```\n```sh until\nc\n```\nWords.\n```text\nno output\n```\n";
    let found = steps(page)?;
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].line, found[0].shown.as_deref()), (2, Some("out\n")));
    assert_eq!((found[1].meant, found[1].shown.as_deref()), (Meant::Until, None));
    assert!(steps("```sh maybe\n```\n").is_err());
    Ok(())
}

#[test]
fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
    assert!(matches("a …\n…\nz", "a b c\nd\ne\nz\n"));
    assert!(matches("NODE  …  live …", "NODE     n1   live      4"));
    assert!(!matches("a", "a\nb"));
    assert!(!matches("allow …", "deny web"));
}
