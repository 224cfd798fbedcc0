//! Replays and forgeries in number: SYNs and ACKs at a listening victim, SYN-ACKs and SYNs at a calling one.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use handshake::option::Message;
use handshake::segment::{Segment, TcpFlags};
use policy::reason::Reason;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::attack::forge::{Forgery, elsewhere};
use crate::attack::oracle::Oracle;
use crate::attack::raw::Injector;
use crate::attack::{Fate, Tally};

/// Ports that forged SYNs claim to come from; apart from those of ACKs, so that no forged ACK meets a half-open
/// connection of a forged SYN.
const SYN_PORTS: std::ops::Range<u16> = 10_000..30_000;
const ACK_PORTS: std::ops::Range<u16> = 30_000..60_000;

/// How many, from where, and from which seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The same seed sends the same packets.
    pub seed: u64,
    /// Packets.
    pub count: usize,
    /// Source addresses to claim, all of the victim's family; none of them a place of one workload.
    pub sources: Vec<IpAddr>,
}

/// Sends forged SYNs to the listener that `captured` went to.
///
/// `captured`: SYNs with the option, in any number; each packet is one of them, changed in one way, from elsewhere.
pub fn syns(injector: &Injector, victim: &Oracle, captured: &[Segment], plan: &Plan) -> Result<Tally> {
    let mut tally = Tally::default();
    let labelled = |syn: &Segment| victim.fate_of_syn(syn).context("BUG: forgeries stay labelled");
    send_all(injector, captured, plan, Message::Syn, SYN_PORTS, |syn| {
        tally.add(labelled(syn)?);
        Ok(())
    })?;
    Ok(tally)
}

/// Sends forged ACKs to the listener that `captured` went to.
///
/// `captured`: ACKs with the option. Those of established connections must be known to the oracle as burnt.
pub fn acks(injector: &Injector, victim: &Oracle, captured: &[Segment], plan: &Plan) -> Result<Tally> {
    let mut tally = Tally::default();
    send_all(injector, captured, plan, Message::Ack, ACK_PORTS, |ack| {
        let fate = victim.fate_of_ack(ack);
        ensure!(fate != Fate::Accepted, "BUG: this ACK is fresh and genuine; an attacker has no such thing");
        tally.add(fate);
        Ok(())
    })?;
    Ok(tally)
}

/// Sends forged SYN-ACKs to the socket in SYN_SENT whose SYN is `waiting`, as if from the address it dialled.
///
/// `captured`: SYN-ACKs of other connections; their options are put under this connection's numbers.
pub fn syn_acks(
    injector: &Injector,
    victim: &Oracle,
    waiting: &Segment,
    captured: &[Segment],
    plan: &Plan,
) -> Result<Tally> {
    ensure!(!captured.is_empty(), "BUG: nothing was captured");
    let mut random = StdRng::seed_from_u64(plan.seed);
    let forgeries = Forgery::of(Message::SynAck);
    let mut tally = Tally::default();
    for number in 0..plan.count {
        let mut syn_ack = captured[number / forgeries.len() % captured.len()].clone();
        syn_ack.source = waiting.destination;
        syn_ack.destination = waiting.source;
        syn_ack.ack = waiting.seq.wrapping_add(1);
        let forged = forgeries[number % forgeries.len()].apply(&syn_ack, Message::SynAck, &mut random);
        let fate = victim.fate_of_syn_ack(&forged, waiting.destination);
        ensure!(fate != Fate::Accepted, "BUG: this SYN-ACK is genuine; an attacker has no such thing");
        injector.send(&forged)?;
        tally.add(fate);
    }
    Ok(tally)
}

/// Sends SYNs to the socket in SYN_SENT whose SYN is `waiting`, as if the other side were calling, too (rule 6).
pub fn crossing_syns(injector: &Injector, waiting: &Segment, plan: &Plan) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut tally = Tally::default();
    for number in 0..plan.count {
        let mut syn = waiting.clone();
        (syn.source, syn.destination) = (waiting.destination, waiting.source);
        if number % 2 == 1 {
            syn = Forgery::Number.apply(&syn, Message::Syn, &mut random);
        }
        injector.send(&syn)?;
        tally.add(Fate::Refused(Reason::SimultaneousOpen));
    }
    Ok(tally)
}

fn send_all(
    injector: &Injector,
    captured: &[Segment],
    plan: &Plan,
    message: Message,
    ports: std::ops::Range<u16>,
    mut account: impl FnMut(&Segment) -> Result<()>,
) -> Result<()> {
    ensure!(!captured.is_empty(), "BUG: nothing was captured");
    let mut random = StdRng::seed_from_u64(plan.seed);
    let forgeries = Forgery::of(message);
    for number in 0..plan.count {
        let original = &captured[number / forgeries.len() % captured.len()];
        let mut forged = forgeries[number % forgeries.len()].apply(original, message, &mut random);
        forged = elsewhere(&forged, &plan.sources, ports.clone(), &mut random);
        if message == Message::Ack {
            forged.flags = TcpFlags::ACK;
        }
        account(&forged)?;
        injector.send(&forged)?;
    }
    Ok(())
}
