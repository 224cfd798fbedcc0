//! Ends sockets by the kernel's socket diagnosis, as `ss --kill` does: for kernels whose walks cannot (before 6.5).
//!
//! It acts on the network namespace of the thread that makes a [`Destroyer`]. Layouts: linux/netlink.h, linux/inet_diag.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

const SOCK_DESTROY: u16 = 21;
/// NLM_F_REQUEST and NLM_F_ACK.
const FLAGS: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// "Whatever has these ends": for sockets of our own.
const NO_COOKIE: u64 = u64::MAX;

/// Which socket is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The protocol's number.
    pub(crate) protocol: u8,
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
    /// The device it is bound to, 0 = none.
    pub(crate) device: u32,
    /// Its cookie: another socket that has these ends by now is left alone.
    pub(crate) cookie: u64,
}

/// A socket to the kernel's diagnosis.
pub(crate) struct Destroyer(OwnedFd);

impl Destroyer {
    /// For the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = SocketType::DGRAM;
        let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        Ok(Self(socket))
    }

    /// Ends a socket; its peer is sent a reset. One that has ended meanwhile is no error.
    pub(crate) fn destroy(&self, target: &Target) -> io::Result<()> {
        match self.ask(target) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            answer => answer,
        }
    }

    fn ask(&self, target: &Target) -> io::Result<()> {
        send(&self.0, &request(target), SendFlags::empty())?;
        let mut reply = [0; 512];
        let (length, _) = recv(&self.0, &mut reply[..], RecvFlags::empty())?;
        let errno = (length >= 20 && reply[4..6] == NLMSG_ERROR.to_ne_bytes())
            .then(|| i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]));
        match errno {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// nlmsghdr, inet_diag_req_v2.
fn request(target: &Target) -> Vec<u8> {
    let ends = [target.local, target.remote];
    // Ends of one IPv4 connection, whichever family its socket has: the kernel finds it by the addresses.
    let is_v4 = ends.iter().all(|(address, _)| address.to_canonical().is_ipv4());
    let family = if is_v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(SOCK_DESTROY.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family.as_raw() as u8, target.protocol, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    for (_, port) in ends {
        bytes.extend(port.to_be_bytes());
    }
    for (address, _) in ends {
        match (is_v4, address.to_canonical()) {
            (true, IpAddr::V4(address)) => bytes.extend([address.octets().as_slice(), &[0; 12]].concat()),
            (_, IpAddr::V4(address)) => bytes.extend(address.to_ipv6_mapped().octets()),
            (_, IpAddr::V6(address)) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(target.device.to_ne_bytes());
    bytes.extend((target.cookie as u32).to_ne_bytes());
    bytes.extend(((target.cookie >> 32) as u32).to_ne_bytes());
    bytes
}

/// Whether this kernel ends sockets so (CONFIG_INET_DIAG_DESTROY): tried on two of our own.
pub(crate) fn can() -> io::Result<()> {
    let any = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let destroyer = Destroyer::open()?;
    let (listener, socket) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
    for (protocol, port) in [(TCP, listener.local_addr()?.port()), (UDP, socket.local_addr()?.port())] {
        destroyer.ask(&Target { protocol, local: (any.0, port), remote: any, device: 0, cookie: NO_COOKIE })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_layout() {
        let local = (IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped()), 0x1234);
        let remote = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 80);
        let bytes = request(&Target { protocol: TCP, local, remote, device: 3, cookie: 0x0102_0304_0506_0708 });
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[16..18], [2, 6], "IPv4, TCP");
        assert_eq!(bytes[24..28], [0x12, 0x34, 0, 80]);
        assert_eq!(bytes[28..32], [10, 0, 0, 1]);
        assert_eq!(bytes[44..48], [10, 0, 0, 2]);
        assert_eq!(bytes[64..], [0x0506_0708_u32.to_ne_bytes(), 0x0102_0304_u32.to_ne_bytes()].concat());
    }
}
