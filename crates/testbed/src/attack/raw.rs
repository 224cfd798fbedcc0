//! Sending IP packets as they are, with any source address.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use handshake::segment::Segment;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};

use crate::netns::Netns;

/// Raw sockets of one namespace.
#[derive(Debug)]
pub struct Injector {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Injector {
    /// Opens the sockets; they stay in `netns` whichever thread sends.
    pub fn open(netns: &Netns) -> Result<Self> {
        netns.enter(|| {
            let open =
                |family| rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW));
            let v4 = open(AddressFamily::INET).context("no raw IPv4 socket (CAP_NET_RAW)")?;
            let v6 = open(AddressFamily::INET6).context("no raw IPv6 socket (CAP_NET_RAW)")?;
            Ok(Self { v4, v6 })
        })
    }

    /// Sends one segment where its destination says. It has left when this returns.
    pub fn send(&self, segment: &Segment) -> Result<()> {
        let packet = segment.to_packet().context("the segment makes no packet")?;
        self.send_packet(&packet, segment.destination.ip())
    }

    /// Sends a whole IP packet.
    pub fn send_packet(&self, packet: &[u8], to: IpAddr) -> Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let to = SocketAddr::new(to, 0);
        loop {
            match rustix::net::sendto(socket.as_fd(), packet, SendFlags::empty(), &to) {
                Ok(_) => return Ok(()),
                // The queue of a device was full for a moment: the packet did not leave and is sent again.
                Err(Errno::NOBUFS | Errno::INTR) => std::thread::yield_now(),
                Err(error) => return Err(error).with_context(|| format!("cannot send to {to}")),
            }
        }
    }
}
