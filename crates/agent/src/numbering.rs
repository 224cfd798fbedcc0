//! Numbers that records carry instead of names: deciding policies, and sets of external networks.
//!
//! The kernel and its records know a `u32`; this file says what it means. Append-only and on disk, so that records keep
//! their meaning across restarts and changes of policy. A number is never given to another name.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Names and their numbers.
///
/// Shape:  numbers count from 1, in the order of first use; 0 is "no name". At most [`LIMIT`] names.
#[derive(Debug)]
pub struct Numbering {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    file: Option<File>,
    unsaved: Vec<u8>,
}

/// Most names of one file; beyond, new ones get 0 and records say no name.
pub const LIMIT: usize = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NumberingError {
    /// It cannot be read or written.
    #[error("cannot use {}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

impl Numbering {
    /// Names in memory only: for a state from a file, and tests.
    pub fn in_memory() -> Self {
        Self { names: Vec::new(), numbers: HashMap::new(), file: None, unsaved: Vec::new() }
    }

    /// Reads the file, one name a line, or makes it. A last line without its end was never acknowledged to anybody and
    /// is cut off.
    pub fn open(path: &Path) -> Result<Self, NumberingError> {
        let failed = |error| NumberingError::File(path.to_owned(), error);
        let file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed)?;
        let mut numbering = Self::in_memory();
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(failed)?;
        for name in text[..whole].lines() {
            numbering.insert(name);
        }
        numbering.file = Some(file);
        Ok(numbering)
    }

    /// The number of a name, given now if it has none. Control characters make a name that has no number.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        if self.names.len() >= LIMIT || name.is_empty() || name.chars().any(char::is_control) {
            return 0;
        }
        self.unsaved.extend_from_slice(name.as_bytes());
        self.unsaved.push(b'\n');
        self.insert(name)
    }

    fn insert(&mut self, name: &str) -> u32 {
        self.names.push(name.to_owned());
        let number = self.names.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// What a number means.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.get((number as usize).checked_sub(1)?).map(String::as_str)
    }

    /// Puts new names on disk. Must be done before anything that carries their numbers is handed to the kernel.
    pub fn save(&mut self) -> io::Result<()> {
        if self.unsaved.is_empty() {
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.unsaved)?;
            file.sync_data()?;
        }
        self.unsaved.clear();
        Ok(())
    }
}

/// The name under which a set of external networks is numbered: their qualified names, sorted, with `,` between them.
pub fn name_of_set<T: std::fmt::Display + Ord>(set: &BTreeSet<T>) -> String {
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_meaning_across_restarts() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("names");
        let mut first = Numbering::open(&path).expect("made");
        assert_eq!((first.number("/a:x"), first.number("/a:y"), first.number("/a:x")), (1, 2, 1));
        first.save().expect("written");
        let mut second = Numbering::open(&path).expect("read");
        assert_eq!((second.name(2), second.name(0)), (Some("/a:y"), None));
        assert_eq!(second.number("/b:z"), 3);
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("names");
        std::fs::write(&path, "/a:x\n/a:tor").expect("written");
        let mut numbering = Numbering::open(&path).expect("read");
        assert_eq!(numbering.number("/a:y"), 2);
        numbering.save().expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "/a:x\n/a:y\n");
    }
}
