use super::*;
use crate::key::NodeSecret;
use crate::option::{LENGTH, find};
use crate::place::Target;
use identity::ids::Slot;
use proptest::prelude::*;

const NOW: T = T(29_585_250);
const NOW_S: u64 = 1_893_456_000;
const DIALLED: &str = "10.0.0.2:5432";
const ISNS: Isns = Isns { client: 0x1111_2222, server: 0x3333_4444 };

fn node(value: u32) -> NodeId {
    NodeId::new(value).expect("in range")
}

fn at(node_id: u32, slot: u16) -> WorkloadRef {
    WorkloadRef { node: node(node_id), slot: Slot(slot) }
}

/// Client: workload 1/10 on node 1. Server: 2/20 on node 2. Node 3 is another node of the fleet with workload 3/30.
struct Fleet {
    client_node: Tables,
    server_node: Tables,
    third_node: Tables,
    client: Local,
    server: Local,
}

fn fleet() -> Fleet {
    let secrets: Vec<NodeSecret> =
        [1u8, 2, 3].iter().map(|b| NodeSecret::from_bytes(&[*b; 32]).expect("32 bytes")).collect();
    let tables = |own: u32| {
        let mut tables = Tables::default();
        tables.fleet_keys[0] = Some(MacKey::new([0xF1; 16]));
        for other in [1u32, 2, 3] {
            let keys = if other == own {
                PairKeys::local([own as u8; 16])
            } else {
                let (mine, theirs) = (&secrets[own as usize - 1], secrets[other as usize - 1].public());
                PairKeys::derive("acme", (node(own), mine), (node(other), &theirs)).expect("sound keys")
            };
            tables.pairs.insert((node(other), Generation::default(), Generation::default()), keys);
        }
        for (workload, u) in [(at(1, 10), 110), (at(1, 11), 111), (at(2, 20), 220), (at(2, 21), 221), (at(3, 30), 330)]
        {
            tables.instances.insert(workload, Instance(u));
        }
        tables.places.declare("10.0.0.2".parse().expect("address"), None, Target::Node(node(2)));
        tables.places.declare("10.0.0.9".parse().expect("address"), None, Target::Workload(at(3, 30)));
        tables
    };
    Fleet {
        client_node: tables(1),
        server_node: tables(2),
        third_node: tables(3),
        client: Local { at: at(1, 10), instance: Instance(110), flags: Flags::CAN_TLS },
        server: Local { at: at(2, 20), instance: Instance(220), flags: Flags::CAN_TLS.union(Flags::WANTS_TLS) },
    }
}

fn arriving_syn(option: Found) -> ArrivingSyn {
    let source = "203.0.113.1".parse().expect("address");
    ArrivingSyn { option, isn: ISNS.client, source, carries_data: false, at_syn_sent: false }
}

fn arriving_syn_ack(option: Found) -> ArrivingSynAck {
    ArrivingSynAck { option, isns: ISNS, dialled: DIALLED.parse().expect("address") }
}

fn arriving_ack(option: Found) -> ArrivingAck {
    ArrivingAck { option, isns: ISNS, pending: Some(ISNS), cookie: false }
}

impl Fleet {
    fn syn(&self) -> IdentityOption {
        call(&self.client_node, &self.client, ISNS.client, NOW).expect("a fleet key")
    }

    fn claim(&self) -> Verified<Claim> {
        let syn = arriving_syn(Ok(Some(self.syn())));
        verify_syn(&self.server_node, &syn, NOW).expect("verifies").expect("labelled")
    }

    fn syn_ack(&self) -> IdentityOption {
        answer(&self.server_node, &self.server, &self.claim(), ISNS.server, NOW).expect("a pair key")
    }

    fn ack(&self) -> IdentityOption {
        let syn_ack = arriving_syn_ack(Ok(Some(self.syn_ack())));
        let peer = verify_syn_ack(&self.client_node, &self.client, &syn_ack, NOW).expect("verifies");
        confirm(&self.client_node, &self.client, &peer, NOW).expect("a pair key")
    }

    fn check_syn(&self, syn: &ArrivingSyn, now: T) -> Result<bool, Refusal> {
        verify_syn(&self.server_node, syn, now).map(|claim| claim.is_some())
    }

    fn check_syn_ack(&self, syn_ack: &ArrivingSynAck, now: T) -> Result<WorkloadRef, Refusal> {
        verify_syn_ack(&self.client_node, &self.client, syn_ack, now).map(|peer| peer.get().at)
    }

    fn check_ack(&self, ack: &ArrivingAck, now: T) -> Result<WorkloadRef, Refusal> {
        verify_ack(&self.server_node, &self.server, ack, &BurnTable::new(8), now, NOW_S).map(|peer| peer.get().at)
    }
}

#[test]
fn an_honest_handshake_proves_both_ends() {
    let fleet = fleet();
    let claim = fleet.claim();
    assert_eq!(claim.get().client, fleet.client.at);
    let server = fleet.check_syn_ack(&arriving_syn_ack(Ok(Some(fleet.syn_ack()))), NOW);
    assert_eq!(server, Ok(fleet.server.at));
    let client = fleet.check_ack(&arriving_ack(Ok(Some(fleet.ack()))), NOW);
    assert_eq!(client, Ok(fleet.client.at));
}

#[test]
fn two_workloads_of_one_node_prove_themselves_under_the_local_key() {
    let mut fleet = fleet();
    fleet.server_node = fleet.client_node.clone();
    fleet.server = Local { at: at(1, 11), instance: Instance(111), flags: Flags::NONE };
    let mut syn_ack = arriving_syn_ack(Ok(Some(fleet.syn_ack())));
    syn_ack.dialled = "127.0.0.1:80".parse().expect("address");
    let peer = verify_syn_ack(&fleet.client_node, &fleet.client, &syn_ack, NOW).expect("verifies");
    let ack = confirm(&fleet.client_node, &fleet.client, &peer, NOW).expect("a pair key");
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Ok(fleet.client.at));
    let reflected = arriving_ack(Ok(Some(fleet.syn_ack())));
    assert_eq!(fleet.check_ack(&reflected, NOW), Err(Refusal::OptionMalformed), "one key, and still no reflection");
}

#[test]
fn an_unlabelled_syn_is_nobodys() {
    assert_eq!(fleet().check_syn(&arriving_syn(Ok(None)), NOW), Ok(false));
}

// ---- rule 1: place

#[test]
fn rule_01_a_relay_that_was_dialled_elsewhere_is_refused() {
    let fleet = fleet();
    let dialled = |text: &str| {
        let dialled = text.parse().expect("address");
        ArrivingSynAck { dialled, ..arriving_syn_ack(Ok(Some(fleet.syn_ack()))) }
    };
    assert_eq!(fleet.check_syn_ack(&dialled("10.0.0.9:5432"), NOW), Err(Refusal::PlaceMismatch));
    assert_eq!(fleet.check_syn_ack(&dialled("198.51.100.7:5432"), NOW), Err(Refusal::UnknownPlace));
    assert_eq!(Refusal::PlaceMismatch.reaction(), Reaction::PullThenReset);
}

#[test]
fn rule_01_a_client_from_another_workloads_own_address_is_refused() {
    let fleet = fleet();
    let source = "10.0.0.9".parse().expect("address");
    let syn = ArrivingSyn { source, ..arriving_syn(Ok(Some(fleet.syn()))) };
    assert_eq!(fleet.check_syn(&syn, NOW), Err(Refusal::SourceMismatch));
}

// ---- rule 2: flags

#[test]
fn rule_02_flags_changed_on_the_way_are_noticed_by_both_ends() {
    let mut fleet = fleet();
    // The SYN's MAC is under a key that every node holds: a captured one can change the flags and seal again.
    let mut fields = fleet.syn().fields;
    fields.flags = Flags::NONE;
    let key = fleet.server_node.fleet_keys[0].clone().expect("fleet key");
    let downgraded = fields.sealed(key.tag(&syn_input(&fields, ISNS.client, NOW)));
    let claim = verify_syn(&fleet.server_node, &arriving_syn(Ok(Some(downgraded))), NOW).expect("verifies");
    let syn_ack = answer(&fleet.server_node, &fleet.server, &claim.expect("labelled"), ISNS.server, NOW).expect("key");
    assert_eq!(fleet.check_syn_ack(&arriving_syn_ack(Ok(Some(syn_ack))), NOW), Err(Refusal::FlagsMismatch));

    let ack = fleet.ack();
    fleet.server.flags = Flags::NONE;
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Err(Refusal::FlagsMismatch));
}

// ---- rule 3: the ACK is self-contained

#[test]
fn rule_03_an_evicted_pending_entry_does_not_matter() {
    let fleet = fleet();
    let ack = ArrivingAck { pending: None, ..arriving_ack(Ok(Some(fleet.ack()))) };
    assert_eq!(fleet.check_ack(&ack, NOW), Ok(fleet.client.at));
}

#[test]
fn rule_03_a_first_segment_with_other_numbers_is_dropped() {
    let fleet = fleet();
    let later = Isns { client: ISNS.client + 100, ..ISNS };
    let ack = ArrivingAck { isns: later, ..arriving_ack(Ok(Some(fleet.ack()))) };
    assert_eq!(fleet.check_ack(&ack, NOW), Err(Refusal::SequenceUnexpected));
    assert_eq!(fleet.check_ack(&ArrivingAck { pending: None, ..ack }, NOW), Err(Refusal::PairMacBad));
}

// ---- rule 4: replay

#[test]
fn rule_04_an_ack_is_burnt_by_its_connection_and_not_before() {
    let fleet = fleet();
    let mut burnt = BurnTable::new(8);
    let ack = arriving_ack(Ok(Some(fleet.ack())));
    let check = |burnt: &BurnTable, now_s| verify_ack(&fleet.server_node, &fleet.server, &ack, burnt, NOW, now_s);
    check(&burnt, NOW_S).expect("first");
    let peer = check(&burnt, NOW_S).expect("presented twice: deferred accept, full accept queue");
    establish(&mut burnt, &peer, NOW_S).expect("first connection");
    assert_eq!(check(&burnt, NOW_S), Err(Refusal::Replay));
    assert_eq!(check(&burnt, NOW_S + 255), Err(Refusal::Replay));
    assert_eq!(establish(&mut burnt, &peer, NOW_S), Err(Refusal::Replay));
}

#[test]
fn rule_04_when_the_burn_is_over_time_refuses() {
    let fleet = fleet();
    let ack = arriving_ack(Ok(Some(fleet.ack())));
    assert_eq!(fleet.check_ack(&ack, T::at_unix_s(NOW_S + crate::burn::BURN_S)), Err(Refusal::TimeOutside));
}

#[test]
fn rule_04_a_full_burn_table_passes_only_what_a_pending_entry_proves_fresh() {
    let fleet = fleet();
    let full = BurnTable::new(0);
    let check = |ack: &ArrivingAck| verify_ack(&fleet.server_node, &fleet.server, ack, &full, NOW, NOW_S).map(|_| ());
    let ack = arriving_ack(Ok(Some(fleet.ack())));
    assert_eq!(check(&ack), Ok(()));
    assert_eq!(check(&ArrivingAck { pending: None, ..ack }), Err(Refusal::BurnFull));
    assert_eq!(check(&ArrivingAck { cookie: true, ..ack }), Err(Refusal::BurnFull));
}

// ---- rules 5 and 6

#[test]
fn rule_05_a_syn_with_data_is_dropped_labelled_or_not() {
    let fleet = fleet();
    for option in [Ok(None), Ok(Some(fleet.syn()))] {
        let syn = ArrivingSyn { carries_data: true, ..arriving_syn(option) };
        assert_eq!(fleet.check_syn(&syn, NOW), Err(Refusal::DataBeforeProof));
    }
}

#[test]
fn rule_06_a_syn_at_a_calling_socket_is_refused() {
    let fleet = fleet();
    let syn = ArrivingSyn { at_syn_sent: true, ..arriving_syn(Ok(Some(fleet.syn()))) };
    assert_eq!(fleet.check_syn(&syn, NOW), Err(Refusal::SimultaneousOpen));
}

// ---- rule 7

#[test]
fn rule_07_a_malformed_option_is_labelled_and_bad() {
    let fleet = fleet();
    let mut bytes = fleet.syn().to_bytes();
    bytes[4] |= 0xC0;
    assert_eq!(fleet.check_syn(&arriving_syn(find(&bytes)), NOW), Err(Refusal::OptionMalformed));
    assert_eq!(fleet.check_syn(&arriving_syn(find(&[2, 0])), NOW), Err(Refusal::OptionMalformed));
    assert_eq!(fleet.check_syn(&arriving_syn(Ok(Some(fleet.ack()))), NOW), Err(Refusal::OptionMalformed));
}

// ---- rule 11: unknown is not denied

#[test]
fn rule_11_unknown_keys_and_peers_are_silent_and_pulled() {
    let mut fleet = fleet();
    let (syn, syn_ack, ack) = (fleet.syn(), fleet.syn_ack(), fleet.ack());
    let instance = fleet.server_node.instances.remove(&fleet.client.at).expect("known");
    assert_eq!(fleet.check_syn(&arriving_syn(Ok(Some(syn))), NOW), Err(Refusal::PeerUnknown));
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Err(Refusal::PeerUnknown));
    fleet.server_node.instances.insert(fleet.client.at, instance);
    fleet.server_node.pairs.remove(&(node(1), Generation::default(), Generation::default()));
    let claim = fleet.claim();
    let answered = answer(&fleet.server_node, &fleet.server, &claim, ISNS.server, NOW);
    assert_eq!(answered, Err(Refusal::KeyUnknown));
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Err(Refusal::KeyUnknown));
    fleet.server_node.fleet_keys[0] = None;
    assert_eq!(fleet.check_syn(&arriving_syn(Ok(Some(syn))), NOW), Err(Refusal::KeyUnknown));
    fleet.client_node.instances.remove(&fleet.server.at);
    assert_eq!(fleet.check_syn_ack(&arriving_syn_ack(Ok(Some(syn_ack))), NOW), Err(Refusal::PeerUnknown));
    for unknown in [Refusal::PeerUnknown, Refusal::KeyUnknown, Refusal::PairMacBad] {
        assert_eq!(unknown.reaction(), Reaction::Pull);
    }
}

// ---- rule 12

#[test]
fn rule_12_a_reused_slot_never_authenticates_against_a_stale_table() {
    let mut fleet = fleet();
    let (syn_ack, ack) = (fleet.syn_ack(), fleet.ack());
    fleet.server_node.instances.insert(fleet.client.at, Instance(999));
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Err(Refusal::PairMacBad));
    fleet.client.instance = Instance(998);
    assert_eq!(fleet.check_syn_ack(&arriving_syn_ack(Ok(Some(syn_ack))), NOW), Err(Refusal::PairMacBad));
}

// ---- captured nodes

#[test]
fn a_captured_node_cannot_speak_for_another_nodes_slot() {
    let fleet = fleet();
    let thief = Local { at: fleet.client.at, instance: fleet.client.instance, flags: Flags::CAN_TLS };
    // Its SYN passes, because every node holds the fleet key; the SYN-ACK and the ACK need the pair key of nodes 1 and 2.
    let syn = call(&fleet.third_node, &thief, ISNS.client, NOW).expect("fleet key");
    assert_eq!(fleet.check_syn(&arriving_syn(Ok(Some(syn))), NOW), Ok(true));
    for pair in [node(1), node(2), node(3)] {
        let mut fields = fleet.ack().fields;
        fields.from = thief.at;
        let ends = Ends { to: fleet.server.at, from_instance: thief.instance, to_instance: fleet.server.instance };
        let keys = &fleet.third_node.pairs[&(pair, Generation::default(), Generation::default())];
        let ack = fields.sealed(keys.send.tag(&pair_input(&fields, ISNS, NOW, &ends)));
        assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Err(Refusal::PairMacBad));
    }
}

#[test]
fn a_message_for_one_workload_is_worthless_at_its_neighbour() {
    let mut fleet = fleet();
    let ack = fleet.ack();
    fleet.server.at = at(2, 21);
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Err(Refusal::PairMacBad));
    fleet.server.at = at(2, 20);
    let syn_ack = fleet.syn_ack();
    fleet.client.at = at(1, 11);
    assert_eq!(fleet.check_syn_ack(&arriving_syn_ack(Ok(Some(syn_ack))), NOW), Err(Refusal::PairMacBad));
}

#[test]
fn reflected_messages_are_refused() {
    let fleet = fleet();
    // The client's own ACK, sent back to it with the type of a SYN-ACK, as from the server.
    let mut fields = fleet.ack().fields;
    fields.message = Message::SynAck;
    fields.from = fleet.server.at;
    let reflected = fields.sealed(fleet.ack().tag);
    assert_eq!(fleet.check_syn_ack(&arriving_syn_ack(Ok(Some(reflected))), NOW), Err(Refusal::PairMacBad));
    // Under the receiver's own sending key, for what it would have to receive: the wrong direction.
    let fields = fleet.ack().fields;
    let keys = &fleet.server_node.pairs[&(node(1), Generation::default(), Generation::default())];
    let ends = Ends { to: fleet.server.at, from_instance: fleet.client.instance, to_instance: fleet.server.instance };
    let wrong_way = fields.sealed(keys.send.tag(&pair_input(&fields, ISNS, NOW, &ends)));
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(wrong_way))), NOW), Err(Refusal::PairMacBad));
}

#[test]
fn t_is_held_for_one_step_either_way() {
    let fleet = fleet();
    for (distance, expect) in
        [(-2i64, false), (-1, true), (0, true), (1, true), (2, false), (256, false), (-256, false)]
    {
        let now = T(NOW.0.checked_add_signed(distance).expect("in range"));
        assert_eq!(fleet.check_syn(&arriving_syn(Ok(Some(fleet.syn()))), now).is_ok(), expect, "SYN {distance}");
        let syn_ack = fleet.check_syn_ack(&arriving_syn_ack(Ok(Some(fleet.syn_ack()))), now);
        assert_eq!(syn_ack.is_ok(), expect, "SYN-ACK {distance}");
        let ack = fleet.check_ack(&arriving_ack(Ok(Some(fleet.ack()))), now);
        assert_eq!(ack.is_ok(), expect, "ACK {distance}");
        if distance.abs() == 256 {
            assert_eq!(ack, Err(Refusal::PairMacBad), "the same eight bits, another T under the MAC");
        }
    }
}

fn flipped(option: IdentityOption, bit: usize) -> Found {
    let mut bytes: [u8; LENGTH] = option.to_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    find(&bytes)
}

#[test]
fn any_flipped_bit_of_any_option_is_refused_or_makes_it_foreign() {
    let fleet = fleet();
    for bit in 0..LENGTH * 8 {
        // A flip in kind, length or experiment id leaves no option of ours: unlabelled, which proves nothing.
        let syn = fleet.check_syn(&arriving_syn(flipped(fleet.syn(), bit)), NOW);
        assert_ne!(syn, Ok(true), "SYN bit {bit}");
        assert!(bit < 32 || syn.is_err(), "SYN bit {bit}");
        assert!(
            fleet.check_syn_ack(&arriving_syn_ack(flipped(fleet.syn_ack(), bit)), NOW).is_err(),
            "SYN-ACK bit {bit}"
        );
        assert!(fleet.check_ack(&arriving_ack(flipped(fleet.ack(), bit)), NOW).is_err(), "ACK bit {bit}");
    }
}

proptest! {
    #[test]
    fn any_change_of_what_the_mac_covers_is_refused(
        client_flip in any::<u32>(), server_flip in any::<u32>(), u_client in any::<u64>(), u_server in any::<u64>(),
    ) {
        let mut fleet = fleet();
        let (syn, syn_ack, ack) = (fleet.syn(), fleet.syn_ack(), fleet.ack());
        let isns = Isns { client: ISNS.client ^ client_flip, server: ISNS.server ^ server_flip };
        if client_flip != 0 {
            let syn = ArrivingSyn { isn: isns.client, ..arriving_syn(Ok(Some(syn))) };
            prop_assert_eq!(fleet.check_syn(&syn, NOW), Err(Refusal::FleetMacBad));
        }
        if isns != ISNS {
            let forged = ArrivingSynAck { isns, ..arriving_syn_ack(Ok(Some(syn_ack))) };
            prop_assert_eq!(fleet.check_syn_ack(&forged, NOW), Err(Refusal::PairMacBad));
            let forged = ArrivingAck { isns, pending: None, ..arriving_ack(Ok(Some(ack))) };
            prop_assert_eq!(fleet.check_ack(&forged, NOW), Err(Refusal::PairMacBad));
        }
        if (u_client, u_server) != (110, 220) {
            fleet.server_node.instances.insert(fleet.client.at, Instance(u_client));
            fleet.server.instance = Instance(u_server);
            prop_assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Err(Refusal::PairMacBad));
        }
    }

    #[test]
    fn random_tags_are_refused(tag in any::<[u8; 8]>()) {
        let fleet = fleet();
        let forged = |option: IdentityOption| Ok(Some(option.fields.sealed(Tag(tag))));
        prop_assert!(fleet.check_syn(&arriving_syn(forged(fleet.syn())), NOW).is_err() || tag == fleet.syn().tag.0);
        prop_assert!(fleet.check_ack(&arriving_ack(forged(fleet.ack())), NOW).is_err() || tag == fleet.ack().tag.0);
    }
}

#[test]
fn generations_pick_the_key_and_travel_with_the_messages() {
    let mut fleet = fleet();
    let one = Generation::new(1).expect("in range");
    // Node 1 moves to its generation 1; node 2 keeps 0.
    let (new, old) =
        (NodeSecret::from_bytes(&[9; 32]).expect("32 bytes"), NodeSecret::from_bytes(&[2; 32]).expect("32"));
    let at_client = PairKeys::derive("acme", (node(1), &new), (node(2), &old.public())).expect("sound");
    let at_server = PairKeys::derive("acme", (node(2), &old), (node(1), &new.public())).expect("sound");
    fleet.client_node.pairs.insert((node(2), one, Generation::default()), at_client);
    fleet.client_node.own_generation = one;
    let answered = answer(&fleet.server_node, &fleet.server, &fleet.claim(), ISNS.server, NOW);
    assert_eq!(answered, Err(Refusal::KeyUnknown), "sent with before the server acknowledged it");
    fleet.server_node.pairs.insert((node(1), Generation::default(), one), at_server);
    let ack = fleet.ack();
    assert_eq!((ack.fields.own_generation, ack.fields.peer_generation), (one, Generation::default()));
    assert_eq!(fleet.check_ack(&arriving_ack(Ok(Some(ack))), NOW), Ok(fleet.client.at));
}
