//! Mounted file systems, from `/proc/self/mountinfo`.

use std::io;
use std::path::{Path, PathBuf};

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type, `cgroup2` or `bpf` for example.
    pub kind: String,
}

/// Everything mounted in this mount namespace, in order of mounting.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

/// Where a cgroup v2 hierarchy is mounted; the longest-standing one. `None` on machines with v1 only.
pub fn cgroup2() -> io::Result<Option<PathBuf>> {
    Ok(mounts()?.into_iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.point))
}

/// The file system type that holds `path`: its innermost mount. The path need not exist.
pub fn kind_of(path: &Path) -> io::Result<Option<String>> {
    Ok(innermost(mounts()?, path))
}

fn innermost(mounts: Vec<Mount>, path: &Path) -> Option<String> {
    let holding = mounts.into_iter().enumerate().filter(|(_, mount)| path.starts_with(&mount.point));
    // Of mounts at the same point the later one is on top.
    holding.max_by_key(|(at, mount)| (mount.point.as_os_str().len(), *at)).map(|(_, mount)| mount.kind)
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    let one = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let point = unescape(left.split(' ').nth(4)?);
        Some(Mount { point: PathBuf::from(point), kind: right.split(' ').next()?.to_owned() })
    };
    mountinfo.lines().filter_map(one).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let octal = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    octal.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,shared:4 - cgroup2 cgroup2 rw\n\
        50 23 0:40 / /run/a\\040b rw - bpf bpf rw\n\
        51 23 0:41 / /run/a\\040b rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_innermost_mount_holds_a_path() {
        let kind = |path: &str| innermost(parse(HYBRID), Path::new(path));
        assert_eq!(kind("/sys/fs/cgroup/unified/x/y").as_deref(), Some("cgroup2"));
        assert_eq!(kind("/sys/fs/cgroup/cpu").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/run/a b/c").as_deref(), Some("tmpfs"), "the later mount covers the earlier");
        assert_eq!(kind("/home"), None);
    }

    #[test]
    fn this_machine_has_a_proc() {
        assert_eq!(kind_of(Path::new("/proc/self")).expect("readable").as_deref(), Some("proc"));
    }
}
