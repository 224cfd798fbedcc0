//! A cluster's NAT gateway: a namespace between the cluster's network and the third one, masquerading what leaves and
//! forwarding declared ports inwards, with a port change, for IPv4 and IPv6.

use anyhow::Result;

use crate::ip::{self, Addresses, Network};
use crate::netns::Netns;

/// Host number of every gateway inside its cluster.
pub const INSIDE_HOST: u8 = 254;

/// A NAT gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    netns: Netns,
    outside: Addresses,
}

impl Gateway {
    /// Builds the gateway in `netns`: `lan0` on the cluster's switch, `wan0` on the one between the clusters.
    pub(crate) fn build(netns: Netns, lan: &Netns, between: &Netns, outside_host: u8, port: &str) -> Result<Self> {
        ip::plug(&netns, "lan0", lan, "br0", "gateway")?;
        ip::plug(&netns, "wan0", between, "br0", port)?;
        let outside = Network::BETWEEN.host(outside_host);
        ip::configure(&netns, "lan0", Network::CLUSTER.host(INSIDE_HOST), None)?;
        ip::configure(&netns, "wan0", outside, None)?;
        netns.sysctl("net/ipv4/ip_forward", "1")?;
        netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        netns.nft(
            "table inet nat {\n\
             chain in { type nat hook prerouting priority dstnat; }\n\
             chain out { type nat hook postrouting priority srcnat; oifname \"wan0\" masquerade; }\n\
             }\n",
        )?;
        Ok(Self { netns, outside })
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its addresses on the third network: what other clusters dial.
    pub fn outside(&self) -> Addresses {
        self.outside
    }

    /// Forwards `protocol` (tcp or udp) port `dialled` of the outside addresses to `port` of `to` inside.
    pub fn forward(&self, protocol: &str, dialled: u16, to: Addresses, port: u16) -> Result<()> {
        self.netns.nft(&format!(
            "add rule inet nat in iifname \"wan0\" meta nfproto ipv4 {protocol} dport {dialled} dnat ip to {}:{port}\n\
             add rule inet nat in iifname \"wan0\" meta nfproto ipv6 {protocol} dport {dialled} dnat ip6 to [{}]:{port}\n",
            to.v4, to.v6
        ))
    }
}
