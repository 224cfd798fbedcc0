//! Step 11: ten thousand replays and forgeries: none accepted, counted to the unit, valid load beside them unharmed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use handshake::segment::{Segment, TcpFlags};
use policy::reason::Reason;

use super::lab::{Lab, PORT};
use super::site::{SETTLE_LIMIT, Site, say};
use super::{COMMAND, Ground, Step};
use crate::attack::flood::{self, Plan};
use crate::attack::oracle::Oracle;
use crate::attack::tap::Tap;
use crate::attack::{Attacker, Fate, Tally};
use crate::node::Node;
use crate::peer::script::Speak;
use crate::peer::{Listener, Peer};
use crate::wait;

pub(super) const STEP: Step =
    Step { number: 11, title: "10,000 replays and forgeries: none accepted, every one counted", on: Ground::Lab, run };

/// Connections whose handshakes are captured, for each family.
const CAPTURED: usize = 12;
/// Packets of each kind for each family; in all more than 10,000.
const SYNS: usize = 2000;
const ACKS: usize = 2000;
const SYN_ACKS: usize = 500;
const CROSSING: usize = 100;
/// For each family and kind after the clocks were moved on.
const LATER: usize = 300;
/// More than the 256 s for which a used ACK is remembered.
const SHIFT: Duration = Duration::from_secs(275);
/// A port of target's node at which packets vanish: whoever dials it stays in SYN_SENT.
const SILENT: u16 = 5999;

/// What was overheard of honest handshakes.
struct Overheard {
    syns: Vec<Segment>,
    syn_acks: Vec<Segment>,
    acks: Vec<Segment>,
}

fn run(site: &mut Site) -> Result<()> {
    let lab = site.lab()?;
    let (target, caller) = (lab.target.peer()?, lab.caller.peer()?);
    let attacker = lab.attacker()?;
    lab.first().netns().nft(&format!(
        "table inet silent {{ chain in {{\n type filter hook prerouting priority -300;\n tcp dport {SILENT} drop\n }}\n }}\n"
    ))?;
    let mut all = Tally::default();
    for at in lab.target_addresses() {
        let listener = target.listen(at.ip(), PORT)?;
        let overheard = overhear(lab, &caller, at)?;
        let load = caller.traffic(at, 5, Duration::from_millis(5), Speak::Echo)?;
        let sent = attack_server(lab, &attacker, &overheard, at)?;
        say(&format!("{} at the listener ({}): {sent}", sent.total(), family(at)));
        all.merge(&sent);
        let sent = attack_client(lab, &attacker, &overheard, at)?;
        say(&format!("{} at a calling socket ({}): {sent}", sent.total(), family(at)));
        all.merge(&sent);
        let load = load.stop()?;
        ensure!((load.opened, load.broken, load.wrong) == (5, 0, 0) && load.right == load.sent, "the load: {load:?}");
        ensure!(accepted(&listener)? == CAPTURED + 5, "target accepted something it should not have");
        listener.close()?;
    }
    let later = later(site)?;
    all.merge(&later);
    ensure!(all.total() >= 10_000 && all.of(Fate::Accepted) == 0, "{all}");
    say(&format!(
        "{} packets in all, none accepted, each counted under its reason; the load lost nothing",
        all.total()
    ));
    site.lab()?.first().netns().nft("delete table inet silent\n")
}

fn family(at: SocketAddr) -> &'static str {
    if at.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn accepted(listener: &Listener) -> Result<usize> {
    Ok(listener.accepted()?.len())
}

/// Honest connections, and their handshakes as an eavesdropper on the path has them.
fn overhear(lab: &Lab, caller: &Peer, at: SocketAddr) -> Result<Overheard> {
    let tap = Tap::open(lab.caller.place().netns())?;
    for _ in 0..CAPTURED {
        caller.request(at, COMMAND)??;
    }
    let labelled = |segment: &Segment| handshake::option::find(&segment.options).is_ok_and(|option| option.is_some());
    let overheard = Overheard {
        syns: tap.heard(|segment| segment.flags == TcpFlags::SYN && segment.destination == at),
        syn_acks: tap.heard(|segment| segment.flags.contains(TcpFlags::SYN_ACK) && segment.source == at),
        acks: tap.heard(|segment| {
            let bare = segment.flags == TcpFlags::ACK && segment.payload.is_empty();
            bare && segment.destination == at && labelled(segment)
        }),
    };
    let heard = (overheard.syns.len(), overheard.syn_acks.len(), overheard.acks.len());
    ensure!(heard.0 >= CAPTURED && heard.1 >= CAPTURED && heard.2 > 0, "the tap heard {heard:?}");
    Ok(overheard)
}

fn plan(lab: &Lab, seed: u64, count: usize, at: SocketAddr) -> Plan {
    Plan { seed, count, sources: lab.sources(at.ip()) }
}

fn attack_server(lab: &Lab, attacker: &Attacker, overheard: &Overheard, at: SocketAddr) -> Result<Tally> {
    let mut victim = lab.oracle(lab.first(), lab.target_at)?;
    overheard.acks.iter().try_for_each(|ack| victim.burn(ack))?;
    counted(lab, lab.first(), || {
        let mut sent = flood::syns(attacker.injector(), &victim, &overheard.syns, &plan(lab, 1, SYNS, at))?;
        sent.merge(&flood::acks(attacker.injector(), &victim, &overheard.acks, &plan(lab, 2, ACKS, at))?);
        Ok(sent)
    })
}

fn attack_client(lab: &Lab, attacker: &Attacker, overheard: &Overheard, at: SocketAddr) -> Result<Tally> {
    let victim = lab.oracle(lab.second(), lab.caller_at)?;
    let silent = SocketAddr::new(at.ip(), SILENT);
    let tap = Tap::open(lab.caller.place().netns())?;
    let caller = lab.caller.peer()?;
    let calling = std::thread::spawn(move || caller.connect(silent, COMMAND));
    let waiting = tap.wait("the SYN of a calling socket", COMMAND, |segment| segment.destination == silent)?;
    let sent = counted(lab, lab.second(), || {
        let syn_acks = plan(lab, 3, SYN_ACKS, at);
        let mut sent = flood::syn_acks(attacker.injector(), &victim, &waiting, &overheard.syn_acks, &syn_acks)?;
        sent.merge(&flood::crossing_syns(attacker.injector(), &waiting, &plan(lab, 4, CROSSING, at))?);
        Ok(sent)
    })?;
    let outcome = calling.join().map_err(|_| anyhow::anyhow!("the caller panicked"))??;
    ensure!(outcome.is_err(), "a forged SYN-ACK made a connection");
    Ok(sent)
}

/// The same captures, when everybody's clock has moved on and used ACKs are forgotten.
fn later(site: &mut Site) -> Result<Tally> {
    let lab = site.lab()?;
    let (target, caller) = (lab.target.peer()?, lab.caller.peer()?);
    let attacker = lab.attacker()?;
    let mut captures = Vec::new();
    for at in lab.target_addresses() {
        let listener = target.listen(at.ip(), PORT)?;
        captures.push((at, overhear(lab, &caller, at)?, listener));
    }
    lab.shift_clocks(SHIFT)?;
    let lab = site.lab()?;
    let mut all = Tally::default();
    for (at, overheard, listener) in captures {
        let victim: Oracle = lab.oracle(lab.first(), lab.target_at)?;
        all.merge(&counted(lab, lab.first(), || {
            let mut sent = flood::syns(attacker.injector(), &victim, &overheard.syns, &plan(lab, 5, LATER, at))?;
            sent.merge(&flood::acks(attacker.injector(), &victim, &overheard.acks, &plan(lab, 6, LATER, at))?);
            Ok(sent)
        })?);
        caller.request(at, COMMAND)?.context("an honest connection after the clocks moved")?;
        ensure!(accepted(&listener)? == CAPTURED + 1, "target accepted something old");
        listener.close()?;
    }
    say(&format!("{SHIFT:?} later (clocks moved on): {all}"));
    Ok(all)
}

/// Sends, and waits until the node's counters have moved by exactly what was sent.
fn counted(lab: &Lab, node: &Node, send: impl FnOnce() -> Result<Tally>) -> Result<Tally> {
    let before: BTreeMap<Reason, u64> = lab.denials(node)?;
    let sent = send()?;
    let mut difference = None;
    let waited = wait::until_ok("the counters to say what was sent", SETTLE_LIMIT, || {
        difference = sent.compare(&before, &lab.denials(node)?).err();
        Ok(difference.is_none().then_some(()))
    });
    match (waited, difference) {
        (Ok(()), _) => Ok(sent),
        (Err(_), Some(difference)) => Err(difference),
        (Err(error), None) => Err(error),
    }
}
