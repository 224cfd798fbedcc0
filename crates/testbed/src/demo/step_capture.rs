//! Step 12: what a captured node and other cheats cannot do, rule by rule.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use handshake::model::Local;
use handshake::option::Flags;
use handshake::segment::Segment;
use identity::ids::Instance;
use policy::reason::Reason;

use super::lab::{Lab, PORT};
use super::site::{SETTLE_LIMIT, Site, say};
use super::{COMMAND, Ground, Step};
use crate::attack::Attacker;
use crate::attack::flood::{self, Plan};
use crate::attack::oracle::tables_of;
use crate::attack::speak::{HalfOpen, Speaker};
use crate::attack::tap::Tap;
use crate::node::Node;
use crate::peer::Listener;
use crate::wait;

pub(super) const STEP: Step = Step {
    number: 12,
    title: "a captured node, a reused slot, an evicted entry, early data, a crossing call",
    on: Ground::Lab,
    run,
};

/// No connection from this port range is anybody else's.
const FROM_PORT: u16 = 61_000;
/// SYNs that displace whatever the table of handshakes under way holds.
const DISPLACING: u16 = 40_000;
/// Packets vanish there.
const SILENT: u16 = 5998;

struct Bench<'a> {
    lab: &'a Lab,
    attacker: Attacker,
    listener: Listener,
    to: SocketAddr,
    from: SocketAddr,
}

fn run(site: &mut Site) -> Result<()> {
    let lab = site.lab()?;
    let target = lab.target.peer()?;
    for (number, to) in lab.target_addresses().into_iter().enumerate() {
        let own = lab.intruder.addresses.both()[number];
        let listener = target.listen(to.ip(), PORT)?;
        let bench = Bench { lab, attacker: lab.attacker()?, listener, to, from: SocketAddr::new(own, FROM_PORT) };
        bench.captured_node_claims_another_nodes_slot()?;
        bench.reused_slot_is_another_workload()?;
        bench.evicted_entry_changes_nothing()?;
        bench.data_before_proof_is_dropped()?;
        bench.simultaneous_open_is_refused()?;
        bench.listener.close()?;
    }
    Ok(())
}

impl Bench<'_> {
    /// What the captured node knows, speaking as somebody.
    fn speaker(&self, says: Local) -> Result<Speaker> {
        Ok(Speaker { tables: tables_of(&self.lab.state(self.lab.second())?)?, says })
    }

    fn caller(&self) -> Result<Local> {
        let instance = self.lab.fleet.instance(self.lab.caller_at).context("BUG: no caller")?;
        Ok(Local { at: self.lab.caller_at, instance, flags: Flags::NONE })
    }

    /// SYN, SYN-ACK; the port is the caller's choice, so that handshakes do not meet.
    fn half_open(&self, speaker: &Speaker, port: u16) -> Result<HalfOpen> {
        let now = self.lab.oracle(self.lab.second(), self.lab.caller_at)?.now();
        let syn = speaker.syn(SocketAddr::new(self.from.ip(), port), self.to, rand::random(), now)?;
        speaker.open(&self.attacker, &syn, COMMAND)?.context("the server did not answer the SYN")
    }

    fn send_ack(&self, speaker: &Speaker, half: &HalfOpen) -> Result<()> {
        let now = self.lab.oracle(self.lab.second(), self.lab.caller_at)?.now();
        self.attacker.injector().send(&speaker.ack(half, None, now)?)
    }

    fn accepted(&self) -> Result<usize> {
        Ok(self.listener.accepted()?.len())
    }

    /// Does something that must be refused for `reason` on `node`, exactly `times`, with nothing accepted.
    fn refused(&self, node: &Node, reason: Reason, times: u64, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let count = || Ok::<_, anyhow::Error>(self.lab.denials(node)?.get(&reason).copied().unwrap_or(0));
        let (before, accepted) = (count()?, self.accepted()?);
        act()?;
        wait::until_ok(&format!("{} to be counted", reason.label()), SETTLE_LIMIT, || {
            Ok((count()? >= before + times).then_some(()))
        })?;
        ensure!(count()? == before + times, "{} was counted {} times", reason.label(), count()? - before);
        ensure!(self.accepted()? == accepted, "something was accepted");
        Ok(())
    }

    fn captured_node_claims_another_nodes_slot(&self) -> Result<()> {
        let target = self.lab.fleet.instance(self.lab.target_at).context("BUG: no target")?;
        // Target itself may not reach target; what matters is that a proof for its node needs its node's keys.
        let speaker = self.speaker(Local { at: self.lab.target_at, instance: target, flags: Flags::NONE })?;
        let now = self.lab.oracle(self.lab.second(), self.lab.caller_at)?.now();
        let syn = speaker.syn(SocketAddr::new(self.from.ip(), FROM_PORT), self.to, rand::random(), now)?;
        let accepted = self.accepted()?;
        let half = speaker.open(&self.attacker, &syn, Duration::from_secs(2))?;
        if let Some(half) = half {
            self.refused(self.lab.first(), Reason::PairMacBad, 1, || self.send_ack(&speaker, &half))?;
        }
        ensure!(self.accepted()? == accepted, "a captured node spoke as another node's workload");
        say("a captured node that claims another node's slot is refused: it lacks that node's keys");
        Ok(())
    }

    fn reused_slot_is_another_workload(&self) -> Result<()> {
        let caller = self.caller()?;
        let predecessor = self.speaker(Local { instance: Instance(caller.instance.0 ^ 1), ..caller })?;
        let half = self.half_open(&predecessor, FROM_PORT + 1)?;
        self.refused(self.lab.first(), Reason::PairMacBad, 1, || self.send_ack(&predecessor, &half))?;
        say("a slot's former workload is refused: the instance under the MAC is the verifier's own");
        Ok(())
    }

    fn evicted_entry_changes_nothing(&self) -> Result<()> {
        let speaker = self.speaker(self.caller()?)?;
        let half = self.half_open(&speaker, FROM_PORT + 2)?;
        self.forget_pending(&speaker)?;
        let before = self.accepted()?;
        self.send_ack(&speaker, &half)?;
        wait::until_ok("the honest ACK to be accepted", SETTLE_LIMIT, || {
            Ok((self.accepted()? == before + 1).then_some(()))
        })?;
        say("an evicted pending entry: the ACK carries its own proof and is accepted");
        Ok(())
    }

    /// Believed SYNs of somebody else, several times as many as the server's table of handshakes under way has entries.
    fn forget_pending(&self, speaker: &Speaker) -> Result<()> {
        let oracle = self.lab.oracle(self.lab.second(), self.lab.caller_at)?;
        let sources = self.lab.sources(self.to.ip());
        for number in 0..DISPLACING {
            let from = SocketAddr::new(sources[usize::from(number) % sources.len()], 1024 + number);
            self.attacker.injector().send(&speaker.syn(from, self.to, rand::random(), oracle.now())?)?;
        }
        Ok(())
    }

    fn data_before_proof_is_dropped(&self) -> Result<()> {
        let speaker = self.speaker(self.caller()?)?;
        let now = self.lab.oracle(self.lab.second(), self.lab.caller_at)?.now();
        let mut syn: Segment =
            speaker.syn(SocketAddr::new(self.from.ip(), FROM_PORT + 3), self.to, rand::random(), now)?;
        syn.payload = b"GET /".to_vec();
        self.refused(self.lab.first(), Reason::DataBeforeProof, 1, || self.attacker.injector().send(&syn))?;
        say("a SYN with data is dropped: no data before proof");
        Ok(())
    }

    fn simultaneous_open_is_refused(&self) -> Result<()> {
        let silent = SocketAddr::new(self.to.ip(), SILENT);
        let first = self.lab.first().netns();
        first.nft(&format!(
            "table inet crossing {{ chain in {{\n type filter hook prerouting priority -300;\n tcp dport {SILENT} drop\n }}\n }}\n"
        ))?;
        let tap = Tap::open(self.lab.caller.place().netns())?;
        let caller = self.lab.caller.peer()?;
        let calling = std::thread::spawn(move || caller.connect(silent, Duration::from_secs(3)));
        let waiting = tap.wait("the SYN of a calling socket", COMMAND, |segment| segment.destination == silent)?;
        let plan = Plan { seed: 7, count: 2, sources: Vec::new() };
        self.refused(self.lab.second(), Reason::SimultaneousOpen, 2, || {
            flood::crossing_syns(self.attacker.injector(), &waiting, &plan).map(drop)
        })?;
        let outcome = calling.join().map_err(|_| anyhow::anyhow!("the caller panicked"))??;
        ensure!(outcome.is_err(), "a simultaneous open made a connection");
        say("a SYN at a socket that is calling itself is refused: no simultaneous open");
        first.nft("delete table inet crossing\n")
    }
}
