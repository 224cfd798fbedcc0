//! Network namespaces: identity (inode, cookie), entering one on a thread of its own, and the addresses inside.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// An open network namespace. Holding it keeps the namespace alive.
#[derive(Debug)]
pub struct Netns(File);

/// Why a namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// No thread could be started.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
    /// The kernel refused (CAP_SYS_ADMIN is needed).
    #[error("the network namespace could not be entered")]
    Setns(#[source] io::Error),
}

impl Netns {
    /// The namespace the calling thread is in.
    pub fn own() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// The namespace a process is in. Errors: the process is gone, no right to look.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/ns/net")).map(Self)
    }

    /// Inode of the namespace: the same for every handle of it, reused only after it ended.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.ino())
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }

    /// Runs `work` on a thread of its own inside the namespace (this one kind only: mounts, cgroups and files stay) and
    /// waits for it.
    ///
    /// Panics as `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, EnterError> {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(|errno| EnterError::Setns(errno.into()))?;
            Ok(work())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside);
            match thread.map_err(EnterError::Thread)?.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// The cookie by which the kernel's programs name the namespace.
    pub fn cookie(&self) -> Result<u64, EnterError> {
        self.enter(own_cookie)?.map_err(EnterError::Setns)
    }

    /// Unicast addresses of interfaces inside, loopback and link-local ones left out, in order.
    pub fn addresses(&self) -> Result<BTreeSet<IpAddr>, EnterError> {
        self.enter(own_addresses)?.map_err(EnterError::Setns)
    }
}

/// The calling thread's namespace, by cookie.
fn own_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    socket_cookie_of_netns(&socket)
}

fn socket_cookie_of_netns(socket: &OwnedFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as nix::libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; `cookie` is 8 writable bytes and `length` says so. No
    // crate offers this option.
    let result = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().map_err(io::Error::from)?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => return None,
        };
        is_reachable(ip).then_some(ip)
    };
    Ok(interfaces.filter_map(address).collect())
}

fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_the_own_namespace_are_the_same_one() {
        let own = Netns::own().expect("readable").inode().expect("has an inode");
        let by_pid = Netns::of_process(std::process::id() as i32).expect("readable").inode().expect("has an inode");
        assert_eq!(own, by_pid);
    }

    #[test]
    fn link_local_and_loopback_are_no_addresses_of_a_workload() {
        for text in ["127.0.0.1", "169.254.1.1", "::1", "fe80::1", "0.0.0.0"] {
            assert!(!is_reachable(text.parse().expect("an address")), "{text}");
        }
        assert!(is_reachable("10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn the_cookie_of_a_namespace_does_not_change() {
        let first = own_cookie().expect("Linux 5.14 or later");
        assert_eq!(first, own_cookie().expect("the same"));
        assert_ne!(first, 0);
    }
}
