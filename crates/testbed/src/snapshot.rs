//! What exists on the machine that a run could leave behind, taken before and after and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run::{self, RUN_MARK, STATE_ROOT};
use crate::{cgroup, process, wait};

/// How long objects that the kernel frees in the background (programs, maps, namespaces) may take to go.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// A machine on which nothing came or went for so long is settled.
const SETTLED_FOR: Duration = Duration::from_millis(1500);

/// Listings by name; each line is one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lists: BTreeMap<&'static str, BTreeSet<String>>,
    /// Ids of runs that live meanwhile; what carries them is not ours to judge.
    live_runs: Vec<String>,
}

impl Snapshot {
    /// As [`Snapshot::take`], once the kernel has freed in the background what earlier runs of this process left to it:
    /// what goes away by itself is not there "before".
    pub fn settled() -> Result<Self> {
        let mut seen = (Self::take()?, Instant::now());
        let start = Instant::now();
        while seen.1.elapsed() < SETTLED_FOR {
            let now = Self::take()?;
            if now.lists != seen.0.lists {
                seen = (now, Instant::now());
            }
            if start.elapsed() > SETTLE_LIMIT {
                eprintln!("testbed: things come and go on this machine; they may be taken for a run's");
                break;
            }
        }
        Ok(seen.0)
    }

    /// Takes the listings: bpf programs, maps and links, network namespaces, cgroups, packet filter rules, mounts, links
    /// of the machine's own namespace, and processes that carry a run's mark.
    pub fn take() -> Result<Self> {
        let mut lists = BTreeMap::new();
        for (name, object) in [("bpf programs", "prog"), ("bpf maps", "map"), ("bpf links", "link")] {
            lists.insert(name, bpf(object)?);
        }
        lists.insert("network namespaces", namespaces());
        let cgroups = cgroup::tree(&cgroup::mount_point()?);
        lists.insert("cgroups", cgroups.iter().map(|path| path.display().to_string()).collect());
        lists.insert("nft rules", lines(&output("nft", &["list", "ruleset"])?));
        lists.insert("mounts", mounts()?);
        lists.insert("links", lines(&output("ip", &["-br", "link"])?).iter().map(|l| first_word(l)).collect());
        lists.insert("processes of runs", marked_processes());
        Ok(Self { lists, live_runs: run::live_runs() })
    }

    /// Errors when something is there now that was not there when this snapshot was taken, or is gone.
    ///
    /// Waits a little for what the kernel frees in the background. Where other runs live on the machine, what carries
    /// their id is left out, and so are bpf objects and anonymous namespaces, which cannot be told apart: that is printed.
    pub fn assert_equal_now(&self) -> Result<()> {
        let mut difference = String::new();
        let waited = wait::until_ok("the machine to be as before", SETTLE_LIMIT, || {
            difference = self.difference(&Self::take()?);
            Ok(difference.is_empty().then_some(()))
        });
        match waited {
            Ok(()) => Ok(()),
            Err(_) if !difference.is_empty() => bail!("the machine is not as it was before:\n{difference}"),
            Err(error) => Err(error),
        }
    }

    fn difference(&self, now: &Self) -> String {
        let others: BTreeSet<_> = self.live_runs.iter().chain(&now.live_runs).collect();
        let foreign = |line: &String| others.iter().any(|id| line.contains(id.as_str()));
        let mut text = String::new();
        for (name, before) in &self.lists {
            if !others.is_empty() && (name.starts_with("bpf") || *name == "network namespaces") {
                eprintln!("testbed: {name} not compared, because of other runs: {others:?}");
                continue;
            }
            let after = &now.lists[name];
            let gone = before.difference(after).map(|line| format!("  gone from {name}: {line}\n"));
            let come = after.difference(before).map(|line| format!("  left in {name}: {line}\n"));
            text.extend(gone.chain(come).filter(|line| !foreign(line)));
        }
        text
    }
}

/// Id, type and name of each object; counters and pids that change by themselves are left out.
fn bpf(object: &str) -> Result<BTreeSet<String>> {
    let text = output("bpftool", &["-j", object, "show"])?;
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).with_context(|| format!("bpftool {object} show"))?;
    let field = |value: &serde_json::Value, key| value.get(key).map(|v| v.to_string()).unwrap_or_default();
    let line = |v| format!("{} {} {} {}", field(v, "id"), field(v, "type"), field(v, "name"), field(v, "cgroup_id"));
    Ok(list.iter().map(line).collect())
}

/// Network namespaces that a process lives in, by inode.
fn namespaces() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let links = processes.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}

fn marked_processes() -> BTreeSet<String> {
    let mark = format!("{RUN_MARK}=");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let value = environment.split(|b| *b == 0).find_map(|variable| variable.strip_prefix(mark.as_bytes()));
        if let Some(run) = value {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let id = String::from_utf8_lossy(run).into_owned();
            found.insert(format!("{} {} {id}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    found
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).env("PATH", process::system_path()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.contains(STATE_ROOT)).collect()
}

fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_owned()
}
