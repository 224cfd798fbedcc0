//! cgroup v2 directories: found, made, emptied and removed.
//!
//! Works on pure v2 machines and on hybrid ones, where v2 is mounted beside the v1 controllers. No controller is used,
//! only membership: the directory's inode is the id that the kernel's programs see.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::wait;

/// Where cgroup v2 is mounted, from /proc/self/mountinfo.
///
/// Errors: no cgroup v2 is mounted; the text says how to mount it.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    match find_cgroup2(&mounts) {
        Some(path) => Ok(path),
        None => bail!(
            "no cgroup v2 is mounted; mount it: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
        ),
    }
}

fn find_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "cgroup2").then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or_default()))
    })
}

/// A cgroup v2 directory of a run. It is removed with its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The directory at `path`, made where it does not exist.
    pub fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot make cgroup {}", path.display()))?;
        Ok(Self(path))
    }

    /// A directory below this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::create(self.0.join(name))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The id the kernel's programs see: the directory's inode.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.0).with_context(|| format!("cannot read cgroup {}", self.0.display()))?.ino())
    }

    /// Processes directly in it.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let text = fs::read_to_string(self.0.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Kills every process in it and below, and removes the directories.
    pub fn destroy(&self) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        fs::write(self.0.join("cgroup.kill"), "1")
            .with_context(|| format!("cannot kill cgroup {}", self.0.display()))?;
        wait::until(&format!("the end of all processes in {}", self.0.display()), Duration::from_secs(10), || {
            let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
            (!events.contains("populated 1")).then_some(())
        })?;
        remove_tree(&self.0)
    }
}

/// Directories of the tree below `root`, `root` included, parents first.
pub fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while next < found.len() {
        if let Ok(entries) = fs::read_dir(&found[next]) {
            let directories = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
            found.extend(directories);
        }
        next += 1;
    }
    found
}

fn remove_tree(root: &Path) -> Result<()> {
    for path in tree(root).iter().rev() {
        // A directory whose last process was reaped a moment ago can still answer EBUSY.
        wait::until(&format!("the removal of cgroup {}", path.display()), Duration::from_secs(5), || {
            match fs::remove_dir(path) {
                Ok(()) => Some(()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(()),
                Err(_) => None,
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_on_hybrid_and_pure_machines() {
        let hybrid = "37 31 0:35 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find_cgroup2(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let pure = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(find_cgroup2(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(find_cgroup2("22 1 0:2 / /proc rw - proc proc rw\n"), None);
    }
}
