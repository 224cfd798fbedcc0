//! The declared list: workloads of this node that are always there, in a YAML file.
//!
//! ```yaml
//! workloads:
//!   - name: db
//!     unit: postgresql.service       # or: cgroup: some/directory below the cgroup root
//!     namespace: shop
//!     labels: {app: db, tier: data}
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Name on this node.
    pub name: String,
    /// A systemd unit whose cgroup it is.
    #[serde(default)]
    pub unit: Option<String>,
    /// A cgroup directory, absolute or below the cgroup root.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Relative to the cluster's namespace.
    #[serde(default)]
    pub namespace: String,
    /// User labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    workloads: Vec<Declared>,
}

/// How deep units are looked for below the root.
const DIRECTORIES_MAX: usize = 4096;

impl Declared {
    /// Its cgroup directory, if that exists.
    pub fn cgroup(&self, root: &Path) -> Option<PathBuf> {
        if let Some(cgroup) = &self.cgroup {
            let path = root.join(cgroup);
            return path.exists().then_some(path);
        }
        let unit = self.unit.as_deref()?;
        let usual = root.join("system.slice").join(unit);
        if usual.exists() {
            return Some(usual);
        }
        linux::cgroup::tree(root, DIRECTORIES_MAX)
            .into_iter()
            .find(|path| path.file_name().is_some_and(|name| name == unit))
    }

    /// Its type.
    pub fn kind(&self) -> &'static str {
        if self.unit.is_some() { "unit" } else { "process" }
    }
}

/// Why the list cannot be used; the workloads known before stay.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It is no such list.
    #[error("{}: {}", .0.display(), .1)]
    Parse(PathBuf, String),
}

/// The list, and when it was read.
#[derive(Debug)]
pub struct List {
    path: PathBuf,
    read: Option<SystemTime>,
    entries: Vec<Declared>,
}

impl List {
    /// A list that was not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: None, entries: Vec::new() }
    }

    /// What it says; the file is read again when it changed.
    pub fn entries(&mut self) -> Result<&[Declared], ListError> {
        let failed = |error| ListError::Read(self.path.clone(), error);
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).map_err(failed)?;
        if self.read != Some(modified) {
            let text = std::fs::read_to_string(&self.path).map_err(failed)?;
            self.entries = parse(&text).map_err(|why| ListError::Parse(self.path.clone(), why))?;
            self.read = Some(modified);
        }
        Ok(&self.entries)
    }
}

fn parse(text: &str) -> Result<Vec<Declared>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    match file.workloads.iter().find(|entry| entry.unit.is_some() == entry.cgroup.is_some()) {
        Some(entry) => Err(format!("workload `{}` needs either unit or cgroup", entry.name)),
        None => Ok(file.workloads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_strict() {
        let entries = parse("workloads:\n  - name: db\n    unit: db.service\n    labels: {app: db}\n").expect("reads");
        assert_eq!(entries[0].labels.get("app").map(String::as_str), Some("db"));
        assert!(parse("workloads:\n  - name: db\n").expect_err("neither").contains("either unit or cgroup"));
        assert!(parse("workloads:\n  - name: db\n    unit: x\n    lables: {}\n").is_err());
    }
}
