//! How users name a workload: `name`, `name@cluster`, `name@node`, `/namespace/name`, or a uid.

use super::{Fleet, WorkloadEntry};

/// Most candidates that an error names.
const CANDIDATES_MAX: usize = 10;

/// Why a reference names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing fits.
    #[error("no workload is called `{0}`; `stolos get workloads` lists them")]
    Unknown(String),
    /// More than one fits.
    #[error("`{text}` fits more than one workload: {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Some that fit, each written so that it fits alone.
        candidates: Vec<String>,
    },
}

/// Whether a reference means this workload, perhaps among others.
pub fn fits(text: &str, workload: &WorkloadEntry) -> bool {
    if text == workload.uid {
        return true;
    }
    if text.starts_with('/') {
        return text == workload.path();
    }
    match text.split_once('@') {
        Some((name, whereabouts)) => {
            name == workload.name && (whereabouts == workload.cluster() || whereabouts == workload.node())
        }
        None => {
            text == workload.name
                || text.strip_prefix(workload.name.as_str()).is_some_and(|rest| {
                    // The name of the Workload object, `NAME.NODE`.
                    rest.strip_prefix('.') == Some(workload.node())
                })
        }
    }
}

impl Fleet {
    /// The one workload that a reference means.
    pub fn resolve(&self, text: &str) -> Result<&WorkloadEntry, ReferenceError> {
        let mut found: Vec<&WorkloadEntry> = self.workloads().filter(|w| fits(text, w)).collect();
        match found[..] {
            [one] => Ok(one),
            [] => Err(ReferenceError::Unknown(text.chars().take(200).collect())),
            [..] => {
                found.sort_by_key(|w| w.at);
                let candidates = found.iter().take(CANDIDATES_MAX).map(|w| self.unambiguous(w)).collect();
                Err(ReferenceError::Ambiguous { text: text.to_owned(), candidates })
            }
        }
    }

    /// The shortest reference that means this workload alone.
    pub fn unambiguous(&self, workload: &WorkloadEntry) -> String {
        let name = &workload.name;
        let forms = [
            name.clone(),
            format!("{name}@{}", workload.cluster()),
            format!("{name}@{}", workload.node()),
            workload.path(),
        ];
        let alone = |text: &String| self.workloads().filter(|w| fits(text, w)).count() == 1;
        forms.into_iter().find(alone).unwrap_or_else(|| workload.uid.clone())
    }
}
