//! A victim as the model of the handshake sees it: foretells what every packet must meet.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use datapath::state::{Key128, PlaceTarget, State};
use handshake::burn::{Burn, BurnTable};
use handshake::key::PairKeys;
use handshake::mac::{Isns, MacKey};
use handshake::model::{self, ArrivingAck, ArrivingSyn, ArrivingSynAck, Local, Refusal, Tables};
use handshake::option::{Flags, Generation, IdentityOption, find};
use handshake::place::Target;
use handshake::segment::Segment;
use handshake::time::T;
use identity::ids::WorkloadRef;
use policy::reason::Reason;
use rustix::time::{ClockId, clock_gettime};

use crate::attack::Fate;

/// Kind of the TCP Fast Open option.
pub(crate) const FAST_OPEN: u8 = 34;
const BURNT_MAX: usize = 1 << 20;

/// One workload of one node, with everything its node knows.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// The node's tables.
    pub tables: Tables,
    /// The workload.
    pub local: Local,
    clock_offset_ns: i64,
    burnt: BurnTable,
}

impl Oracle {
    /// The workload `at` of the node that enforces `state`.
    ///
    /// Policy is not part of it: it foretells for peers that policy allows.
    pub fn of(state: &State, at: WorkloadRef) -> Result<Self> {
        let instance = state.peers.iter().find(|peer| peer.at == at).context("BUG: no such workload")?.instance;
        Ok(Self {
            tables: tables_of(state)?,
            local: Local { at, instance, flags: Flags::NONE },
            clock_offset_ns: state.clock_offset_ns,
            burnt: BurnTable::new(BURNT_MAX),
        })
    }

    /// T on the victim's node now.
    pub fn now(&self) -> T {
        let boot = clock_gettime(ClockId::Boottime);
        let unix_s = boot.tv_sec + self.clock_offset_ns.div_euclid(1_000_000_000);
        let carry = boot.tv_nsec + self.clock_offset_ns.rem_euclid(1_000_000_000) >= 1_000_000_000;
        T::at_unix_s(u64::try_from(unix_s + i64::from(carry)).unwrap_or(0))
    }

    /// Moves the victim's clock, as the agent would after hearing another time from the server.
    pub fn set_clock_offset(&mut self, offset_ns: i64) {
        self.clock_offset_ns = offset_ns;
    }

    /// Remembers that a connection was established with this ACK.
    pub fn burn(&mut self, ack: &Segment) -> Result<()> {
        let option = find(&ack.options)?.context("an ACK without the option proves nothing")?;
        let burnt = self.burnt.present(option.fields.from, isns_of_ack(ack), 0);
        anyhow::ensure!(burnt != Burn::Full, "BUG: the oracle's burn table is full");
        Ok(())
    }

    /// What a SYN at the listening victim meets. `None`: unlabelled, so that external rules decide.
    pub fn fate_of_syn(&self, syn: &Segment) -> Option<Fate> {
        let option = find(&syn.options);
        let carries_data = !syn.payload.is_empty() || asks_fast_open(&syn.options);
        let source = syn.source.ip();
        let arriving = ArrivingSyn { option, isn: syn.seq, source, carries_data, at_syn_sent: false };
        match model::verify_syn(&self.tables, &arriving, self.now()) {
            Ok(None) => None,
            Ok(Some(_)) => Some(Fate::Answered),
            Err(refusal) => Some(Fate::Refused(reason_of(refusal))),
        }
    }

    /// What a SYN-ACK meets at the victim, which has dialled `dialled`.
    pub fn fate_of_syn_ack(&self, syn_ack: &Segment, dialled: SocketAddr) -> Fate {
        let isns = Isns { client: syn_ack.ack.wrapping_sub(1), server: syn_ack.seq };
        let arriving = ArrivingSynAck { option: find(&syn_ack.options), isns, dialled };
        fate(model::verify_syn_ack(&self.tables, &self.local, &arriving, self.now()))
    }

    /// What an ACK meets at the listening victim that has no pending entry for its addresses.
    pub fn fate_of_ack(&self, ack: &Segment) -> Fate {
        let arriving = ArrivingAck { option: find(&ack.options), isns: isns_of_ack(ack), pending: None, cookie: false };
        fate(model::verify_ack(&self.tables, &self.local, &arriving, &self.burnt, self.now(), 0))
    }
}

/// The identity option of a captured segment.
pub fn option_of(segment: &Segment) -> Result<IdentityOption> {
    find(&segment.options)?.context("the captured segment carries no identity option")
}

/// Both numbers by which an ACK names its connection.
pub(crate) fn isns_of_ack(ack: &Segment) -> Isns {
    Isns { client: ack.seq.wrapping_sub(1), server: ack.ack.wrapping_sub(1) }
}

/// The reason that users see for a refusal of the model.
pub fn reason_of(refusal: Refusal) -> Reason {
    let label = refusal.to_string();
    let reason = Reason::ALL.iter().find(|reason| reason.label() == label);
    *reason.expect("BUG: every refusal of the model is a reason")
}

fn fate<P>(verified: Result<P, Refusal>) -> Fate {
    match verified {
        Ok(_) => Fate::Accepted,
        Err(refusal) => Fate::Refused(reason_of(refusal)),
    }
}

/// Fast Open by its own kind, or by the experiment's number before it had one; as far as the list can be read.
pub fn asks_fast_open(options: &[u8]) -> bool {
    let mut rest = options;
    while let [kind, after @ ..] = rest {
        let length = if *kind <= 1 { 1 } else { usize::from(after.first().copied().unwrap_or(0)) };
        if *kind == 0 || *kind > 1 && length < 2 || length > rest.len() {
            break;
        }
        let experiment = matches!(rest, [253 | 254, 4..=u8::MAX, 0xF9, 0x89, ..]);
        if *kind == FAST_OPEN || experiment {
            return true;
        }
        rest = &rest[length..];
    }
    false
}

/// What a node that enforces `state` knows of the handshake. A captured node's tables are these, too.
pub fn tables_of(state: &State) -> Result<Tables> {
    let generation = |number: u8| Generation::new(number).context("BUG: a generation over 3");
    let key = |key: &Key128| MacKey::new(key.0);
    let mut tables = Tables {
        fleet_generation: generation(state.fleet_generation)?,
        own_generation: generation(state.own_generation)?,
        ..Tables::default()
    };
    for (slot, fleet) in tables.fleet_keys.iter_mut().zip(&state.fleet_keys) {
        *slot = fleet.as_ref().map(key);
    }
    for pair in &state.pair_keys {
        let at = (pair.node, generation(pair.own_generation)?, generation(pair.peer_generation)?);
        tables.pairs.insert(at, PairKeys { send: key(&pair.tx), receive: key(&pair.rx) });
    }
    tables.instances.extend(state.peers.iter().map(|peer| (peer.at, peer.instance)));
    for place in &state.places {
        let target = match place.target {
            PlaceTarget::Node(node) => Target::Node(node),
            PlaceTarget::Workload(workload) => Target::Workload(workload),
            PlaceTarget::Service(service) => Target::Service(service),
            PlaceTarget::Declared => Target::Declared,
        };
        tables.places.declare(place.address, place.port, target);
    }
    for (service, member) in &state.members {
        tables.places.join(*service, *member);
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_model_is_a_reason_that_users_see() {
        let all = [
            Refusal::OptionMalformed,
            Refusal::OptionMissing,
            Refusal::DataBeforeProof,
            Refusal::SimultaneousOpen,
            Refusal::KeyUnknown,
            Refusal::TimeOutside,
            Refusal::FleetMacBad,
            Refusal::PairMacBad,
            Refusal::PeerUnknown,
            Refusal::FlagsMismatch,
            Refusal::PlaceMismatch,
            Refusal::UnknownPlace,
            Refusal::SourceMismatch,
            Refusal::SequenceUnexpected,
            Refusal::Replay,
            Refusal::BurnFull,
        ];
        for refusal in all {
            assert_eq!(reason_of(refusal).label(), refusal.to_string());
        }
    }
}
