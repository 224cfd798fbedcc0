//! What both ends decide at each of the three messages, as pure functions: the oracle for the eBPF programs.
//!
//! The order of the checks is part of the specification (docs/wire.md section 5), because it decides which counter a bad
//! message moves. Policy comes after this and is not its business.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use identity::ids::{Instance, NodeId, WorkloadRef};

use crate::burn::{Burn, BurnTable};
use crate::key::PairKeys;
use crate::mac::{Ends, Isns, MacKey, pair_input, syn_input};
use crate::option::{Fields, Flags, Generation, IdentityOption, Message, OptionError, Tag};
use crate::place::{PlaceError, Places};
use crate::time::T;

/// What a node knows: keys, who is who, and places.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Fleet keys by generation.
    pub fleet_keys: [Option<MacKey>; Generation::COUNT],
    /// The fleet key's generation to send with.
    pub fleet_generation: Generation,
    /// This node's own generation to send with.
    pub own_generation: Generation,
    /// Pair keys by (other node, own generation, the other's generation).
    pub pairs: BTreeMap<(NodeId, Generation, Generation), PairKeys>,
    /// U of every workload that may be met.
    pub instances: BTreeMap<WorkloadRef, Instance>,
    /// Who belongs where.
    pub places: Places,
}

/// A workload of this node, as its sockets are stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its name on the wire.
    pub at: WorkloadRef,
    /// U.
    pub instance: Instance,
    /// What its side says about TLS.
    pub flags: Flags,
}

/// Something that only a successful verification makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<P>(P);

impl<P> Verified<P> {
    /// What was verified.
    pub fn get(&self) -> &P {
        &self.0
    }
}

/// What a SYN under the fleet key amounts to: a claim, good for an answer and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who says to be calling.
    pub client: WorkloadRef,
    /// U of that slot in this node's table.
    pub instance: Instance,
    /// The generation of the client's node key.
    pub generation: Generation,
    /// The client's flags, unconfirmed.
    pub flags: Flags,
    /// The client's initial sequence number.
    pub isn: u32,
}

/// A peer that has proved who it is on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub at: WorkloadRef,
    /// Its instance.
    pub instance: Instance,
    /// Its flags, confirmed under the pair key.
    pub flags: Flags,
    /// The connection it proved itself on.
    pub isns: Isns,
    own_generation: Generation,
    peer_generation: Generation,
}

/// Why a message was refused. Labels are those of the reasons that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// Rule 7: ours and bad, or a list that cannot be read.
    #[error("option-malformed")]
    OptionMalformed,
    /// No option where one is due.
    #[error("option-missing")]
    OptionMissing,
    /// Rule 5.
    #[error("data-before-proof")]
    DataBeforeProof,
    /// Rule 6.
    #[error("simultaneous-open")]
    SimultaneousOpen,
    /// Rule 11: no key of that generation.
    #[error("key-unknown")]
    KeyUnknown,
    /// T is outside the window.
    #[error("time-outside")]
    TimeOutside,
    /// The fleet key's MAC is wrong.
    #[error("fleet-mac-bad")]
    FleetMacBad,
    /// The pair key's MAC is wrong.
    #[error("pair-mac-bad")]
    PairMacBad,
    /// Rule 11: nobody known is (node, slot).
    #[error("peer-unknown")]
    PeerUnknown,
    /// Rule 2: somebody changed the flags on the way.
    #[error("flags-mismatch")]
    FlagsMismatch,
    /// Rule 1: somebody else belongs there.
    #[error("place-mismatch")]
    PlaceMismatch,
    /// Rule 1: no place.
    #[error("unknown-place")]
    UnknownPlace,
    /// Rule 1: another workload's own address.
    #[error("source-mismatch")]
    SourceMismatch,
    /// Rule 3: the numbers do not fit the handshake.
    #[error("sequence-unexpected")]
    SequenceUnexpected,
    /// Rule 4: used before.
    #[error("replay")]
    Replay,
    /// Rule 4: nothing else proves freshness.
    #[error("burn-full")]
    BurnFull,
}

/// What follows a refusal (rules 11 and 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing leaves.
    Silent,
    /// Nothing leaves; the server is asked, and the peer's retransmission may then succeed.
    Pull,
    /// The server is asked; if its answer changes nothing, the application sees ECONNREFUSED.
    PullThenReset,
    /// The application sees ECONNREFUSED at once.
    Reset,
}

impl Refusal {
    /// What to do besides dropping the message.
    pub const fn reaction(self) -> Reaction {
        match self {
            Refusal::KeyUnknown | Refusal::PeerUnknown | Refusal::PairMacBad => Reaction::Pull,
            Refusal::PlaceMismatch | Refusal::UnknownPlace => Reaction::PullThenReset,
            Refusal::SourceMismatch | Refusal::FlagsMismatch => Reaction::Reset,
            _ => Reaction::Silent,
        }
    }
}

impl From<OptionError> for Refusal {
    fn from(_: OptionError) -> Self {
        Refusal::OptionMalformed
    }
}

impl From<PlaceError> for Refusal {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Unknown => Refusal::UnknownPlace,
            PlaceError::Mismatch => Refusal::PlaceMismatch,
        }
    }
}

/// What a segment carries: the result of [`crate::option::find`] on it.
pub type Found = Result<Option<IdentityOption>, OptionError>;

/// A SYN as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct ArrivingSyn {
    /// Its option.
    pub option: Found,
    /// Its sequence number.
    pub isn: u32,
    /// Source address as seen here.
    pub source: IpAddr,
    /// Payload or a TCP Fast Open option (rule 5).
    pub carries_data: bool,
    /// Whether the receiving socket is itself in SYN_SENT (rule 6).
    pub at_syn_sent: bool,
}

/// Writes a SYN's option.
pub fn call(tables: &Tables, client: &Local, isn: u32, now: T) -> Result<IdentityOption, Refusal> {
    let fields = Fields {
        message: Message::Syn,
        own_generation: tables.own_generation,
        peer_generation: tables.fleet_generation,
        echo: Flags::NONE,
        flags: client.flags,
        t8: now.low_bits(),
        from: client.at,
    };
    let key = tables.fleet_keys[tables.fleet_generation.get() as usize].as_ref().ok_or(Refusal::KeyUnknown)?;
    Ok(fields.sealed(key.tag(&syn_input(&fields, isn, now))))
}

/// Checks a SYN at the server. `Ok(None)`: unlabelled; external rules decide.
pub fn verify_syn(tables: &Tables, syn: &ArrivingSyn, now: T) -> Result<Option<Verified<Claim>>, Refusal> {
    if syn.at_syn_sent {
        return Err(Refusal::SimultaneousOpen);
    }
    if syn.carries_data {
        return Err(Refusal::DataBeforeProof);
    }
    let Some(option) = syn.option? else { return Ok(None) };
    let fields = expect_message(&option, Message::Syn)?;
    let key = tables.fleet_keys[fields.peer_generation.get() as usize].as_ref().ok_or(Refusal::KeyUnknown)?;
    let t = now.accept(fields.t8).ok_or(Refusal::TimeOutside)?;
    if !key.verifies(&syn_input(fields, syn.isn, t), option.tag) {
        return Err(Refusal::FleetMacBad);
    }
    let instance = *tables.instances.get(&fields.from).ok_or(Refusal::PeerUnknown)?;
    if !tables.places.may_come_from(syn.source, fields.from) {
        return Err(Refusal::SourceMismatch);
    }
    let claim =
        Claim { client: fields.from, instance, generation: fields.own_generation, flags: fields.flags, isn: syn.isn };
    Ok(Some(Verified(claim)))
}

/// Writes the SYN-ACK's option for a claim. Without a pair key none is written, and the client drops the answer.
pub fn answer(
    tables: &Tables,
    server: &Local,
    claim: &Verified<Claim>,
    isn_server: u32,
    now: T,
) -> Result<IdentityOption, Refusal> {
    let claim = claim.get();
    let fields = Fields {
        message: Message::SynAck,
        own_generation: tables.own_generation,
        peer_generation: claim.generation,
        echo: claim.flags,
        flags: server.flags,
        t8: now.low_bits(),
        from: server.at,
    };
    let ends = Ends { to: claim.client, from_instance: server.instance, to_instance: claim.instance };
    let isns = Isns { client: claim.isn, server: isn_server };
    Ok(fields.sealed(seal(tables, &fields, claim.client.node, isns, now, &ends)?))
}

/// A SYN-ACK as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct ArrivingSynAck {
    /// Its option.
    pub option: Found,
    /// Both numbers: its acknowledgement − 1, and its sequence number.
    pub isns: Isns,
    /// The address that the client dialled, as the client's socket has it.
    pub dialled: SocketAddr,
}

/// Checks a SYN-ACK at the client. An unlabelled one is [`Refusal::OptionMissing`]; external rules may still pass it.
pub fn verify_syn_ack(
    tables: &Tables,
    client: &Local,
    syn_ack: &ArrivingSynAck,
    now: T,
) -> Result<Verified<Peer>, Refusal> {
    let option = syn_ack.option?.ok_or(Refusal::OptionMissing)?;
    let fields = expect_message(&option, Message::SynAck)?;
    let peer = verify_pair(tables, client, &option, syn_ack.isns, now)?;
    if fields.echo != client.flags {
        return Err(Refusal::FlagsMismatch);
    }
    tables.places.admits(syn_ack.dialled, fields.from, client.at)?;
    Ok(Verified(peer))
}

/// Writes the ACK's option after a verified SYN-ACK.
pub fn confirm(tables: &Tables, client: &Local, server: &Verified<Peer>, now: T) -> Result<IdentityOption, Refusal> {
    let server = server.get();
    let fields = Fields {
        message: Message::Ack,
        own_generation: server.own_generation,
        peer_generation: server.peer_generation,
        echo: server.flags,
        flags: client.flags,
        t8: now.low_bits(),
        from: client.at,
    };
    let ends = Ends { to: server.at, from_instance: client.instance, to_instance: server.instance };
    Ok(fields.sealed(seal(tables, &fields, server.at.node, server.isns, now, &ends)?))
}

/// The first segment after the SYN-ACK as it arrives at the listening socket.
#[derive(Clone, Copy, Debug)]
pub struct ArrivingAck {
    /// Its option.
    pub option: Found,
    /// Its own numbers: sequence − 1 and acknowledgement − 1.
    pub isns: Isns,
    /// The pending entry's numbers, when one is found: a cache that an attacker can evict (rule 3).
    pub pending: Option<Isns>,
    /// The connection was answered by a SYN cookie.
    pub cookie: bool,
}

/// Checks an ACK at the server, from the packet, the listener's stamp and the tables alone (rule 3). Looks the burn table up
/// but does not write it: see [`establish`].
pub fn verify_ack(
    tables: &Tables,
    server: &Local,
    ack: &ArrivingAck,
    burnt: &BurnTable,
    now: T,
    now_s: u64,
) -> Result<Verified<Peer>, Refusal> {
    let option = ack.option?.ok_or(Refusal::OptionMissing)?;
    let fields = expect_message(&option, Message::Ack)?;
    let peer = verify_pair(tables, server, &option, ack.isns, now).map_err(|refusal| match refusal {
        Refusal::PairMacBad if ack.pending.is_some_and(|expected| expected.client != ack.isns.client) => {
            Refusal::SequenceUnexpected
        }
        refusal => refusal,
    })?;
    if fields.echo != server.flags {
        return Err(Refusal::FlagsMismatch);
    }
    if burnt.is_burnt(fields.from, ack.isns, now_s) {
        return Err(Refusal::Replay);
    }
    let fresh_elsewise = ack.pending.is_some() && !ack.cookie;
    if !fresh_elsewise && burnt.is_full(now_s) {
        return Err(Refusal::BurnFull);
    }
    Ok(Verified(peer))
}

/// Burns a verified proof when its connection is established (rule 4).
pub fn establish(burnt: &mut BurnTable, client: &Verified<Peer>, now_s: u64) -> Result<(), Refusal> {
    let peer = client.get();
    match burnt.present(peer.at, peer.isns, now_s) {
        Burn::Replay => Err(Refusal::Replay),
        // Full: only proofs with a pending entry and no cookie came this far, and those are fresh by that entry.
        Burn::First | Burn::Full => Ok(()),
    }
}

fn expect_message(option: &IdentityOption, message: Message) -> Result<&Fields, Refusal> {
    if option.fields.message == message { Ok(&option.fields) } else { Err(Refusal::OptionMalformed) }
}

fn seal(tables: &Tables, fields: &Fields, to: NodeId, isns: Isns, now: T, ends: &Ends) -> Result<Tag, Refusal> {
    let pair = (to, fields.own_generation, fields.peer_generation);
    let keys = tables.pairs.get(&pair).ok_or(Refusal::KeyUnknown)?;
    Ok(keys.send.tag(&pair_input(fields, isns, now, ends)))
}

/// Key, table, time, MAC: what SYN-ACK and ACK share.
fn verify_pair(tables: &Tables, local: &Local, option: &IdentityOption, isns: Isns, now: T) -> Result<Peer, Refusal> {
    let fields = &option.fields;
    let pair = (fields.from.node, fields.peer_generation, fields.own_generation);
    let keys = tables.pairs.get(&pair).ok_or(Refusal::KeyUnknown)?;
    let instance = *tables.instances.get(&fields.from).ok_or(Refusal::PeerUnknown)?;
    let t = now.accept(fields.t8).ok_or(Refusal::TimeOutside)?;
    let ends = Ends { to: local.at, from_instance: instance, to_instance: local.instance };
    if !keys.receive.verifies(&pair_input(fields, isns, t, &ends), option.tag) {
        return Err(Refusal::PairMacBad);
    }
    Ok(Peer {
        at: fields.from,
        instance,
        flags: fields.flags,
        isns,
        own_generation: fields.peer_generation,
        peer_generation: fields.own_generation,
    })
}

#[cfg(test)]
mod tests;
