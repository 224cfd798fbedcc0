//! cgroup v2 directories: their ids, members and ends. Uses no controller.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

/// The id that the kernel's programs see: the directory's inode.
pub fn id(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

/// Processes directly in a cgroup.
pub fn processes(path: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(path.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Whether a process lives in it or below. Errors: it is no cgroup v2 directory, or gone.
pub fn is_populated(path: &Path) -> io::Result<bool> {
    let text = std::fs::read_to_string(path.join("cgroup.events"))?;
    Ok(text.lines().any(|line| line == "populated 1"))
}

/// The directory and all below it, parents first; at most `limit`.
pub fn tree(root: &Path, limit: usize) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while next < found.len() && found.len() < limit {
        if let Ok(entries) = std::fs::read_dir(&found[next]) {
            let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            found.extend(directories.map(|entry| entry.path()));
        }
        next += 1;
    }
    found.truncate(limit);
    found
}

/// A process of the cgroup or of one below it; `None` when there is none.
pub fn any_process(path: &Path) -> Option<i32> {
    tree(path, 64).iter().find_map(|path| processes(path).ok()?.first().copied())
}

/// The v2 path of a process's cgroup, relative to the hierarchy's root, with a leading slash.
pub fn of_process(pid: i32) -> io::Result<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    line.map(PathBuf::from).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not in a cgroup v2"))
}

/// Wakes when `cgroup.events` of some watched cgroup changes: it became populated or empty.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Ok(Self { inotify: inotify::init(flags)? })
    }

    /// Watches a cgroup until it is removed. Watching one twice is watching it once.
    pub fn add(&self, path: &Path) -> io::Result<()> {
        inotify::add_watch(&self.inotify, path.join("cgroup.events"), inotify::WatchFlags::MODIFY)?;
        Ok(())
    }

    /// Waits for a change at most `limit`; whether there was one. Which cgroup it was, the caller looks up itself: that
    /// is one small file for each, and cannot be wrong.
    pub fn wait(&self, limit: std::time::Duration) -> io::Result<bool> {
        let limit = Timespec::try_from(limit).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut polled = [PollFd::new(&self.inotify, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_a_cgroup() {
        let path = of_process(std::process::id() as i32).expect("cgroup v2 is there");
        assert!(path.is_absolute(), "{}", path.display());
    }

    #[test]
    fn a_tree_is_bounded() {
        assert_eq!(tree(Path::new("/proc/self"), 3).len(), 3);
        assert!(is_populated(Path::new("/proc")).is_err(), "no cgroup");
    }
}
