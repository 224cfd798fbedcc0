//! What the testbed needs of the machine. A lack is an error that says what to do, never a skipped test.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{cgroup, process};

/// Program, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("bpftool", "bpftool"),
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("ncat", "ncat"),
    ("tcpdump", "tcpdump"),
    ("ping", "iputils-ping"),
    ("faketime", "faketime"),
    ("systemd-analyze", "systemd"),
];

/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_BPF.
const CAPABILITIES: &[(u32, &str)] = &[(12, "NET_ADMIN"), (13, "NET_RAW"), (21, "SYS_ADMIN"), (39, "BPF")];

/// Checks root, capabilities, cgroup v2 and the programs; lists everything that is missing at once.
pub fn everything() -> Result<()> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root: run it with sudo, or in a container with --privileged".to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for name in capabilities_missing(&status) {
        missing.push(format!("capability CAP_{name}: give it to the container, or use a virtual machine"));
    }
    if let Err(error) = cgroup::mount_point() {
        missing.push(error.to_string());
    }
    for (program, package) in PROGRAMS {
        if find_program(program).is_none() {
            missing.push(format!("{program}: apt-get install {package} (./x does it)"));
        }
    }
    if !missing.is_empty() {
        bail!("the testbed cannot run here; it needs:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

/// The path of a program in PATH or the system directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    process::system_path().split(':').map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

fn capabilities_missing(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    CAPABILITIES.iter().filter(|(bit, _)| bits & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named() {
        assert_eq!(capabilities_missing("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(capabilities_missing("CapEff:\t00000000a80425fb\n"), vec!["NET_ADMIN", "SYS_ADMIN", "BPF"]);
    }
}
