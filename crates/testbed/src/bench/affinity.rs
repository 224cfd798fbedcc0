//! Which processors a process may run on.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Pins the calling thread, and all it starts from then on, to one processor.
pub fn pin(core: Option<usize>) -> Result<()> {
    match core {
        Some(core) => set(None, Some(core)),
        None => Ok(()),
    }
}

/// Moves every thread of a process to one processor, or lets them run on all. Threads started later go with their parent.
pub fn place(pid: i32, core: Option<usize>) -> Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let thread = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        match set(Some(thread.context("BUG: a thread is a number")?), core) {
            // It ended meanwhile.
            Err(error) if error.downcast_ref() == Some(&rustix::io::Errno::SRCH) => {}
            moved => moved?,
        }
    }
    Ok(())
}

fn set(thread: Option<Pid>, core: Option<usize>) -> Result<()> {
    let mut allowed = CpuSet::new();
    match core {
        Some(core) => allowed.set(core),
        // The kernel leaves out those that are not there.
        None => (0..CpuSet::MAX_CPU).for_each(|core| allowed.set(core)),
    }
    sched_setaffinity(thread, &allowed).with_context(|| format!("cannot run on processor {core:?}"))
}
