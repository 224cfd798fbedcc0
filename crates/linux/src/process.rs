//! What `/proc` says about processes: program, owner, and descriptors that bypass cgroup programs.

use std::io;
use std::path::PathBuf;

/// What a process is, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Short name of its program.
    pub command: String,
    /// Its program file; `None` for kernel threads and where it may not be read.
    pub exe: Option<PathBuf>,
    /// Effective user.
    pub uid: u32,
}

impl Process {
    /// Reads it. Errors: it is gone.
    pub fn read(pid: i32) -> io::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        Ok(Self { pid, command: command(&status), exe, uid: effective_uid(&status) })
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
}

fn command(status: &str) -> String {
    field(status, "Name").unwrap_or_default().to_owned()
}

fn effective_uid(status: &str) -> u32 {
    field(status, "Uid").and_then(|ids| ids.split('\t').nth(1)?.parse().ok()).unwrap_or(u32::MAX)
}

/// The name of a user, from `/etc/passwd`; `None` for users that only a directory service knows.
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// All process ids.
pub fn all() -> io::Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// A descriptor through which packets go that cgroup programs do not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// A packet socket.
    Packet,
    /// A raw IP socket.
    Raw,
    /// A TUN or TAP device.
    Tun,
}

/// Processes that hold such descriptors. `packet` and `raw` are socket inodes, from [`socket_inodes`] of every namespace
/// of interest.
pub fn bypasses(packet: &[u64], raw: &[u64]) -> io::Result<Vec<(i32, Bypass)>> {
    let mut found = Vec::new();
    for pid in all()? {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy();
            let bypass = match target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok()) {
                Some(inode) if packet.contains(&inode) => Bypass::Packet,
                Some(inode) if raw.contains(&inode) => Bypass::Raw,
                None if target == "/dev/net/tun" => Bypass::Tun,
                _ => continue,
            };
            if !found.contains(&(pid, bypass)) {
                found.push((pid, bypass));
            }
        }
    }
    Ok(found)
}

/// Inodes of packet sockets and of raw sockets in the calling thread's network namespace.
pub fn socket_inodes() -> (Vec<u64>, Vec<u64>) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let packet = column(&read("packet"), 8);
    let raw = [column(&read("raw"), 9), column(&read("raw6"), 9)].concat();
    (packet, raw)
}

fn column(table: &str, index: usize) -> Vec<u64> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(index)?.parse().ok()).collect()
}

/// The owner of a listening TCP socket on `port`, looked for among `pids`, in the calling thread's network namespace.
pub fn listener_owner(port: u16, pids: &[i32]) -> Option<i32> {
    let inodes: Vec<u64> = ["tcp", "tcp6"]
        .iter()
        .flat_map(|name| {
            let table = std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
            listening(&table, port)
        })
        .collect();
    pids.iter().copied().find(|pid| holds_one_of(*pid, &inodes))
}

fn holds_one_of(pid: i32, inodes: &[u64]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| inodes.contains(&inode))
    })
}

fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let here = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (*state == LISTEN && here == port).then(|| inode.parse().ok())?
    };
    table.lines().skip(1).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_this_process_is_read() {
        let own = Process::read(std::process::id() as i32).expect("alive");
        assert!(own.exe.is_some() && !own.command.is_empty(), "{own:?}");
        assert_eq!(own.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let own = std::process::id() as i32;
        assert_eq!(listener_owner(port, &[1, own]), Some(own));
        drop(listener);
        assert_eq!(listener_owner(port, &[own]), None);
    }
}
