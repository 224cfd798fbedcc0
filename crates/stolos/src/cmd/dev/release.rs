//! The end of dev's cgroups: what still runs in them goes back to where dev itself runs, and they are removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::reason;
use crate::launch;

/// How long a directory whose last process has gone may answer that it is busy.
const BUSY: Duration = Duration::from_secs(2);

/// What is left of a cgroup tree after [`release`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Released {
    /// Programs that go on running, outside of it now.
    pub(super) moved: Vec<String>,
    /// Why the tree could not be removed.
    pub(super) stays: Option<String>,
}

/// Empties the cgroup `top` and everything below, and removes it.
pub(super) fn release(top: &Path) -> Released {
    let home = launch::home(top).filter(|home| !home.starts_with(top));
    let Some(home) = home.or_else(|| top.parent().map(Path::to_owned)) else { return Released::default() };
    let mut released = Released::default();
    let start = Instant::now();
    for directory in tree(top).iter().rev() {
        loop {
            for pid in processes(directory) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if fs::write(home.join("cgroup.procs"), &pid).is_ok() {
                    released.moved.push(format!("{} (pid {pid})", name.trim()));
                }
            }
            match fs::remove_dir(directory) {
                Err(error) if directory.exists() => {
                    if start.elapsed() > BUSY {
                        released.stays = Some(format!("{} stays: {}", directory.display(), reason(&error)));
                        return released;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => break,
            }
        }
    }
    released
}

/// The directory and all below it, parents first.
fn tree(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let directories: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
        found.extend(directories);
        next += 1;
    }
    found
}

fn processes(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_directories_are_removed_deepest_first() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        assert_eq!(release(&top), Released::default());
        assert!(!top.exists());
    }
}
