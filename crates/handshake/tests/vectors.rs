//! Byte vectors of every message: generated here from fixed inputs and compared with the two committed copies,
//! `vectors.json` (read by the eBPF programs' tests) and the table in `docs/wire.md`.
//!
//! `STOLOS_GOLDEN=accept cargo test -p handshake --test vectors` rewrites both.

use std::net::SocketAddr;
use std::path::PathBuf;

use handshake::burn::BurnTable;
use handshake::key::{NodeSecret, PairKeys};
use handshake::mac::{Ends, Isns, MacKey, PAIR_INPUT, pair_input, syn_input};
use handshake::model::{self, ArrivingAck, ArrivingSyn, ArrivingSynAck, Found, Local, Tables};
use handshake::option::{Flags, Generation, IdentityOption, LENGTH, OptionError, find};
use handshake::place::Target;
use handshake::time::T;
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use serde_json::{Value, json};

const TRUST_DOMAIN: &str = "fleet.example";
const FLEET_KEY: [u8; 16] = *b"fleet-key-gen-3!";
const LOCAL_KEY: [u8; 16] = *b"a local node key";
/// 2030-01-01 00:00:00 UTC.
const UNIX_S: u64 = 1_893_456_000;
const ISNS: Isns = Isns { client: 0xC1C2_C3C4, server: 0x5152_5354 };
const DIALLED: &str = "10.0.0.2:5432";

fn node(value: u32) -> NodeId {
    NodeId::new(value).expect("in range")
}

fn generation(value: u8) -> Generation {
    Generation::new(value).expect("in range")
}

/// The client's node (higher id, generation 1) and the server's (lower id, generation 2).
struct Pair {
    client: Local,
    server: Local,
    client_tables: Tables,
    server_tables: Tables,
}

fn secret(seed: u8) -> NodeSecret {
    let bytes: [u8; 32] = std::array::from_fn(|i| seed.wrapping_add(i as u8));
    NodeSecret::from_bytes(&bytes).expect("any 32 bytes are a secret")
}

const CLIENT: (u32, u16, u64, u8) = (0xA0_B0C0, 0x0D0E, 0x1112_1314_1516_1718, 0x40);
const SERVER: (u32, u16, u64, u8) = (0x00_0102, 0x0304, 0x2122_2324_2526_2728, 0x80);

fn local((node_id, slot, u, _): (u32, u16, u64, u8), flags: Flags) -> Local {
    Local { at: WorkloadRef { node: node(node_id), slot: Slot(slot) }, instance: Instance(u), flags }
}

fn pair() -> Pair {
    let client = local(CLIENT, Flags::CAN_TLS);
    let server = local(SERVER, Flags::CAN_TLS.union(Flags::WANTS_TLS));
    let tables = |own: (u32, u16, u64, u8), peer: (u32, u16, u64, u8), own_generation, peer_generation| {
        let mut tables =
            Tables { fleet_generation: generation(3), own_generation: generation(own_generation), ..Tables::default() };
        tables.fleet_keys[3] = Some(MacKey::new(FLEET_KEY));
        let keys =
            PairKeys::derive(TRUST_DOMAIN, (node(own.0), &secret(own.3)), (node(peer.0), &secret(peer.3).public()));
        let at = (node(peer.0), generation(own_generation), generation(peer_generation));
        tables.pairs.insert(at, keys.expect("sound keys"));
        for workload in [client, server] {
            tables.instances.insert(workload.at, workload.instance);
        }
        let dialled: SocketAddr = DIALLED.parse().expect("address");
        tables.places.declare(dialled.ip(), None, Target::Node(server.at.node));
        tables
    };
    Pair { client, server, client_tables: tables(CLIENT, SERVER, 1, 2), server_tables: tables(SERVER, CLIENT, 2, 1) }
}

struct Messages {
    syn: IdentityOption,
    syn_ack: IdentityOption,
    ack: IdentityOption,
}

fn arriving_syn(option: Found) -> ArrivingSyn {
    let source = "203.0.113.1".parse().expect("address");
    ArrivingSyn { option, isn: ISNS.client, source, carries_data: false, at_syn_sent: false }
}

fn arriving_syn_ack(option: Found) -> ArrivingSynAck {
    ArrivingSynAck { option, isns: ISNS, dialled: DIALLED.parse().expect("address") }
}

fn arriving_ack(option: Found) -> ArrivingAck {
    ArrivingAck { option, isns: ISNS, pending: None, cookie: false }
}

fn messages(pair: &Pair, now: T) -> Messages {
    let syn = model::call(&pair.client_tables, &pair.client, ISNS.client, now).expect("fleet key");
    let claim = model::verify_syn(&pair.server_tables, &arriving_syn(Ok(Some(syn))), now).expect("verifies");
    let claim = claim.expect("labelled");
    let syn_ack = model::answer(&pair.server_tables, &pair.server, &claim, ISNS.server, now).expect("pair key");
    let peer = model::verify_syn_ack(&pair.client_tables, &pair.client, &arriving_syn_ack(Ok(Some(syn_ack))), now);
    let ack = model::confirm(&pair.client_tables, &pair.client, &peer.expect("verifies"), now).expect("pair key");
    Messages { syn, syn_ack, ack }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn pair_message(option: &IdentityOption, now: T, from: &Local, to: &Local, key: &MacKey) -> Value {
    let ends = Ends { to: to.at, from_instance: from.instance, to_instance: to.instance };
    let input: [u8; PAIR_INPUT] = pair_input(&option.fields, ISNS, now, &ends);
    json!({ "option": hex(&option.to_bytes()), "mac_input": hex(&input), "key": hex(key.as_bytes()) })
}

fn workload(local: &Local, seed: u8, own_generation: u8) -> Value {
    json!({
        "node": local.at.node.get(), "slot": local.at.slot.0, "instance": format!("{:016x}", local.instance.0),
        "flags": local.flags.get(), "generation": own_generation,
        "secret": hex(secret(seed).to_bytes().expect("bytes").as_slice()), "public": hex(&secret(seed).public().0),
    })
}

/// One change to one message, and what its receiver must say.
struct Case {
    name: &'static str,
    message: &'static str,
    bytes: Vec<u8>,
    isns: Isns,
    unix_s: u64,
    expect: String,
}

fn judge(pair: &Pair, message: &str, bytes: &[u8], isns: Isns, unix_s: u64) -> String {
    let (option, now) = (find(bytes), T::at_unix_s(unix_s));
    let outcome = match message {
        "syn" => {
            let syn = ArrivingSyn { isn: isns.client, ..arriving_syn(option) };
            model::verify_syn(&pair.server_tables, &syn, now).map(|claim| claim.is_some())
        }
        "syn_ack" => {
            let syn_ack = ArrivingSynAck { isns, ..arriving_syn_ack(option) };
            model::verify_syn_ack(&pair.client_tables, &pair.client, &syn_ack, now).map(|_| true)
        }
        _ => {
            let ack = ArrivingAck { isns, ..arriving_ack(option) };
            let burnt = BurnTable::new(8);
            model::verify_ack(&pair.server_tables, &pair.server, &ack, &burnt, now, unix_s).map(|_| true)
        }
    };
    match outcome {
        Ok(true) => "accept".into(),
        Ok(false) => "unlabelled".into(),
        Err(refusal) => refusal.to_string(),
    }
}

type Change = (&'static str, fn(&mut [u8; LENGTH], &mut Isns, &mut u64));

/// Changes that every message is put through.
const CHANGES: [Change; 17] = [
    ("as sent", |_, _, _| {}),
    ("one step of T later", |_, _, s| *s += 64),
    ("one step of T earlier", |_, _, s| *s -= 64),
    ("two steps of T later", |_, _, s| *s += 128),
    ("after 275 s", |_, _, s| *s += 275),
    ("256 steps of T later: the same T8", |_, _, s| *s += 256 * 64),
    ("first bit of the MAC", |b, _, _| b[12] ^= 0x80),
    ("last bit of the MAC", |b, _, _| b[19] ^= 1),
    ("another slot", |b, _, _| b[11] ^= 1),
    ("another node", |b, _, _| b[9] ^= 1),
    ("node 0", |b, _, _| b[7..10].fill(0)),
    ("other flags", |b, _, _| b[5] ^= 0b10),
    ("own generation + 1", |b, _, _| b[4] ^= 0b100),
    ("version 2", |b, _, _| b[4] ^= 0xC0),
    ("type 0", |b, _, _| b[4] &= 0xCF),
    ("another client number", |_, i, _| i.client += 1),
    ("another experiment", |b, _, _| b[3] ^= 1),
];

fn cases(pair: &Pair, messages: &Messages) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut put = |name, message, bytes: &[u8], isns, unix_s| {
        let expect = judge(pair, message, bytes, isns, unix_s);
        cases.push(Case { name, message, bytes: bytes.to_vec(), isns, unix_s, expect });
    };
    for (message, option) in [("syn", messages.syn), ("syn_ack", messages.syn_ack), ("ack", messages.ack)] {
        for (name, change) in CHANGES {
            let (mut bytes, mut isns, mut unix_s) = (option.to_bytes(), ISNS, UNIX_S);
            change(&mut bytes, &mut isns, &mut unix_s);
            put(name, message, &bytes, isns, unix_s);
        }
        let bytes = option.to_bytes();
        put("among other options", message, &[&[2, 4, 5, 0xB4, 1, 1], &bytes[..]].concat(), ISNS, UNIX_S);
        put("twice", message, &[bytes, bytes].concat(), ISNS, UNIX_S);
        put("length 19", message, &[&bytes[..1], &[19], &bytes[2..19]].concat(), ISNS, UNIX_S);
        put("length 4", message, &[253, 4, 0x53, 0x54], ISNS, UNIX_S);
        put("cut short", message, &bytes[..19], ISNS, UNIX_S);
        put("an option of length 0 before it", message, &[&[8, 0], &bytes[..]].concat(), ISNS, UNIX_S);
    }
    put("the SYN-ACK as an ACK", "ack", &messages.syn_ack.to_bytes(), ISNS, UNIX_S);
    put("the SYN as an ACK", "ack", &messages.syn.to_bytes(), ISNS, UNIX_S);
    let mut reflected = messages.ack.to_bytes();
    reflected[4] = reflected[4] & 0xCF | 0x20;
    put("the ACK reflected as a SYN-ACK", "syn_ack", &reflected, ISNS, UNIX_S);
    put("another server number", "ack", &messages.ack.to_bytes(), Isns { server: ISNS.server + 1, ..ISNS }, UNIX_S);
    cases
}

fn vectors() -> Value {
    let pair = pair();
    let now = T::at_unix_s(UNIX_S);
    let messages = messages(&pair, now);
    let keys = pair.client_tables.pairs.values().next().expect("one pair");
    let fleet_key = MacKey::new(FLEET_KEY);
    let syn = json!({
        "option": hex(&messages.syn.to_bytes()),
        "mac_input": hex(&syn_input(&messages.syn.fields, ISNS.client, now)),
        "key": hex(fleet_key.as_bytes()),
    });
    let cases: Vec<Value> = cases(&pair, &messages)
        .into_iter()
        .map(|case| {
            json!({
                "name": case.name, "message": case.message, "options": hex(&case.bytes), "unix_s": case.unix_s,
                "isn_client": case.isns.client, "isn_server": case.isns.server, "expect": case.expect,
            })
        })
        .collect();
    json!({
        "format": 1,
        "trust_domain": TRUST_DOMAIN,
        "unix_s": UNIX_S,
        "t": now.0,
        "isn_client": ISNS.client,
        "isn_server": ISNS.server,
        "dialled": DIALLED,
        "fleet": { "generation": 3, "key": hex(&FLEET_KEY) },
        "local_key": hex(&LOCAL_KEY),
        "client": workload(&pair.client, CLIENT.3, 1),
        "server": workload(&pair.server, SERVER.3, 2),
        "pair": { "client_to_server": hex(keys.send.as_bytes()), "server_to_client": hex(keys.receive.as_bytes()) },
        "messages": {
            "syn": syn,
            "syn_ack": pair_message(&messages.syn_ack, now, &pair.server, &pair.client, &keys.receive),
            "ack": pair_message(&messages.ack, now, &pair.client, &pair.server, &keys.send),
        },
        "siphash": (0..64u8).step_by(7).map(|length| {
            let key = MacKey::new(std::array::from_fn(|i| i as u8));
            let message: Vec<u8> = (0..length).collect();
            json!({ "message": hex(&message), "tag": hex(&key.tag(&message).0) })
        }).collect::<Vec<_>>(),
        "cases": cases,
    })
}

/// Hex in groups of four bytes, a line for each 16.
fn block(text: &str) -> String {
    let groups: Vec<&str> = (0..text.len()).step_by(8).map(|i| &text[i..(i + 8).min(text.len())]).collect();
    groups.chunks(4).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n    ")
}

fn table(vectors: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut page = format!(
        "Trust domain `{}`, T = {} (2030-01-01), ISN_c = `{:08x}`, ISN_s = `{:08x}`, fleet key generation 3:\n`{}`.\n\n",
        TRUST_DOMAIN,
        vectors["t"],
        ISNS.client,
        ISNS.server,
        hex(&FLEET_KEY)
    );
    page += "| | client | server |\n|---|---|---|\n";
    for field in ["node", "slot", "instance", "flags", "generation", "secret", "public"] {
        page +=
            &format!("| {field} | `{}` | `{}` |\n", text(&vectors["client"][field]), text(&vectors["server"][field]));
    }
    page += &format!(
        "| pair key for what it sends | `{}` | `{}` |\n",
        text(&vectors["pair"]["client_to_server"]),
        text(&vectors["pair"]["server_to_client"])
    );
    for (title, message) in [("SYN", "syn"), ("SYN-ACK", "syn_ack"), ("ACK", "ack")] {
        let message = &vectors["messages"][message];
        page += &format!("\n{title}, option:\n\n    {}\n", block(&text(&message["option"])));
        page += &format!("\n{title}, under the MAC:\n\n    {}\n", block(&text(&message["mac_input"])));
    }
    page += "\nWhat the receiver says to changed messages (the bytes are in `vectors.json`):\n\n";
    page += "| change | SYN | SYN-ACK | ACK |\n|---|---|---|---|\n";
    let cases = vectors["cases"].as_array().expect("cases");
    let mut names: Vec<&str> = Vec::new();
    for case in cases {
        let name = case["name"].as_str().expect("name");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let said = |message: &str| {
            let case = cases.iter().find(|case| case["name"] == name && case["message"] == message);
            case.map_or(String::new(), |case| text(&case["expect"]))
        };
        page += &format!("| {name} | {} | {} | {} |\n", said("syn"), said("syn_ack"), said("ack"));
    }
    page
}

const BEGIN: &str = "<!-- generated by crates/handshake/tests/vectors.rs: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

fn golden(path: &str, now: String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("STOLOS_GOLDEN").is_some_and(|v| v == "accept") {
        std::fs::write(&path, &now).expect("writable");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "{} is stale; run: STOLOS_GOLDEN=accept cargo test -p handshake --test vectors",
        path.display()
    );
}

#[test]
fn vectors_are_those_committed() {
    golden("vectors.json", serde_json::to_string_pretty(&vectors()).expect("JSON") + "\n");
}

#[test]
fn the_page_shows_the_vectors() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire.md");
    let page = std::fs::read_to_string(path).expect("docs/wire.md");
    let (before, rest) = page.split_once(BEGIN).expect("begin mark");
    let (_, after) = rest.split_once(END).expect("end mark");
    golden("../../docs/wire.md", format!("{before}{BEGIN}\n{}\n{END}{after}", table(&vectors())));
}

#[test]
fn every_case_but_the_honest_ones_is_refused() {
    let pair = pair();
    let messages = messages(&pair, T::at_unix_s(UNIX_S));
    let honest = ["as sent", "one step of T later", "one step of T earlier", "among other options"];
    for case in cases(&pair, &messages) {
        assert_eq!(case.expect == "accept", honest.contains(&case.name), "{} {}", case.message, case.name);
    }
}

#[test]
fn a_foreign_experiment_is_not_ours() {
    assert_eq!(IdentityOption::parse(&[253, 4, 1, 2]), Err(OptionError::Foreign));
}
