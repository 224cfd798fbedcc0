//! Files in the data directory: replaced atomically, flushed, readable by root alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The data directory.
#[derive(Clone, Debug)]
pub struct Disk {
    dir: PathBuf,
}

/// Why a file of the data directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system said no.
    #[error("cannot use {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The content is not what this agent wrote.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf, #[source] serde_json::Error),
}

impl Disk {
    /// Opens or makes the directory (mode 0700).
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| DiskError::File(dir.to_owned(), error))?;
        let probe = dir.join(".probe");
        File::create(&probe)
            .and_then(|_| std::fs::remove_file(&probe))
            .map_err(|error| DiskError::File(dir.to_owned(), error))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file's bytes; `None` when it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        match std::fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::File(self.path(name), error)),
        }
    }

    /// A file's value; `None` when it does not exist.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DiskError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| DiskError::Damaged(self.path(name), error))
    }

    /// Replaces a file: whoever reads it sees the old or the new content, after a crash too.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.replace(name, bytes).map_err(|error| DiskError::File(self.path(name), error))
    }

    /// [`Disk::write`] of a value as JSON.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DiskError> {
        let bytes = serde_json::to_vec(value).map_err(|error| DiskError::Damaged(self.path(name), error))?;
        self.write(name, &bytes)
    }

    /// Removes a file; one that is not there is no error.
    pub fn remove(&self, name: &str) -> Result<(), DiskError> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::File(self.path(name), error)),
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.dir.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.path(name))?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::open(&dir.path().join("data")).expect("made");
        assert_eq!(disk.read("state").expect("absent"), None);
        disk.write("state", b"one").expect("written");
        disk.write("state", b"two").expect("replaced");
        assert_eq!(disk.read("state").expect("read").as_deref(), Some(&b"two"[..]));
        let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(disk.path("state")), mode(dir.path().join("data"))), (0o600, 0o700));
        disk.write("x", b"{").expect("written");
        assert!(matches!(disk.read_json::<u32>("x"), Err(DiskError::Damaged(..))));
    }
}
