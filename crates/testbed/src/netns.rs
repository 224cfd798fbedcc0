//! Network namespaces that live in the run's directory.
//!
//! A namespace is kept by a bind mount of its nsfs file below the run directory, not in `/run/netns`: unmounting the
//! run directory ends it for sure, and no shared mount is left behind. Entering is always `setns` on the network
//! namespace alone (`ip netns exec` would remount /sys and hide cgroups and bpffs).

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. Cheap to clone; it ends with the run (and the last process inside).
#[derive(Clone, Debug)]
pub struct Netns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    path: PathBuf,
    file: File,
}

/// Set in every new namespace before links are made: no duplicate address detection and no router advertisements, so
/// that IPv6 addresses are usable at once; answers to ping for every group.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

impl Netns {
    /// Makes a namespace, kept by a mount at `dir/name`, with loopback up.
    pub fn create(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let target = path.clone();
        let file = on_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &target)
                .with_context(|| format!("cannot keep the namespace at {}", target.display()))?;
            // Opened here and not at the mount: a descriptor there would keep the mount busy at the run's end.
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        let netns = Self(Arc::new(Inner { name: name.to_owned(), path, file }));
        for (key, value) in SYSCTLS {
            netns.sysctl(key, value)?;
        }
        netns.ip("link set lo up\n")?;
        Ok(netns)
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The nsfs mount, for `nsenter --net=PATH`.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// An open descriptor of the namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let inside = self.clone();
        on_thread(move || {
            inside.enter_this_thread()?;
            work()
        })
    }

    /// Moves the calling thread into the namespace for good. What the thread spawns from then on starts inside.
    pub fn enter_this_thread(&self) -> Result<()> {
        setns(self.fd(), CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter namespace {}", self.name()))
    }

    /// Writes a sysctl below /proc/sys; `key` with slashes.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{key}"), value.to_owned());
        self.enter(move || fs::write(&path, &value).with_context(|| format!("cannot set {path} to {value}")))
    }

    /// Writes a sysctl where the kernel has it; a missing one is no error.
    pub fn sysctl_if_present(&self, key: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{key}"), value.to_owned());
        self.enter(move || match fs::write(&path, &value) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(path),
            _ => Ok(()),
        })
    }

    /// Runs a short program inside and returns its output, failing on a status other than 0.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run(program, args, None)
    }

    /// Feeds lines to `ip -batch -` inside the namespace: one process for a whole set-up.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.run("ip", &["-batch", "-"], Some(batch)).with_context(|| format!("in {}:\n{batch}", self.name())).map(drop)
    }

    /// Loads an nft script inside the namespace, atomically.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.run("nft", &["-f", "-"], Some(script)).with_context(|| format!("in {}:\n{script}", self.name())).map(drop)
    }

    fn run(&self, program: &str, args: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new(program);
        command.args(args).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.map(str::to_owned);
        let shown = format!("{program} {}", args.join(" "));
        let output: Output = self.enter(move || {
            let mut child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
            if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
                stdin.write_all(text.as_bytes())?;
            }
            Ok(child.wait_with_output()?)
        })?;
        if !output.status.success() {
            bail!("{shown} in {}: {}: {}", self.name(), output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Runs `work` on a thread of its own (namespaces belong to threads) and waits for it.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    std::thread::spawn(work).join().map_err(|_| anyhow!("the thread inside the namespace panicked"))?
}
