//! What does not pass through the programs: said, never silently trusted (PROTOCOL rule 15).

use std::path::{Path, PathBuf};

use api::local::NotCaptured;
use linux::process::{Bypass, Process};
use policy::code::agent as code;

use crate::enforce::Listener;
use crate::workload::namespaces::Namespace;

/// Most findings of one look.
const FOUND_MAX: usize = 256;

/// Looks at every process of the node's namespaces. `workloads`: names and cgroups.
pub(crate) fn look(
    workloads: &[(String, PathBuf)],
    namespaces: &[Namespace],
    listeners: &[Listener],
) -> Vec<NotCaptured> {
    let (mut packet, mut raw) = (Vec::new(), Vec::new());
    for namespace in namespaces {
        if let Ok((more_packet, more_raw)) = namespace.netns.enter(linux::process::socket_inodes) {
            packet.extend(more_packet);
            raw.extend(more_raw);
        }
    }
    let mut found: Vec<NotCaptured> = older(workloads, namespaces, listeners);
    let own = std::process::id() as i32;
    let bypasses = linux::process::bypasses(&packet, &raw).unwrap_or_default();
    for (pid, bypass) in bypasses.into_iter().filter(|(pid, _)| *pid != own) {
        let kind = match bypass {
            Bypass::Packet => "packet-socket",
            Bypass::Raw => "raw-socket",
            Bypass::Tun => "tun",
        };
        found.push(finding(kind, pid, None, workloads, code::NOT_CAPTURED.mend));
    }
    found.sort();
    found.dedup();
    found.truncate(FOUND_MAX);
    found
}

/// Listeners that are still there and still older than the programs.
fn older(workloads: &[(String, PathBuf)], namespaces: &[Namespace], listeners: &[Listener]) -> Vec<NotCaptured> {
    let pids = linux::process::all().unwrap_or_default();
    let one = |listener: &Listener| {
        let namespace = namespaces.iter().find(|namespace| namespace.cookie == listener.cookie)?;
        let owner = namespace.netns.enter(|| linux::process::listener_owner(listener.port, &pids)).ok()??;
        Some(finding("listener", owner, Some(listener.port), workloads, code::LISTENER_OLDER.mend))
    };
    listeners.iter().filter_map(one).collect()
}

fn finding(kind: &str, pid: i32, port: Option<u16>, workloads: &[(String, PathBuf)], mend: &str) -> NotCaptured {
    let command = Process::read(pid).map(|process| process.command).unwrap_or_default();
    let workload = workload_of(pid, workloads);
    NotCaptured { kind: kind.to_owned(), pid, command, port, workload, mend: mend.to_owned() }
}

/// The workload whose cgroup holds a process; the innermost one.
fn workload_of(pid: i32, workloads: &[(String, PathBuf)]) -> Option<String> {
    let relative = linux::cgroup::of_process(pid).ok()?;
    let path = linux::mount::cgroup2().ok()??.join(relative.strip_prefix("/").unwrap_or(&relative));
    innermost(&path, workloads)
}

fn innermost(path: &Path, workloads: &[(String, PathBuf)]) -> Option<String> {
    let holding = workloads.iter().filter(|(_, cgroup)| path.starts_with(cgroup));
    holding.max_by_key(|(_, cgroup)| cgroup.as_os_str().len()).map(|(name, _)| name.clone())
}

/// What a finding is about, and in words.
pub(crate) fn describe(found: &NotCaptured) -> (String, String) {
    let workload = found.workload.as_deref().unwrap_or("no workload");
    let process = format!("{} (pid {}, {workload})", found.command, found.pid);
    match found.port {
        Some(port) => (format!("port {port}"), format!("{process} listens on port {port} since before the programs")),
        None => (format!("pid {}", found.pid), format!("{process} holds a {}", found.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_to_the_innermost_workload() {
        let workloads = [("host".to_owned(), "/c".into()), ("web".to_owned(), "/c/web".into())];
        assert_eq!(innermost(Path::new("/c/web/worker"), &workloads).as_deref(), Some("web"));
        assert_eq!(innermost(Path::new("/c/webber"), &workloads).as_deref(), Some("host"));
        assert_eq!(innermost(Path::new("/d"), &workloads), None);
    }

    #[test]
    fn an_older_listener_is_named_with_process_and_port() {
        let found = finding("listener", std::process::id() as i32, Some(80), &[], "restart it");
        let (object, message) = describe(&found);
        assert_eq!(object, "port 80");
        assert!(message.contains("no workload") && message.contains("port 80"), "{message}");
    }
}
