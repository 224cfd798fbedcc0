//! Version skew from the first day: bytes of every message between server and agent, as they were first written.
//!
//! `golden/sync-v1.txt` has one line for each sample: its name and its bytes in hexadecimal. What an earlier version wrote
//! must mean the same to this one, and be written the same by it. A line is added by
//! `STOLOS_ACCEPT_GOLDEN=1 cargo test -p api --test golden`, and never changed: a message that gets a field gets a second
//! sample, and the first one stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use api::sync::agent_message::Message as FromAgent;
use api::sync::flow::Proof;
use api::sync::peer_side::PortOutcome;
use api::sync::place::Target;
use api::sync::server_message::Message as FromServer;
use api::sync::*;
use prost::Message;

const ACCEPT: &str = "STOLOS_ACCEPT_GOLDEN=1 cargo test -p api --test golden";
const PROTO: &str = include_str!("../../../proto/stolos/sync/v1/sync.proto");

/// What bytes mean, as text, and how this version writes that.
type Read = Result<(String, Vec<u8>), prost::DecodeError>;

/// A message as this version has it, and what it can do with bytes.
struct Sample {
    /// `Message.number`, or `Message.word`.
    name: &'static str,
    bytes: Vec<u8>,
    read: fn(&[u8]) -> Read,
    meaning: String,
}

fn sample<M: Message + Default + Debug>(name: &'static str, message: M) -> Sample {
    let read = |bytes: &[u8]| M::decode(bytes).map(|message| (format!("{message:?}"), message.encode_to_vec()));
    Sample { name, bytes: message.encode_to_vec(), read, meaning: format!("{message:?}") }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sync-v1.txt")
}

fn committed() -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let line = |line: &str| {
        let (name, hex) = line.split_once(' ').unwrap_or((line, ""));
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name.to_owned(), (0..hex.len()).step_by(2).map(byte).collect())
    };
    text.lines().map(line).collect()
}

#[test]
fn what_earlier_versions_wrote_means_the_same_and_is_written_the_same() {
    let samples = samples();
    let mut committed = committed();
    let fresh: Vec<&Sample> = samples.iter().filter(|s| !committed.contains_key(s.name)).collect();
    if std::env::var_os("STOLOS_ACCEPT_GOLDEN").is_some() {
        let bytes: Vec<(String, Vec<u8>)> = fresh.iter().map(|s| (s.name.to_owned(), s.bytes.clone())).collect();
        committed.extend(bytes);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text: String = committed.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
        std::fs::write(path(), text).expect("the golden file can be written");
    } else {
        let names: Vec<&str> = fresh.iter().map(|sample| sample.name).collect();
        assert!(names.is_empty(), "{names:?} have no golden bytes yet; accept new ones by: {ACCEPT}");
    }
    for (name, bytes) in &committed {
        let sample = samples.iter().find(|sample| sample.name == name);
        let sample =
            sample.unwrap_or_else(|| panic!("the sample {name} is gone; peers of earlier versions still say it"));
        let (meaning, written) = (sample.read)(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(meaning, sample.meaning, "{name} means something else now");
        assert_eq!(&written, bytes, "{name} is written in another way now");
    }
}

#[test]
fn fields_of_a_newer_peer_are_left_out_and_nothing_else_changes() {
    // Field 1999 as a varint and field 2000 with a length, which no version has.
    let mut unknown = Vec::new();
    prost::encoding::uint64::encode(1999, &7, &mut unknown);
    prost::encoding::string::encode(2000, &"from a newer version".to_owned(), &mut unknown);
    for sample in samples() {
        for bytes in [[&unknown[..], &sample.bytes].concat(), [&sample.bytes[..], &unknown].concat()] {
            let (meaning, written) = (sample.read)(&bytes).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
            assert_eq!((meaning, written), (sample.meaning.clone(), sample.bytes.clone()), "{}", sample.name);
        }
    }
    // A message that this version does not know at all is no error; whoever hears it hears nothing.
    assert_eq!(AgentMessage::decode(&unknown[..]).expect("decodes").message, None);
    assert_eq!(ServerMessage::decode(&unknown[..]).expect("decodes").message, None);
    // Nor is a word that a newer version has added to an enumeration.
    let flow = Flow { client: 99, ..Flow::default() };
    assert_eq!(Flow::decode(&flow.encode_to_vec()[..]).expect("decodes").client(), Proof::Unknown);
}

#[test]
fn every_field_of_every_message_has_golden_bytes() {
    let samples = samples();
    let mut missing = Vec::new();
    for (message, fields) in described() {
        let of_message = samples.iter().filter(|s| s.name.split('.').next() == Some(&message));
        let seen: BTreeSet<u32> = of_message.flat_map(|sample| tags(&sample.bytes)).collect();
        missing.extend(fields.difference(&seen).map(|field| format!("{message} = {field}")));
    }
    assert!(missing.is_empty(), "no sample has the fields {missing:?}: add one, then accept its bytes by: {ACCEPT}");
}

/// Messages of the proto file with the numbers of their fields; a nested one by its own name.
fn described() -> BTreeMap<String, BTreeSet<u32>> {
    let mut all: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut inside: Vec<Option<String>> = Vec::new();
    let code = PROTO.lines().map(|line| line.split("//").next().unwrap_or_default());
    // Braces and semicolons end statements, on one line or several.
    let code = code.collect::<Vec<_>>().join(" ").replace('{', "{\n").replace('}', "\n}\n").replace(';', ";\n");
    for statement in code.lines().map(str::trim) {
        if let Some(name) = statement.strip_suffix('{') {
            let message = name.trim().strip_prefix("message ").map(|name| name.trim().to_owned());
            all.extend(message.iter().map(|name| (name.clone(), BTreeSet::new())));
            // A oneof's fields are its message's; an enumeration's words are no fields.
            let outer = || inside.last().cloned().flatten().filter(|_| name.trim().starts_with("oneof "));
            let message = message.or_else(outer);
            inside.push(message);
        } else if statement == "}" {
            inside.pop();
        } else if let Some((_, number)) = statement.trim_end_matches(';').rsplit_once('=')
            && let Some(Some(message)) = inside.last()
        {
            let number = number.trim().parse().unwrap_or_else(|e| panic!("{statement}: {e}"));
            all.entry(message.clone()).or_default().insert(number);
        }
    }
    assert!(all.len() > 30 && all["Hello"].len() > 8, "the proto file is not read as it is written: {all:?}");
    all
}

/// Numbers of the fields in a message's bytes.
fn tags(mut bytes: &[u8]) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    while !bytes.is_empty() {
        let (tag, wire) = prost::encoding::decode_key(&mut bytes).expect("a key");
        prost::encoding::skip_field(wire, tag, &mut bytes, prost::encoding::DecodeContext::default()).expect("a field");
        found.insert(tag);
    }
    found
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn key() -> NodePublicKey {
    NodePublicKey { generation: 1, public: vec![2; 32], signature: vec![3; 64] }
}

fn seal() -> Seal {
    Seal { expires_unix_s: 1_900_000_000, digest: vec![4; 32], signature: vec![5; 64] }
}

fn object() -> Object {
    Object { key: "peer/17/3".into(), value: vec![8, 17] }
}

/// Every message with every field that it has.
fn samples() -> Vec<Sample> {
    [enrolment(), from_agent(), from_server(), objects()].into_iter().flatten().collect()
}

fn enrolment() -> Vec<Sample> {
    vec![
        sample(
            "EnrolRequest.1",
            EnrolRequest {
                token_secret: "secret".into(),
                csr_der: vec![0x30, 1],
                hostname: "n1.example.org".into(),
                handshake_key: Some(key()),
            },
        ),
        sample(
            "EnrolResponse.1",
            EnrolResponse {
                node_id: 17,
                node_name: "n1".into(),
                cluster: "eu-1".into(),
                trust_domain: "example.org".into(),
                certificate_der: vec![0x30, 2],
                authority_der: vec![vec![0x30, 3], vec![0x30, 4]],
                snapshot_verify_key: vec![6; 32],
                not_after_unix_s: 1_900_000_001,
            },
        ),
        sample("NodePublicKey.1", key()),
    ]
}

fn workload() -> LocalWorkload {
    LocalWorkload {
        uid: "0191a2b3-c4d5-7e6f-8091-a2b3c4d5e6f7".into(),
        name: "web".into(),
        r#type: "process".into(),
        relative_namespace: "shop".into(),
        labels: map(&[("app", "web"), ("tier", "front")]),
        observed: map(&[("@linux:exe", "/usr/sbin/nginx")]),
        own_addresses: texts(&["10.0.0.101", "fd00:a::65"]),
    }
}

fn flow() -> Flow {
    Flow {
        direction: "egress".into(),
        local: Some(PeerRef { node: 17, slot: 3 }),
        peer: Some(PeerRef { node: 18, slot: 65_535 }),
        peer_address: "192.168.77.22".into(),
        external: texts(&["/acme:stripe"]),
        protocol: 6,
        port: 6379,
        dialled_port: 16_379,
        client_isn: 0xdead_beef,
        verdict: "allow".into(),
        would: "deny".into(),
        reason: "default-deny".into(),
        policy: "/acme:web-to-db".into(),
        client: Proof::Proved.into(),
        count: 1,
        bytes_sent: 1 << 40,
        bytes_received: 5,
        first_unix_ms: 1_700_000_000_000,
        last_unix_ms: 1_700_000_000_500,
        closed: true,
    }
}

fn from_agent() -> Vec<Sample> {
    let hello = Hello {
        protocol: 1,
        agent_version: "0.1.0".into(),
        kernel_release: "6.18.0".into(),
        features: texts(&["connect-errno", "sock-destroy"]),
        boot_id: "0191a2b3-0000-4000-8000-000000000000".into(),
        have_revision: 41,
        handshake_key: Some(key()),
        node_addresses: texts(&["10.0.0.11"]),
        detached: true,
        process: "p1".into(),
    };
    let report = WorkloadReport { complete: true, upserted: vec![workload()], removed_uids: texts(&["gone"]) };
    let applied = Applied { revision: 42, took_ms: 7 };
    let rejected =
        Rejected { revision: 43, object: "policy//acme:x".into(), code: "K5001".into(), message: "full".into() };
    let pull = Pull { peers: vec![PeerRef { node: 9, slot: 1 }], node_keys: vec![9, 300] };
    let batch = FlowBatch { sequence: 5, flows: vec![flow()], sampled_out: 2 };
    let cut = Cut { revocation_uid: "r".into(), workload_uid: "w".into(), connections: 3, at_revision: 44 };
    let clock = Clock { agent_unix_ns: 1_700_000_000_000_000_000, echo: 6 };
    let alarm =
        AlarmRaised { code: "K5002".into(), object: "state".into(), message: "old".into(), ..Default::default() };
    let over = AlarmRaised { over: true, ..alarm.clone() };
    let said = |name, message| sample(name, AgentMessage { message: Some(message) });
    vec![
        said("AgentMessage.hello", FromAgent::Hello(hello.clone())),
        said("AgentMessage.workloads", FromAgent::Workloads(report.clone())),
        said("AgentMessage.applied", FromAgent::Applied(applied)),
        said("AgentMessage.rejected", FromAgent::Rejected(rejected.clone())),
        said("AgentMessage.pull", FromAgent::Pull(pull.clone())),
        said("AgentMessage.flows", FromAgent::Flows(batch.clone())),
        said("AgentMessage.cut", FromAgent::Cut(cut.clone())),
        said("AgentMessage.clock", FromAgent::Clock(clock)),
        said("AgentMessage.handshake_key", FromAgent::HandshakeKey(key())),
        said("AgentMessage.alarm", FromAgent::Alarm(alarm.clone())),
        sample("Hello.1", hello),
        sample("WorkloadReport.1", report),
        sample("LocalWorkload.1", workload()),
        sample("Applied.1", applied),
        sample("Rejected.1", rejected),
        sample("Pull.1", pull),
        sample("PeerRef.1", PeerRef { node: 16_777_215, slot: 65_535 }),
        sample("FlowBatch.1", batch),
        sample("Flow.1", flow()),
        sample("Cut.1", cut),
        sample("Clock.1", clock),
        sample("AlarmRaised.1", alarm),
        sample("AlarmRaised.over", over),
    ]
}

fn from_server() -> Vec<Sample> {
    let welcome = Welcome {
        node_id: 17,
        node_name: "n1".into(),
        cluster: "eu-1".into(),
        cluster_namespace: "/acme/eu-1".into(),
        region: "europe".into(),
        realm: "eu-1".into(),
        trust_domain: "example.org".into(),
        server_unix_ns: 1_700_000_000_000_000_001,
        tells_fleet: true,
    };
    let chunk = SnapshotChunk { revision: 42, index: 1, last: true, objects: vec![object()], seal: Some(seal()) };
    let delta = Delta {
        from_revision: 42,
        to_revision: 43,
        upserted: vec![object()],
        removed: texts(&["class/7"]),
        seal: Some(seal()),
    };
    let refused = WorkloadRefused { uid: "w".into(), code: "E4025".into(), message: "no".into() };
    let clock = ServerClock { server_unix_ns: 1_700_000_000_000_000_002, echo: 6 };
    let answer = PullAnswer { absent_peers: vec![PeerRef { node: 9, slot: 1 }], absent_nodes: vec![9], revision: 43 };
    let (rotate, stored, has) = (RotateKey { generation: 2 }, FlowsStored { sequence: 5 }, FleetHas { revision: 43 });
    let said = |name, message| sample(name, ServerMessage { message: Some(message) });
    vec![
        said("ServerMessage.welcome", FromServer::Welcome(welcome.clone())),
        said("ServerMessage.snapshot", FromServer::Snapshot(chunk.clone())),
        said("ServerMessage.delta", FromServer::Delta(delta.clone())),
        said("ServerMessage.refused", FromServer::Refused(refused.clone())),
        said("ServerMessage.clock", FromServer::Clock(clock)),
        said("ServerMessage.rotate_key", FromServer::RotateKey(rotate)),
        said("ServerMessage.pull_answer", FromServer::PullAnswer(answer.clone())),
        said("ServerMessage.flows_stored", FromServer::FlowsStored(stored)),
        said("ServerMessage.fleet_has", FromServer::FleetHas(has)),
        sample("Welcome.1", welcome),
        sample("SnapshotChunk.1", chunk),
        sample("Delta.1", delta),
        sample("Seal.1", seal()),
        sample("Object.1", object()),
        sample("WorkloadRefused.1", refused),
        sample("ServerClock.1", clock),
        sample("RotateKey.1", rotate),
        sample("FlowsStored.1", stored),
        sample("FleetHas.1", has),
        sample("PullAnswer.1", answer),
    ]
}

fn service() -> Service {
    Service {
        id: 2,
        namespace: "/acme/us-1".into(),
        name: "db".into(),
        members: vec![PeerRef { node: 18, slot: 4 }],
        external_endpoints: texts(&["203.0.113.5:443"]),
        claimed_udp_ports: vec![53, 123],
    }
}

fn posture() -> NamespacePosture {
    NamespacePosture {
        path: "/acme".into(),
        enforce: true,
        ingress_allow: true,
        egress_allow: true,
        encryption: "strict".into(),
        hold_on_agent_loss: true,
    }
}

fn objects() -> Vec<Sample> {
    let settings = Settings {
        node_id: 17,
        trust_domain: "example.org".into(),
        cluster: "eu-1".into(),
        cluster_namespace: "/acme/eu-1".into(),
        region: "europe".into(),
        realm: "eu-1".into(),
        identity_scope: texts(&["198.51.100.0/24"]),
        own_key_generation: 1,
    };
    let placed = PlacedWorkload {
        uid: "w".into(),
        slot: 3,
        instance: 0x0102_0304_0506_0708,
        class: 7,
        namespace: "/acme/eu-1".into(),
        name: "web".into(),
        revoked: true,
        revocation_uid: "r".into(),
    };
    let peer = Peer {
        node: 18,
        slot: 4,
        instance: u64::MAX,
        class: 8,
        name: "db".into(),
        namespace: "/acme/us-1".into(),
        node_name: "n2".into(),
        revoked: true,
        revocation_uid: "r".into(),
    };
    let outcome = PortOutcome { protocol: 6, first: 1, last: 1024, allow: true };
    let side = PeerSide { peer_class: 8, local_class: 7, peer_is_client: true, outcomes: vec![outcome] };
    let network = Network { namespace: "/acme".into(), name: "stripe".into(), cidrs: texts(&["203.0.113.0/24"]) };
    let place = |target| Place {
        address: vec![192, 168, 77, 22],
        protocol: 6,
        port: 16_379,
        target,
        real_port: 6379,
        declared_only: true,
    };
    vec![
        sample("Settings.1", settings),
        sample("PlacedWorkload.1", placed),
        sample("Peer.1", peer),
        sample("Class.1", Class { id: 7, attributes: map(&[("@cluster", "eu-1"), ("app", "web")]) }),
        sample("NamespacePosture.1", posture()),
        sample("Place.node", place(Some(Target::Node(17)))),
        sample("Place.workload", place(Some(Target::Workload(PeerRef { node: 17, slot: 3 })))),
        sample("Place.service", place(Some(Target::Service(2)))),
        sample("Place.declared", place(None)),
        sample("Service.1", service()),
        sample("Network.1", network),
        sample("FleetAddress.1", FleetAddress { cidr: "10.0.0.11/32".into() }),
        sample("PolicyObject.1", PolicyObject { json: b"{\"kind\":\"Policy\"}".to_vec() }),
        sample("PeerSide.1", side),
        sample("PortOutcome.1", outcome),
        sample("NodeKey.1", NodeKey { node: 18, generation: 1, public: vec![7; 32], send: true }),
        sample("FleetKey.1", FleetKey { generation: 1, key: vec![8; 16], send: true }),
    ]
}
