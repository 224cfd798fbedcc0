//! The file system in which links and maps stay when the agent is gone.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: u64 = 0xCAFE_4A11;

/// Why there is no BPF file system at a path.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    /// The directory cannot be made or looked at.
    #[error("{path} cannot be used for pinning")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Mounting was refused.
    #[error("no BPF file system at {path}, and mounting one there failed (root with CAP_SYS_ADMIN is needed)")]
    Mount {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes sure that `path` lies on a BPF file system: looks, else makes the directory and mounts one on it.
pub fn ensure(path: &Path) -> Result<(), BpffsError> {
    let directory = |source: io::Error| BpffsError::Directory { path: path.into(), source };
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    if is_bpffs(existing).map_err(directory)? {
        return std::fs::create_dir_all(path).map_err(directory);
    }
    std::fs::create_dir_all(path).map_err(directory)?;
    mount("bpf", path, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, c"mode=0700")
        .map_err(|errno| BpffsError::Mount { path: path.into(), source: errno.into() })
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type as u64 == MAGIC)
}
