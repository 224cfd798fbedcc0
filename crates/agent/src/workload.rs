//! What runs on this node: workloads registered over the socket, those of the declared list, and the host itself.
//!
//! The registry owns their uids and labels and keeps them on disk, so that a restart of the agent changes nobody's identity.
//! What a workload *is* beyond that ([`observe`]) is looked up, never taken from anybody's word.

pub mod declared;
pub mod namespaces;
pub mod observe;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::local::{LabelChange, Register};
use policy::attribute::{check_attribute, check_user_key};
use policy::code::{Code, agent as code};
use policy::namespace::NamespacePath;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::declared::Declared;
use self::observe::Observed;
use crate::compile::Local;
use crate::disk::{Disk, DiskError};

/// Most labels of one workload.
pub const LABELS_MAX: usize = 64;
const FILE: &str = "registry.json";
const NAME_LEN_MAX: usize = 63;

/// One workload of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// UUID of the instance.
    pub uid: String,
    /// Name on this node.
    pub name: String,
    /// process, unit, container, pod or host.
    pub kind: String,
    /// Relative to the cluster's namespace.
    pub namespace: String,
    /// User labels.
    pub labels: BTreeMap<String, String>,
    /// Its cgroup directory.
    pub cgroup: PathBuf,
    /// Inode of that directory: another one under the same path is another instance.
    pub cgroup_id: u64,
    /// Who brought it here.
    pub origin: Origin,
    /// A process was seen in it.
    pub lived: bool,
    /// What it is.
    #[serde(skip)]
    pub observed: Observed,
}

/// Who brought a workload here, and so what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The socket: it ends with its last process.
    Registered,
    /// The socket, to be kept while its cgroup exists.
    Kept,
    /// The declared list: it is there while listed and its cgroup exists.
    Declared,
    /// The machine.
    Host,
}

/// Why a workload was not taken or changed. Each has a code of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// Neither a name nor a uid of a workload here.
    #[error("there is no workload `{0}` on this node")]
    Unknown(String),
    /// A field is not acceptable.
    #[error("{field} `{value}` is not acceptable: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// As given.
        value: String,
        /// What it should be.
        why: &'static str,
    },
    /// Name or cgroup belong to another.
    #[error("{what} `{value}` belongs to workload {uid}")]
    Conflict {
        /// `name` or `cgroup`.
        what: &'static str,
        /// As given.
        value: String,
        /// Whose it is.
        uid: String,
    },
    /// A label is not acceptable.
    #[error("label `{key}`: {why}")]
    Label {
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

impl WorkloadError {
    /// Its stable code.
    pub const fn code(&self) -> Code {
        match self {
            WorkloadError::Unknown(_) => code::WORKLOAD_UNKNOWN,
            WorkloadError::Invalid { .. } => code::WORKLOAD_INVALID,
            WorkloadError::Conflict { .. } => code::WORKLOAD_CONFLICT,
            WorkloadError::Label { .. } => code::LABEL_INVALID,
        }
    }
}

/// All workloads of this node.
#[derive(Debug)]
pub struct Registry {
    root: PathBuf,
    entries: BTreeMap<String, Workload>,
    unsaved: bool,
}

impl Registry {
    /// Reads the registry; the host workload is always in it. Entries whose cgroup is gone or another one are left out.
    pub fn open(disk: &Disk, root: &Path) -> Result<Self, DiskError> {
        let saved: Vec<Workload> = disk.read_json(FILE)?.unwrap_or_default();
        let entries = saved.into_iter().map(|workload| (workload.uid.clone(), workload)).collect();
        let mut registry = Self { root: root.to_owned(), entries, unsaved: true };
        registry.entries.retain(|_, workload| workload.origin == Origin::Host || still_there(workload));
        registry.take_host();
        Ok(registry)
    }

    fn take_host(&mut self) {
        let id = linux::cgroup::id(&self.root).unwrap_or_default();
        match self.entries.values_mut().find(|workload| workload.origin == Origin::Host) {
            Some(host) => (host.cgroup, host.cgroup_id) = (self.root.clone(), id),
            None => {
                let host = Workload {
                    uid: Uuid::now_v7().to_string(),
                    name: "host".to_owned(),
                    kind: "host".to_owned(),
                    namespace: String::new(),
                    labels: BTreeMap::new(),
                    cgroup: self.root.clone(),
                    cgroup_id: id,
                    origin: Origin::Host,
                    lived: true,
                    observed: Observed::default(),
                };
                self.entries.insert(host.uid.clone(), host);
            }
        }
    }

    /// Writes the registry, if it changed.
    pub fn save(&mut self, disk: &Disk) -> Result<(), DiskError> {
        if std::mem::take(&mut self.unsaved) {
            let entries: Vec<&Workload> = self.entries.values().collect();
            disk.write_json(FILE, &entries).inspect_err(|_| self.unsaved = true)?;
        }
        Ok(())
    }

    /// All of them, in order of uid.
    pub fn iter(&self) -> impl Iterator<Item = &Workload> {
        self.entries.values()
    }

    /// The one of a uid, or else of a name.
    pub fn find(&self, name_or_uid: &str) -> Result<&Workload, WorkloadError> {
        let by_name = || self.entries.values().find(|workload| workload.name == name_or_uid);
        self.entries.get(name_or_uid).or_else(by_name).ok_or_else(|| WorkloadError::Unknown(name_or_uid.to_owned()))
    }

    /// For the compiler.
    pub fn locals(&self) -> Vec<Local> {
        let one = |workload: &Workload| Local {
            uid: workload.uid.clone(),
            cgroup_ids: vec![workload.cgroup_id],
            host: workload.origin == Origin::Host,
        };
        self.entries.values().map(one).collect()
    }

    /// For the server.
    pub fn report(&self) -> Vec<api::sync::LocalWorkload> {
        self.entries.values().map(Workload::report).collect()
    }

    /// Takes a workload in, or finds that it is here already. Returns its uid.
    pub fn register(&mut self, request: &Register) -> Result<String, WorkloadError> {
        let invalid = |field, value: &str, why| WorkloadError::Invalid { field, value: value.to_owned(), why };
        let uid =
            Uuid::parse_str(&request.uid).map_err(|_| invalid("uid", &request.uid, "it must be a UUID"))?.to_string();
        check_name(&request.name)?;
        check_namespace(&request.namespace)?;
        if !["process", "unit", "container"].contains(&request.kind.as_str()) {
            return Err(invalid("type", &request.kind, "it must be process, unit or container"));
        }
        check_labels(&request.labels)?;
        let cgroup_id = self.check_cgroup(&request.cgroup)?;
        let origin = if request.keep { Origin::Kept } else { Origin::Registered };
        if let Some(known) = self.entries.get(&uid)
            && (known.cgroup_id, &known.name) == (cgroup_id, &request.name)
        {
            return Ok(uid);
        }
        self.check_free(&uid, &request.name, &request.cgroup)?;
        let workload = Workload {
            uid: uid.clone(),
            name: request.name.clone(),
            kind: request.kind.clone(),
            namespace: request.namespace.clone(),
            labels: request.labels.clone(),
            cgroup: request.cgroup.clone(),
            cgroup_id,
            origin,
            // `stolos run` is in it already: a program that ends before the next look has lived all the same.
            lived: linux::cgroup::is_populated(&request.cgroup).unwrap_or(false),
            observed: Observed::default(),
        };
        self.entries.insert(uid.clone(), workload);
        self.unsaved = true;
        Ok(uid)
    }

    fn check_free(&self, uid: &str, name: &str, cgroup: &Path) -> Result<(), WorkloadError> {
        if self.entries.contains_key(uid) {
            let (uid, value) = (uid.to_owned(), uid.to_owned());
            return Err(WorkloadError::Conflict { what: "uid", value, uid });
        }
        let taken =
            |what, value: String, owner: &Workload| WorkloadError::Conflict { what, value, uid: owner.uid.clone() };
        if let Some(owner) = self.entries.values().find(|workload| workload.name == name) {
            return Err(taken("name", name.to_owned(), owner));
        }
        match self.entries.values().find(|workload| workload.cgroup == cgroup) {
            Some(owner) => Err(taken("cgroup", cgroup.display().to_string(), owner)),
            None => Ok(()),
        }
    }

    /// The id of a workload's cgroup: a directory below the root, on the same file system.
    fn check_cgroup(&self, path: &Path) -> Result<u64, WorkloadError> {
        let invalid = |why| WorkloadError::Invalid { field: "cgroup", value: path.display().to_string(), why };
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !plain || path == self.root || !path.starts_with(&self.root) {
            return Err(invalid("it must lie below the agent's cgroup root"));
        }
        if !path.join("cgroup.procs").exists() {
            return Err(invalid("it must be an existing cgroup v2 directory"));
        }
        linux::cgroup::id(path).map_err(|_| invalid("it must be an existing cgroup v2 directory"))
    }

    /// Makes the declared workloads those of the list. `problems` are entries that were left out. Whether anything changed.
    pub fn declare(&mut self, list: &[Declared], problems: &mut Vec<WorkloadError>) -> bool {
        let mut changed = false;
        let mut listed = BTreeSet::new();
        for declared in list {
            match self.declare_one(declared) {
                Ok(Some((uid, new))) => {
                    listed.insert(uid);
                    changed |= new;
                }
                Ok(None) => {}
                Err(error) => problems.push(error),
            }
        }
        let before = self.entries.len();
        self.entries.retain(|uid, workload| workload.origin != Origin::Declared || listed.contains(uid));
        changed |= self.entries.len() != before;
        self.unsaved |= changed;
        changed
    }

    /// `None` while its cgroup does not exist: a unit that is not running.
    fn declare_one(&mut self, declared: &Declared) -> Result<Option<(String, bool)>, WorkloadError> {
        check_name(&declared.name)?;
        check_namespace(&declared.namespace)?;
        check_labels(&declared.labels)?;
        let Some(cgroup) = declared.cgroup(&self.root) else { return Ok(None) };
        let cgroup_id = self.check_cgroup(&cgroup)?;
        let known = self.entries.values_mut().find(|w| w.origin == Origin::Declared && w.cgroup_id == cgroup_id);
        if let Some(known) = known
            && known.name == declared.name
        {
            let same = (&known.labels, &known.namespace) == (&declared.labels, &declared.namespace);
            if !same {
                (known.labels, known.namespace) = (declared.labels.clone(), declared.namespace.clone());
            }
            return Ok(Some((known.uid.clone(), !same)));
        }
        self.entries.retain(|_, w| w.origin != Origin::Declared || w.name != declared.name);
        let uid = Uuid::now_v7().to_string();
        self.check_free(&uid, &declared.name, &cgroup)?;
        let workload = Workload {
            uid: uid.clone(),
            name: declared.name.clone(),
            kind: declared.kind().to_owned(),
            namespace: declared.namespace.clone(),
            labels: declared.labels.clone(),
            cgroup,
            cgroup_id,
            origin: Origin::Declared,
            lived: false,
            observed: Observed::default(),
        };
        self.entries.insert(uid.clone(), workload);
        Ok(Some((uid, true)))
    }

    /// Changes labels. Returns the uid.
    pub fn label(&mut self, name_or_uid: &str, change: &LabelChange) -> Result<String, WorkloadError> {
        let uid = self.find(name_or_uid)?.uid.clone();
        let workload = self.entries.get_mut(&uid).ok_or_else(|| WorkloadError::Unknown(name_or_uid.to_owned()))?;
        let mut labels = workload.labels.clone();
        change.remove.iter().for_each(|key| drop(labels.remove(key)));
        labels.extend(change.set.clone());
        check_labels(&labels)?;
        if labels != workload.labels {
            workload.labels = labels;
            self.unsaved = true;
        }
        Ok(uid)
    }

    /// Takes one out. The host stays.
    pub fn remove(&mut self, uid: &str) -> Result<Workload, WorkloadError> {
        let unknown = || WorkloadError::Unknown(uid.to_owned());
        let workload = self.entries.get(uid).filter(|w| w.origin != Origin::Host).cloned().ok_or_else(unknown)?;
        self.entries.remove(uid);
        self.unsaved = true;
        Ok(workload)
    }

    /// Takes out what has ended: the cgroup is gone or another one, or its last process ended. Empty cgroups of registered
    /// workloads are removed with them.
    pub fn reap(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for workload in self.entries.values_mut().filter(|workload| workload.origin != Origin::Host) {
            let populated = still_there(workload) && linux::cgroup::is_populated(&workload.cgroup).unwrap_or(false);
            if populated && !workload.lived {
                workload.lived = true;
                self.unsaved = true;
            }
            let over = workload.origin == Origin::Registered && workload.lived && !populated;
            if over || !still_there(workload) {
                ended.push(workload.uid.clone());
            }
        }
        for uid in &ended {
            if let Ok(workload) = self.remove(uid)
                && workload.origin == Origin::Registered
            {
                // Leaves first; what is not empty after all stays, and the system says so by refusing.
                for path in linux::cgroup::tree(&workload.cgroup, 64).iter().rev() {
                    let _ = std::fs::remove_dir(path);
                }
            }
        }
        ended
    }

    /// Takes in what was observed; uids of workloads that changed.
    pub fn observed(&mut self, observed: Vec<(String, Observed)>) -> Vec<String> {
        let mut changed = Vec::new();
        for (uid, observed) in observed {
            if let Some(workload) = self.entries.get_mut(&uid)
                && workload.observed != observed
            {
                workload.observed = observed;
                changed.push(uid);
            }
        }
        changed
    }
}

impl Workload {
    /// For the server.
    pub fn report(&self) -> api::sync::LocalWorkload {
        api::sync::LocalWorkload {
            uid: self.uid.clone(),
            name: self.name.clone(),
            r#type: self.kind.clone(),
            relative_namespace: self.namespace.clone(),
            labels: self.labels.clone().into_iter().collect(),
            observed: self.observed.attributes.clone().into_iter().collect(),
            own_addresses: self.observed.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

fn still_there(workload: &Workload) -> bool {
    linux::cgroup::id(&workload.cgroup).is_ok_and(|id| id == workload.cgroup_id)
}

fn check_name(name: &str) -> Result<(), WorkloadError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    if bytes.len() <= NAME_LEN_MAX && bytes.iter().all(|byte| inner(*byte)) && edge(bytes.first()) && edge(bytes.last())
    {
        return Ok(());
    }
    let why = "1 to 63 of a-z, 0-9, `-` and `.`, with a letter or digit at both ends";
    Err(WorkloadError::Invalid { field: "name", value: name.chars().take(80).collect(), why })
}

fn check_namespace(relative: &str) -> Result<(), WorkloadError> {
    if relative.is_empty() || NamespacePath::root().join(relative).is_ok() {
        return Ok(());
    }
    let why = "it must be a path relative to the cluster's namespace, such as shop/prod";
    Err(WorkloadError::Invalid { field: "namespace", value: relative.chars().take(80).collect(), why })
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), WorkloadError> {
    let label = |key: &str, why: String| WorkloadError::Label { key: key.chars().take(80).collect(), why };
    if labels.len() > LABELS_MAX {
        return Err(label("…", format!("a workload has at most {LABELS_MAX} labels")));
    }
    for (key, value) in labels {
        check_user_key(key)
            .and_then(|()| check_attribute(key, value))
            .map_err(|error| label(key, error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
