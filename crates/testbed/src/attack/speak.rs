//! A handshake by hand, with whatever keys a captured node has: what an attacker with raw sockets and real secrets can do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use handshake::mac::{Ends, Isns, pair_input};
use handshake::model::{self, Local, Tables};
use handshake::option::{Fields, Flags, IdentityOption, Message};
use handshake::segment::{Segment, TcpFlags, linux_syn_options};
use handshake::time::T;
use identity::ids::Instance;

use crate::attack::Attacker;
use crate::attack::oracle::option_of;

const WINDOW: u16 = 64_240;
const MSS: u16 = 1460;

/// Keys, and who they are used to speak as. An honest speaker has its own node's tables and one of that node's workloads.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// What the (captured) node knows.
    pub tables: Tables,
    /// Who it says to be.
    pub says: Local,
}

/// A handshake between its SYN and its ACK.
#[derive(Clone, Debug)]
pub struct HalfOpen {
    /// What was sent.
    pub syn: Segment,
    /// What came back.
    pub syn_ack: Segment,
}

impl Speaker {
    /// A SYN to `to`, sealed under the fleet key.
    pub fn syn(&self, from: SocketAddr, to: SocketAddr, isn: u32, now: T) -> Result<Segment> {
        let option = model::call(&self.tables, &self.says, isn, now)?;
        let mut syn = Segment::bare(from, to, isn, 0, TcpFlags::SYN);
        syn.window = WINDOW;
        syn.options = linux_syn_options(MSS, 1);
        syn.options.extend(option.to_bytes());
        Ok(syn)
    }

    /// Sends a SYN and waits for its SYN-ACK. `None`: silence within `limit`.
    pub fn open(&self, via: &Attacker, syn: &Segment, limit: Duration) -> Result<Option<HalfOpen>> {
        via.injector().send(syn)?;
        let answers = |heard: &Segment| {
            heard.flags.contains(TcpFlags::SYN_ACK)
                && (heard.source, heard.destination) == (syn.destination, syn.source)
                && heard.ack == syn.seq.wrapping_add(1)
        };
        let syn_ack = via.tap().wait("a SYN-ACK", limit, answers).ok();
        Ok(syn_ack.map(|syn_ack| HalfOpen { syn: syn.clone(), syn_ack }))
    }

    /// The ACK for a half-open connection, sealed with the pair key that the speaker's node has for the server's node,
    /// whoever it says to be. `server_instance` overrides its table's idea of the server's U.
    pub fn ack(&self, half: &HalfOpen, server_instance: Option<Instance>, now: T) -> Result<Segment> {
        let server = option_of(&half.syn_ack)?.fields;
        let known = self.tables.instances.get(&server.from).copied();
        let to_instance = server_instance.or(known).context("the server's workload is not known here")?;
        let fields = Fields {
            message: Message::Ack,
            own_generation: server.peer_generation,
            peer_generation: server.own_generation,
            echo: server.flags,
            flags: Flags::NONE,
            t8: now.low_bits(),
            from: self.says.at,
        };
        let pair = (server.from.node, fields.own_generation, fields.peer_generation);
        let keys = self.tables.pairs.get(&pair).context("no pair key with the server's node")?;
        let isns = Isns { client: half.syn.seq, server: half.syn_ack.seq };
        let ends = Ends { to: server.from, from_instance: self.says.instance, to_instance };
        let option = fields.sealed(keys.send.tag(&pair_input(&fields, isns, now, &ends)));
        Ok(bare_ack(half, Some(option)))
    }
}

/// The third segment of a half-open connection, with an option or without.
pub fn bare_ack(half: &HalfOpen, option: Option<IdentityOption>) -> Segment {
    let (seq, ack) = (half.syn.seq.wrapping_add(1), half.syn_ack.seq.wrapping_add(1));
    let mut segment = Segment::bare(half.syn.source, half.syn.destination, seq, ack, TcpFlags::ACK);
    segment.window = WINDOW;
    segment.options = timestamps_of(&half.syn_ack.options);
    segment.options.extend(option.iter().flat_map(IdentityOption::to_bytes));
    segment
}

/// Timestamps that answer the peer's, padded to twelve bytes; nothing where it sent none.
fn timestamps_of(options: &[u8]) -> Vec<u8> {
    let mut rest = options;
    while let [kind, after @ ..] = rest {
        let length = if *kind <= 1 { 1 } else { usize::from(after.first().copied().unwrap_or(0)) };
        if *kind == 0 || length == 0 || length > rest.len() {
            break;
        }
        if let [8, 10, a, b, c, d, ..] = rest {
            return vec![1, 1, 8, 10, 0, 0, 0, 2, *a, *b, *c, *d];
        }
        rest = &rest[length..];
    }
    Vec::new()
}
