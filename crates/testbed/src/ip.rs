//! Addresses and links: veth pairs between namespaces and bridges inside them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::netns::Netns;

/// An IPv4 /24 and an IPv6 /64 that a network uses side by side; hosts are numbered equally in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    v4: [u8; 3],
    v6: [u16; 4],
}

/// One end's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In the /24.
    pub v4: Ipv4Addr,
    /// In the /64.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// IPv4 first, then IPv6.
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

impl Network {
    /// What every cluster uses inside: 10.0.0.0/24 and fd00:a::/64, equal in all of them.
    pub const CLUSTER: Network = Network { v4: [10, 0, 0], v6: [0xfd00, 0xa, 0, 0] };
    /// The third private network, between the clusters' gateways.
    pub const BETWEEN: Network = Network { v4: [192, 168, 77], v6: [0xfd00, 0x77, 0, 0] };

    /// The addresses of host `number`.
    pub const fn host(self, number: u8) -> Addresses {
        let [a, b, c] = self.v4;
        let [h, i, j, k] = self.v6;
        Addresses { v4: Ipv4Addr::new(a, b, c, number), v6: Ipv6Addr::new(h, i, j, k, 0, 0, 0, number as u16) }
    }

    /// Both prefixes in CIDR notation.
    pub fn prefixes(self) -> [String; 2] {
        let base = self.host(0);
        [format!("{}/24", base.v4), format!("{}/64", base.v6)]
    }
}

/// Makes a bridge `name` without forwarding delay or snooping.
pub fn bridge(netns: &Netns, name: &str) -> Result<()> {
    netns.ip(&format!("link add {name} type bridge forward_delay 0 mcast_snooping 0\nlink set {name} up\n"))?;
    // Bridged packets must not meet packet filters, as in a switch. The keys exist where br_netfilter is loaded.
    netns.sysctl_if_present("net/bridge/bridge-nf-call-iptables", "0")?;
    netns.sysctl_if_present("net/bridge/bridge-nf-call-ip6tables", "0")
}

/// Joins `port` in `inside` to bridge `bridge` in `switch` by a veth pair, both ends up. `port_at_switch` names the far end.
pub fn plug(inside: &Netns, port: &str, switch: &Netns, bridge: &str, port_at_switch: &str) -> Result<()> {
    let far = switch.path().display();
    inside.ip(&format!("link add {port} type veth peer name {port_at_switch} netns {far}\nlink set {port} up\n"))?;
    switch.ip(&format!("link set {port_at_switch} master {bridge} up\n"))
}

/// Gives `link` its addresses, with a default route by `gateway` where there is one.
pub fn configure(netns: &Netns, link: &str, own: Addresses, gateway: Option<Addresses>) -> Result<()> {
    let mut batch = format!("addr add {}/24 dev {link}\naddr add {}/64 dev {link} nodad\n", own.v4, own.v6);
    if let Some(gateway) = gateway {
        batch += &format!("route add default via {}\nroute add default via {}\n", gateway.v4, gateway.v6);
    }
    netns.ip(&batch)
}
