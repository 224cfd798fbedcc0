//! The configuration map as shared memory: the one place where user space and the programs meet without a system call.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::abi;

const LENGTH: usize = 4096;

/// The mapped `config`. Only the owner writes; the programs read.
pub(crate) struct Page(NonNull<abi::Config>);

// SAFETY: the mapping belongs to the process, not to a thread, and `Page` hands out no references into it.
unsafe impl Send for Page {}
// SAFETY: shared access only reads by volatile copies.
unsafe impl Sync for Page {}

impl Page {
    /// Maps the configuration map. Errors: the kernel's.
    pub(crate) fn map(config: impl AsFd) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing; the map has one page.
        let memory = unsafe {
            mmap(std::ptr::null_mut(), LENGTH, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, config, 0)
        }?;
        NonNull::new(memory.cast()).map(Self).ok_or_else(|| io::Error::other("mapped at zero"))
    }

    /// What the programs see now.
    pub(crate) fn read(&self) -> abi::Config {
        // SAFETY: the mapping is page-aligned, larger than `Config`, lives as long as `self`, and any bytes are valid.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Replaces everything but `live`, which keeps its value.
    pub(crate) fn write(&mut self, config: &abi::Config) {
        let config = abi::Config { live: self.live().load(Ordering::Acquire), ..*config };
        // SAFETY: as in `read`; `&mut self` makes this the only writer.
        unsafe { self.0.as_ptr().write_volatile(config) }
    }

    /// Makes a bank and an epoch live, after everything written before.
    pub(crate) fn set_live(&mut self, live: u64) {
        self.live().store(live, Ordering::Release);
    }

    fn live(&self) -> &AtomicU64 {
        // SAFETY: `live` is the first field, eight bytes, aligned; the programs only read it whole.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr().cast()) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length and nobody else knows it.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), LENGTH) };
    }
}
