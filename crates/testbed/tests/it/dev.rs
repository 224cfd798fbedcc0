//! `stolos dev`, from its first line to Ctrl-C: what it tells a newcomer to type is typed, and nothing stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use testbed::cgroup::Cgroup;
use testbed::node::Node;
use testbed::process::{Finished, Process, Program};
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

/// For one command.
const COMMAND: Duration = Duration::from_secs(30);
/// For anything to settle on a loaded machine.
const SETTLE: Duration = Duration::from_secs(30);

/// A running `stolos dev` on a node.
struct Dev {
    node: Node,
    process: Process,
    pin: PathBuf,
}

fn stolos() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_testbed-peer")).with_file_name("stolos")
}

impl Dev {
    fn start(node: &Node, name: &str) -> Result<Self> {
        let pin = node.bpffs()?.join("stolos-dev");
        let program = Program::new(stolos()).named(name).arg("dev").env("TMPDIR", node.dir());
        let program = program.arg("--cgroup-root").arg(node.cgroup().path()).arg("--bpf-pin").arg(&pin);
        let dev = Self { node: node.clone(), process: node.start(program)?, pin };
        dev.process.wait_for_log("stolos status; stolos doctor", SETTLE)?;
        Ok(dev)
    }

    /// The one line of the invitation that contains `words`, without its remark.
    fn invited(&self, words: &str) -> Result<String> {
        let text = self.process.log_text();
        let line = text.lines().find(|line| line.starts_with("  ") && line.contains(words));
        let line = line.with_context(|| format!("no line with `{words}` in:\n{text}"))?;
        Ok(line.split("   #").next().unwrap_or(line).trim().to_owned())
    }

    /// A shell that has what the invitation exports.
    fn shell(&self, name: &str, script: &str) -> Result<Program> {
        let exports = [self.invited("export STOLOS_CONFIG=")?, self.invited("export STOLOS_SOCKET=")?].join("\n");
        let path = format!("{}:{}", stolos().parent().unwrap_or(Path::new("/")).display(), env!("PATH"));
        let system = testbed::process::system_path();
        let script = format!("{exports}\n{script}");
        Ok(Program::new("sh").named(name).args(["-c", &script]).env("PATH", format!("{path}:{system}")))
    }

    fn typed(&self, script: &str) -> Result<Finished> {
        self.node.host().finished(self.shell("typed", script)?, COMMAND)
    }

    fn says(&self, script: &str, words: &str) -> Result<String> {
        let finished = self.typed(script)?;
        let text = finished.stdout + &finished.stderr;
        ensure!(text.contains(words), "`{script}` does not say `{words}`:\n{text}");
        Ok(text)
    }

    /// Nothing is left of it on its node.
    fn assert_gone(&self) -> Result<()> {
        ensure!(!self.pin.exists(), "{} is left", self.pin.display());
        let cgroup = self.node.cgroup().path().join("stolos-dev");
        ensure!(!cgroup.exists(), "{} is left", cgroup.display());
        let attached = Program::new("bpftool").args(["cgroup", "tree"]).arg(self.node.cgroup().path());
        let attached = self.node.host().output(attached, COMMAND)?;
        let is_program = |line: &str| line.trim_start().starts_with(|first: char| first.is_ascii_digit());
        ensure!(!attached.lines().any(is_program), "programs are left:\n{attached}");
        let left: Vec<_> = std::fs::read_dir(self.node.dir())?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| name.starts_with("stolos-dev-"))
            .collect();
        ensure!(left.is_empty(), "{left:?} are left");
        Ok(())
    }
}

#[test]
fn what_a_newcomer_is_told_to_type_works_and_ctrl_c_leaves_nothing() -> Result<()> {
    let run = Run::start("dev")?;
    let world = World::one_cluster(&run, 1)?;
    let dev = Dev::start(&world.clusters[0].nodes[0], "dev")?;
    let db = dev.invited("-- redis-server")?;
    let db = dev.node.start(dev.shell("db", &format!("exec {}", db.trim_end_matches(" &")))?)?;
    let web = dev.invited("--name web")?;
    let web = dev.node.start(dev.shell("web", web.trim_end_matches(" &"))?)?;
    let log = dev.node.dir().join("web.log");
    let pongs = || std::fs::read_to_string(&log).unwrap_or_default().matches("PONG").count();
    wait::until("an answer to web", SETTLE, || (pongs() > 0).then_some(()))?;

    wait::until_succeeds("the flow with both ends", SETTLE, || {
        let text = dev.says("stolos flows --verdict would-deny", "would-deny")?;
        ensure!(text.contains("/dev/web@dev  /dev/db@dev  tcp/6379") && text.lines().count() == 2, "one row:\n{text}");
        Ok(())
    })?;
    dev.says(&dev.invited("explain flow")?, "ALLOW while observed, DENY once enforced")?;
    dev.says(&dev.invited("apply --dry-run")?, "1 flow seen of late would break")?;
    dev.says(&dev.invited("allow.yaml")?, "Policy /dev:web-to-db created")?;

    let cron = dev.invited("--name cron")?;
    wait::until_succeeds("a refusal", SETTLE, || dev.says(&cron, "Connection refused"))?;
    let before = pongs();
    wait::until("an answer to web, whom policy allows", SETTLE, || (pongs() > before + 1).then_some(()))?;
    ensure!(!std::fs::read_to_string(&log)?.contains("refused"), "web was never refused");
    wait::until_succeeds("the refused flow", SETTLE, || dev.says("stolos flows --verdict deny", "/dev/cron@dev"))?;
    wait::until_succeeds("the allowed flow", SETTLE, || dev.says("stolos flows --verdict allow", "/dev:web-to-db"))?;
    dev.says("stolos status", "Rolled out on 1 of 1 nodes")?;
    let doctor = dev.typed("stolos doctor")?;
    ensure!(doctor.status.success(), "{}{}", doctor.stdout, doctor.stderr);

    dev.process.signal(Signal::SIGINT)?;
    let status = dev.process.wait(SETTLE)?;
    ensure!(status.success(), "{status}:\n{}", dev.process.log_text());
    let said = dev.process.log_text();
    ensure!(said.contains(&format!("redis-server (pid {})", db.pid())), "{said}");
    ensure!(db.status().is_none() && web.status().is_none(), "the user's own programs go on");
    dev.assert_gone()?;
    run.finish()
}

#[test]
fn after_a_kill_the_next_dev_takes_over_and_cleans_up() -> Result<()> {
    let run = Run::start("dev-kill")?;
    let world = World::one_cluster(&run, 1)?;
    let node = &world.clusters[0].nodes[0];
    let killed = Dev::start(node, "killed")?;
    killed.process.kill();
    ensure!(killed.pin.exists(), "what is pinned outlives its process");
    let data = Cgroup::create(node.cgroup().path().join("stolos-dev"))?;
    ensure!(data.path().exists());
    for left in std::fs::read_dir(node.dir())?.flatten() {
        if left.file_name().to_string_lossy().starts_with("stolos-dev-") {
            std::fs::remove_dir_all(left.path())?;
        }
    }
    let next = Dev::start(node, "next")?;
    let second = node.host().finished(Program::new(stolos()).arg("dev"), COMMAND)?;
    ensure!(second.stderr.contains("error[C6023]"), "a second one says that the port is taken: {}", second.stderr);
    next.process.signal(Signal::SIGTERM)?;
    ensure!(next.process.wait(SETTLE)?.success(), "{}", next.process.log_text());
    next.assert_gone()?;
    run.finish()
}
