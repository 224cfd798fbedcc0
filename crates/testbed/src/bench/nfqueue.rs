//! The contender that does the handshake in userspace: NFQUEUE for the first packets of each connection, read by a process
//! that only parses. No key, no MAC, no policy: flattering to it.

use anyhow::{Context as _, Result};
use handshake::option::find;
use handshake::segment::Segment;

use crate::bench::load::pin;
use crate::netns::Netns;

/// Packets of a connection, counted both ways, that go to userspace: SYN, SYN-ACK, ACK.
const PACKETS: &str = "0:3";
/// Queue numbers: what comes in, and what goes out.
pub const QUEUE: u16 = 7;

/// Sends the first packets to `port` and from it through the queue, in and out.
pub fn install(netns: &Netns, ports: [u16; 2]) -> Result<()> {
    change(netns, "-A", ports).context("the NFQUEUE contender needs iptables with connbytes and NFQUEUE")
}

/// Takes the rules away.
pub fn remove(netns: &Netns, ports: [u16; 2]) -> Result<()> {
    change(netns, "-D", ports)
}

fn change(netns: &Netns, verb: &str, ports: [u16; 2]) -> Result<()> {
    let (queue, ports) = (QUEUE.to_string(), format!("{},{}", ports[0], ports[1]));
    for chain in ["INPUT", "OUTPUT"] {
        let head = ["-w", verb, chain, "-p", "tcp", "-m", "multiport", "--ports", &ports];
        let first =
            ["-m", "connbytes", "--connbytes", PACKETS, "--connbytes-dir", "both", "--connbytes-mode", "packets"];
        let target = ["-j", "NFQUEUE", "--queue-num", &queue];
        netns.output("iptables-nft", &[&head[..], &first, &target].concat())?;
    }
    Ok(())
}

/// Reads the queue until killed. Says `ready` on standard output.
pub fn read(core: Option<usize>) -> Result<()> {
    pin(core)?;
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
