//! What a workload is, looked up in the kernel: program, user, unit, and addresses of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux::netns::Netns;
use linux::process::{Process, user_name};

use super::{Origin, Workload};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// `@linux:exe` and the like.
    pub attributes: BTreeMap<String, String>,
    /// Addresses of its own network namespace; empty = it shares the node's.
    pub addresses: BTreeSet<IpAddr>,
    /// Inode of its network namespace; `None` while it has no process.
    pub netns: Option<u64>,
}

/// Looks at workloads; remembers digests of programs.
#[derive(Debug)]
pub struct Observer {
    own_netns: u64,
    own_exe: Option<(u64, u64)>,
    digests: HashMap<FileId, Option<String>>,
}

/// A file as it was: device, inode, size, change time.
type FileId = (u64, u64, u64, i64);

/// Larger programs get no `@linux:exe-sha256`: hashing them would take too long.
pub const EXE_SIZE_MAX: u64 = 64 << 20;
/// Most cgroups that are looked through at start.
const CGROUPS_MAX: usize = 16_384;
/// Most remembered digests.
const DIGESTS_MAX: usize = 1024;

/// What one look found: for the registry, and the namespaces to hold.
#[derive(Debug, Default)]
pub struct Look {
    /// By uid.
    pub observed: Vec<(String, Observed)>,
    /// Network namespaces of the workloads, by inode.
    pub namespaces: BTreeMap<u64, Arc<Netns>>,
}

impl Observer {
    /// `own_netns`: inode of the namespace whose addresses workloads share.
    pub fn new(own_netns: u64) -> Self {
        let own_exe = std::fs::metadata("/proc/self/exe").ok().map(|exe| (exe.dev(), exe.ino()));
        Self { own_netns, own_exe, digests: HashMap::new() }
    }

    /// Looks at every workload: a few small files each.
    pub fn look(&mut self, workloads: &[Workload]) -> Look {
        let mut look = Look::default();
        for workload in workloads.iter().filter(|workload| workload.origin != Origin::Host) {
            let mut observed = workload.observed.clone();
            if let Some(pid) = linux::cgroup::any_process(&workload.cgroup) {
                observed = self.process(workload, pid, &mut look.namespaces).unwrap_or(observed);
            }
            look.observed.push((workload.uid.clone(), observed));
        }
        look
    }

    /// `None` when the process ended meanwhile, or is still the one that will become the program.
    fn process(&mut self, workload: &Workload, pid: i32, held: &mut BTreeMap<u64, Arc<Netns>>) -> Option<Observed> {
        let process = Process::read(pid).ok()?;
        let netns = Netns::of_process(pid).ok()?;
        let inode = netns.inode().ok()?;
        let mut observed = Observed { netns: Some(inode), ..Observed::default() };
        if inode != self.own_netns {
            observed.addresses = netns.addresses().ok()?;
        }
        held.entry(inode).or_insert_with(|| Arc::new(netns));
        let attributes = &mut observed.attributes;
        attributes.insert("@linux:user".to_owned(), user_name(process.uid).unwrap_or_else(|| process.uid.to_string()));
        if let Some(unit) = unit_of(&workload.cgroup) {
            attributes.insert("@linux:unit".to_owned(), unit.to_owned());
        }
        let through = PathBuf::from(format!("/proc/{pid}/exe"));
        let file = std::fs::metadata(&through).ok()?;
        if Some((file.dev(), file.ino())) == self.own_exe {
            // `stolos run` before its exec.
            return Some(observed);
        }
        if let Some(exe) = process.exe {
            let text = exe.to_string_lossy();
            attributes.insert("@linux:exe".to_owned(), text.strip_suffix(" (deleted)").unwrap_or(&text).to_owned());
        }
        let id = (file.dev(), file.ino(), file.size(), file.ctime());
        if let Some(digest) = self.digest(&through, id) {
            attributes.insert("@linux:exe-sha256".to_owned(), digest);
        }
        attributes.retain(|key, value| policy::attribute::check_attribute(key, value).is_ok());
        Some(observed)
    }

    fn digest(&mut self, path: &Path, id: FileId) -> Option<String> {
        if let Some(known) = self.digests.get(&id) {
            return known.clone();
        }
        let digest = if id.2 <= EXE_SIZE_MAX { sha256(path) } else { None };
        if self.digests.len() >= DIGESTS_MAX {
            self.digests.clear();
        }
        self.digests.insert(id, digest.clone());
        digest
    }
}

/// The network namespaces of all processes below a cgroup, by inode: whatever lives there when the programs come is to be
/// told apart from what comes later.
pub fn namespaces_below(root: &Path) -> BTreeMap<u64, Arc<Netns>> {
    let mut found = BTreeMap::new();
    for cgroup in linux::cgroup::tree(root, CGROUPS_MAX) {
        for pid in linux::cgroup::processes(&cgroup).unwrap_or_default() {
            if let Ok(netns) = Netns::of_process(pid)
                && let Ok(inode) = netns.inode()
            {
                found.entry(inode).or_insert_with(|| Arc::new(netns));
            }
        }
    }
    found
}

fn sha256(path: &Path) -> Option<String> {
    use aws_lc_rs::digest::{Context, SHA256};
    let mut file = File::open(path).ok()?.take(EXE_SIZE_MAX);
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => break,
            length => context.update(&buffer[..length]),
        }
    }
    Some(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The systemd unit that a cgroup path names, nearest first.
fn unit_of(cgroup: &Path) -> Option<&str> {
    let parts = cgroup.components().rev().filter_map(|part| part.as_os_str().to_str());
    let unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
    parts.into_iter().find(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_nearest_one() {
        let unit = |path: &str| unit_of(Path::new(path)).map(str::to_owned);
        assert_eq!(unit("/sys/fs/cgroup/system.slice/db.service").as_deref(), Some("db.service"));
        assert_eq!(unit("/sys/fs/cgroup/a.service/b.scope/inner").as_deref(), Some("b.scope"));
        assert_eq!(unit("/sys/fs/cgroup/web"), None);
    }

    #[test]
    fn a_digest_is_that_of_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("exe");
        std::fs::write(&path, "abc").expect("written");
        assert!(sha256(&path).expect("hashed").starts_with("ba7816bf8f01cfea"));
    }
}
