//! The contender that does the handshake in userspace: NFQUEUE for the first packets of each connection, read by a process
//! that only parses. No key, no MAC, no policy: flattering to it.

use anyhow::{Context as _, Result};
use handshake::option::find;
use handshake::segment::Segment;

use crate::netns::Netns;

/// Packets of a connection, counted both ways, that go to userspace: SYN, SYN-ACK, ACK.
const PACKETS: &str = "0:3";
/// The queue of each network namespace, for what comes in and what goes out.
pub const QUEUE: u16 = 7;

/// Sends the first packets to these ports and from them through the queue, in and out, IPv4 and IPv6.
pub fn install(netns: &Netns, ports: [u16; 2]) -> Result<()> {
    let (queue, ports) = (QUEUE.to_string(), format!("{},{}", ports[0], ports[1]));
    for (program, chain) in ["iptables-nft", "ip6tables-nft"].into_iter().flat_map(|p| [(p, "INPUT"), (p, "OUTPUT")]) {
        let head = ["-w", "-A", chain, "-p", "tcp", "-m", "multiport", "--ports", &ports];
        let first =
            ["-m", "connbytes", "--connbytes", PACKETS, "--connbytes-dir", "both", "--connbytes-mode", "packets"];
        let target = ["-j", "NFQUEUE", "--queue-num", &queue];
        let added = netns.output(program, &[&head[..], &first, &target].concat());
        added.context("the NFQUEUE contender needs iptables with connbytes and NFQUEUE")?;
    }
    Ok(())
}

/// Reads the queue until killed. Says `ready` on standard output.
pub fn read() -> Result<()> {
    let mut queue = nfq::Queue::open().context("no netfilter queue (CAP_NET_ADMIN)")?;
    queue.bind(QUEUE)?;
    println!("ready");
    loop {
        let mut message = queue.recv()?;
        let labelled = Segment::read(message.get_payload()).is_ok_and(|segment| find(&segment.options).is_ok());
        message.set_verdict(if labelled { nfq::Verdict::Accept } else { nfq::Verdict::Drop });
        queue.verdict(message)?;
    }
}
