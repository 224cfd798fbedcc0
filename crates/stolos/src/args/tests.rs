use std::fmt::Write as _;
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_consistent() {
    Args::command().debug_assert();
}

/// The lines that the demo, the units and the documents rely on.
#[test]
fn the_lines_others_rely_on_parse() {
    for line in [
        "stolos server init --data /d --listen 10.9.0.1:7443 --name control --name 10.9.0.1 --trust-domain example.net",
        "stolos server run --data /d --listen [::1]:7443",
        "stolos agent run --join-token-file /t --data /d --cgroup-root /c --bpf-pin /b --socket /s",
        "stolos agent run --state /f --cgroup-root /c --bpf-pin /b --socket /s",
        "stolos agent detach --for 10m",
        "stolos agent attach --socket /s",
        "stolos agent status -o json",
        "stolos apply -f a.yaml -f - --dry-run",
        "stolos get policy web -n /acme -o yaml",
        "stolos delete policy web",
        "stolos delete -f a.yaml",
        "stolos cluster join-token eu-1 --config admin.yaml",
        "stolos explain flow web@eu-1 db@us-1:5432 --protocol tcp",
        "stolos explain code P1002",
        "stolos explain field policy.spec",
        "stolos flows --follow --since 5m --namespace /acme --verdict would-deny -o json",
        "stolos status -o json",
        "stolos doctor --bundle /tmp/b",
        "stolos revoke workload web --reason leaked",
        "stolos label --socket /s web tier=front beta-",
        "stolos run --socket /s --name web --label app=web --label tier=a --namespace shop --wait 3s -- nginx -g x",
        "stolos authority rotate-node-keys",
        "stolos authority rotate-fleet-key -o json",
        "stolos dev --data ./d",
        "stolos version",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for line in [
        "stolos",
        "stolos run",
        "stolos run -- ",
        "stolos run nginx",
        "stolos run --label @cluster=eu -- true",
        "stolos agent run --state /f --join-token-file /t",
        "stolos delete",
        "stolos delete policy",
        "stolos delete policy web -f a.yaml",
        "stolos apply",
        "stolos revoke workload web",
        "stolos revoke planet mars --reason x",
        "stolos label web",
        "stolos explain flow web db",
        "stolos flows --verdict maybe",
        "stolos get policy -n acme",
        "stolos get policy -o xml",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

/// What the units of `deploy/` start is a command line that parses, and the variables they set are ones we read.
#[test]
fn units_start_what_there_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let help = {
        let mut pages = Vec::new();
        let mut command = Args::command();
        command.build();
        help_pages(&mut command, &mut pages);
        pages.into_iter().map(|(_, page)| page).collect::<String>()
    };
    for unit in ["stolos-server.service", "stolos-agent.service"] {
        let text = std::fs::read_to_string(folder.join(unit)).expect("the unit is part of the repository");
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let start = value("ExecStart=").expect("a unit starts something");
        assert!(parse(&start).is_ok(), "{unit}: {start}");
        if let Some(variable) = value("Environment=") {
            let name = variable.split('=').next().unwrap_or_default();
            assert!(help.contains(&format!("[env: {name}]")), "{unit}: nothing reads {name}");
        }
    }
}

#[test]
fn a_program_keeps_its_own_flags() {
    let Ok(Args { verb: Verb::Run(run) }) = parse("stolos run --name a -- curl --name b -o json") else {
        panic!("it parses");
    };
    assert_eq!(run.name.as_deref(), Some("a"));
    assert_eq!(run.command, ["curl", "--name", "b", "-o", "json"]);
}

/// The help of every verb is a golden file: a change of it is seen in review.
/// Accept a change with `STOLOS_GOLDEN=accept cargo test -p stolos`.
#[test]
fn help_is_golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut pages = Vec::new();
    let mut command = Args::command().term_width(100);
    command.build();
    help_pages(&mut command, &mut pages);
    let mut text = String::new();
    for (name, page) in &pages {
        writeln!(text, "==== {name}\n{}\n", page.trim_end()).expect("a string takes every line");
    }
    let file = folder.join("help.txt");
    if std::env::var("STOLOS_GOLDEN").is_ok_and(|value| value == "accept") {
        std::fs::create_dir_all(&folder).expect("the crate's folder is writable");
        std::fs::write(&file, &text).expect("the crate's folder is writable");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    if let Some((row, (old, new))) = golden.lines().zip(text.lines()).enumerate().find(|(_, (old, new))| old != new) {
        panic!("help.txt line {}: was `{old}`, is `{new}`; accept with STOLOS_GOLDEN=accept", row + 1);
    }
    assert_eq!(golden.lines().count(), text.lines().count(), "help.txt: accept with STOLOS_GOLDEN=accept");
}

fn help_pages(command: &mut clap::Command, pages: &mut Vec<(String, String)>) {
    let name = command.get_bin_name().unwrap_or("stolos").to_owned();
    let page = command.render_long_help().to_string();
    for line in page.lines() {
        assert!(line.chars().count() <= 100, "{name}: `{line}` is wider than 100 columns");
    }
    pages.push((name, page));
    for sub in command.get_subcommands_mut() {
        help_pages(sub, pages);
    }
}
