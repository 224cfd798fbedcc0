use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use api::sync::{self, SnapshotChunk, agent_message, server_message};
use datapath::event::{Event, Kind, Local, Peer, Proof};
use datapath::state::{ClassId, Direction, State, Verdict};
use identity::authority::NodeRequest;
use identity::ids::{NodeId, Slot, WorkloadRef};
use identity::seal::{SealKey, digest};
use policy::reason::Reason;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Source;
use crate::enforce::Command;
use crate::sync::credential::{Enrolled, load_ring, make_key};
use crate::workload::tests::fake_cgroup;

/// A node whose kernel is the test, and a server that is the test, too.
struct Fixture {
    dir: tempfile::TempDir,
    key: SealKey,
    objects: std::collections::BTreeMap<String, Vec<u8>>,
    revision: u64,
}

struct Running {
    node: Node,
    commands: Receiver<Command>,
    said: mpsc::Receiver<AgentMessage>,
}

const NODE: u32 = 1;

impl Fixture {
    fn new() -> Self {
        let (key, _) = SealKey::generate().expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("cgroup")).expect("made");
        let mut fixture = Self { dir, key, objects: Default::default(), revision: 1 };
        let settings = sync::Settings {
            node_id: NODE,
            trust_domain: "t".into(),
            cluster_namespace: "/a".into(),
            ..Default::default()
        };
        fixture.put("settings", settings);
        fixture.class(1, &[("@namespace", "/a"), ("app", "web")]);
        fixture.put("peer/2/5", sync::Peer { node: 2, slot: 5, class: 1, instance: 3, ..Default::default() });
        fixture
    }

    fn put(&mut self, key: &str, message: impl prost::Message) {
        self.objects.insert(key.to_owned(), prost::Message::encode_to_vec(&message));
    }

    fn class(&mut self, id: u32, pairs: &[(&str, &str)]) {
        let attributes = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.put(&format!("class/{id}"), sync::Class { id, attributes });
    }

    fn place(&mut self, uid: &str, slot: u32, class: u32, revocation: &str) {
        let revoked = !revocation.is_empty();
        let revocation_uid = revocation.to_owned();
        let (uid, namespace) = (uid.to_owned(), "/a".to_owned());
        let placed = sync::PlacedWorkload {
            uid: uid.clone(),
            slot,
            instance: 4,
            class,
            namespace,
            revoked,
            revocation_uid,
            ..Default::default()
        };
        self.put(&format!("workload/{uid}"), placed);
    }

    /// The present objects as one chunk of the next revision.
    fn snapshot(&mut self) -> server_message::Message {
        self.revision += 1;
        let sealed = digest(self.objects.iter().map(|(key, value)| (key.as_str(), value.as_slice())));
        let node = NodeId::new(NODE).expect("in range");
        let seal = self.key.seal(node, self.revision, "2030-01-01T00:00:00Z".parse().expect("a time"), sealed);
        let objects = self.objects.iter().map(|(k, v)| sync::Object { key: k.clone(), value: v.clone() }).collect();
        let (expires_unix_s, digest) = (seal.expires_unix_s, seal.digest.to_vec());
        let seal = Some(sync::Seal { expires_unix_s, digest, signature: seal.signature });
        server_message::Message::Snapshot(SnapshotChunk {
            revision: self.revision,
            index: 0,
            last: true,
            objects,
            seal,
        })
    }

    fn cgroup(&self, name: &str) -> PathBuf {
        fake_cgroup(&self.dir.path().join("cgroup"), name)
    }

    /// A start of the agent on the same disk, as after a restart.
    fn start(&self) -> Running {
        let disk = Disk::open(&self.dir.path().join("data")).expect("opened");
        let credential = Credential::load(&disk).expect("readable").unwrap_or_else(|| {
            let enrolled = Enrolled {
                node: NODE,
                name: "n1".into(),
                cluster: "c".into(),
                trust_domain: "t".into(),
                server: "https://s.example:7443".into(),
                seal_key: self.key.public(),
                not_after_unix_s: 2_000_000_000,
                certificate: vec![1],
                authorities: vec![vec![1]],
            };
            let key = NodeRequest::generate().expect("a key").key_pem;
            make_key(&disk, &mut load_ring(&disk).expect("made"), 0).expect("made");
            Credential::store(&disk, enrolled, key).expect("stored")
        });
        let mut config = Config::new(Source::Server { join_token: None });
        config.cgroup_root = self.dir.path().join("cgroup");
        let namespaces = Namespaces::new().expect("readable");
        let (enforcer, commands) = Enforcer::unattached();
        let mut node = Node {
            registry: Registry::open(&disk, &config.cgroup_root).expect("opened"),
            list: None,
            observer: Some(Observer::new(namespaces.own())),
            namespaces,
            watch: None,
            trust: credential.trust(),
            ring: load_ring(&disk).expect("read"),
            clock: Clock::new("boot".into(), None),
            numbering: Numbering::in_memory(),
            flows: Flows::default(),
            enforcer,
            held: None,
            floor: 0,
            view: watch::channel(Arc::new(View::default())).0,
            credential: Some(credential),
            config,
            disk,
            inner: Inner::new(),
        };
        node.begin_with_what_is_held().expect("begins");
        Running { node, commands, said: mpsc::channel(1).1 }
    }
}

impl Running {
    fn connect(&mut self) {
        let (outgoing, said) = mpsc::channel(64);
        self.said = said;
        self.node.on_server(FromServer::Up(Stream { outgoing, end: CancellationToken::new() }));
    }

    fn hear(&mut self, message: server_message::Message) {
        self.node.on_server(FromServer::Message(Box::new(sync::ServerMessage { message: Some(message) })));
        self.node.advance();
    }

    /// Everything said so far.
    fn said(&mut self) -> Vec<agent_message::Message> {
        std::iter::from_fn(|| self.said.try_recv().ok()).filter_map(|message| message.message).collect()
    }

    /// The state that waits for the kernel.
    fn state(&self) -> Option<Box<State>> {
        let apply = |command| match command {
            Command::Apply { state, .. } => Some(state),
            _ => None,
        };
        self.commands.try_iter().filter_map(apply).last()
    }

    fn live(&mut self) -> Box<State> {
        let state = self.state().expect("a state on its way");
        self.node.on_kernel(Report::Applied { revision: 0, took: Duration::from_millis(3) });
        self.node.on_kernel(Report::Swept(Vec::new()));
        self.node.advance();
        state
    }

    fn register(&mut self, name: &str, cgroup: PathBuf) -> String {
        let uid = uuid::Uuid::now_v7().to_string();
        let request = serde_json::from_value(serde_json::json!({"uid": uid, "name": name, "cgroup": cgroup}));
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        self.node.request(Request::Register(request.expect("a request"), answer));
        self.node.advance();
        answered.try_recv().expect("answered").expect("taken")
    }

    fn state_of(&self, uid: &str) -> (api::local::WorkloadState, Option<String>) {
        let found = self.node.current_view().workloads[uid].workload.clone();
        (found.state, found.reason)
    }
}

fn applied(said: &[agent_message::Message]) -> Vec<u64> {
    let one = |message: &agent_message::Message| match message {
        agent_message::Message::Applied(applied) => Some(applied.revision),
        _ => None,
    };
    said.iter().filter_map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn hello_comes_first_and_the_acknowledgement_only_when_live() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    let said = running.said();
    assert!(
        matches!(&said[0], agent_message::Message::Hello(hello) if hello.have_revision == 0 && hello.handshake_key.is_some())
    );
    assert!(
        matches!(&said[1], agent_message::Message::Workloads(report) if report.complete && report.upserted.len() == 1)
    );
    running.hear(fixture.snapshot());
    assert!(applied(&running.said()).is_empty(), "not live yet");
    running.live();
    assert_eq!(applied(&running.said()), [fixture.revision]);
    assert_eq!(running.node.current_view().revision, fixture.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_compiled_is_rejected_by_name_and_the_last_good_state_stays() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    running.hear(fixture.snapshot());
    running.live();
    running.said();
    let good = fixture.objects.clone();
    fixture.put("policy//a:x", sync::PolicyObject { json: b"{}".to_vec() });
    running.hear(fixture.snapshot());
    let said = running.said();
    let rejected = said.iter().find_map(|message| match message {
        agent_message::Message::Rejected(rejected) => Some(rejected),
        _ => None,
    });
    let rejected = rejected.expect("told");
    assert_eq!((rejected.object.as_str(), rejected.code.as_str()), ("policy//a:x", "K5013"));
    assert!(running.state().is_none() && applied(&said).is_empty());
    let alarmed = |running: &Running| running.node.current_view().alarms.iter().any(|alarm| alarm.code == "K5013");
    assert!(alarmed(&running));
    fixture.objects = good;
    running.hear(fixture.snapshot());
    running.live();
    assert_eq!(applied(&running.said()), [fixture.revision]);
    assert!(!alarmed(&running), "mended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_rejection_the_servers_delta_starts_from_what_is_live() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    running.hear(fixture.snapshot());
    running.live();
    let live = fixture.revision;
    fixture.put("policy//a:x", sync::PolicyObject { json: b"{}".to_vec() });
    running.hear(fixture.snapshot());
    fixture.objects.remove("policy//a:x");
    let server_message::Message::Snapshot(whole) = fixture.snapshot() else { panic!("a snapshot") };
    let delta =
        sync::Delta { from_revision: live, to_revision: whole.revision, seal: whole.seal, ..Default::default() };
    running.said();
    running.hear(server_message::Message::Delta(delta));
    running.live();
    assert_eq!(applied(&running.said()), [fixture.revision]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_map_is_told_and_the_next_state_is_tried() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    running.hear(fixture.snapshot());
    running.state().expect("on its way");
    running.node.on_kernel(Report::NotApplied { revision: 2, message: "5 peers wanted, room for 4".into() });
    let told =
        |message: &agent_message::Message| matches!(message, agent_message::Message::Rejected(r) if r.code == "K5012");
    assert!(running.said().iter().any(told));
    running.hear(fixture.snapshot());
    assert!(running.state().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_acknowledged_is_on_disk_before_an_agent_can_be_killed() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    let uid = running.register("web", fixture.cgroup("web"));
    for revocation in ["", "r", ""] {
        fixture.place(&uid, 1, 1, revocation);
        running.hear(fixture.snapshot());
        running.live();
        let acknowledged = applied(&running.said());
        let held = Held::load(&running.node.disk, &running.node.trust.expect("enrolled")).expect("readable");
        assert_eq!(acknowledged.last().copied(), held.map(|held| held.revision()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restart_enforces_without_a_server_and_a_new_workload_is_pending() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    let old = running.register("web", fixture.cgroup("web"));
    fixture.place(&old, 1, 1, "");
    running.hear(fixture.snapshot());
    running.live();
    running.node.save();
    let mut again = fixture.start();
    let state = again.live();
    assert!(state.workloads.iter().any(|workload| workload.slot == Some(Slot(1))), "known workloads are placed");
    assert_eq!(again.state_of(&old).0, api::local::WorkloadState::Active);
    let new = again.register("late", fixture.cgroup("late"));
    let state = again.live();
    assert!(state.workloads.iter().any(|workload| workload.slot.is_none() && !workload.host));
    let (standing, reason) = again.state_of(&new);
    assert_eq!(standing, api::local::WorkloadState::Pending);
    assert!(reason.expect("said").contains("server"), "the reason names what is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_workload_is_settled_when_the_fleet_has_its_placement() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    running.hear(server_message::Message::Welcome(sync::Welcome { tells_fleet: true, ..Default::default() }));
    let uid = running.register("web", fixture.cgroup("web"));
    fixture.place(&uid, 1, 1, "");
    running.hear(fixture.snapshot());
    let settled = |running: &Running| running.node.current_view().workloads[&uid].is_settled();
    assert!(!settled(&running));
    running.live();
    assert!(!settled(&running), "live here, and no peer knows it");
    let has = |revision| server_message::Message::FleetHas(sync::FleetHas { revision });
    running.hear(has(fixture.revision - 1));
    assert!(!settled(&running));
    running.hear(has(fixture.revision));
    assert!(settled(&running));
    // A later state in which it is placed as before asks for nothing new, another label does.
    running.hear(fixture.snapshot());
    assert!(settled(&running));
    fixture.class(2, &[("@namespace", "/a"), ("app", "db")]);
    fixture.place(&uid, 1, 2, "");
    running.hear(fixture.snapshot());
    running.live();
    assert!(!settled(&running), "peers do not know the new label yet");
    running.node.on_server(FromServer::Down("gone".into()));
    assert!(settled(&running), "without a server there is nobody to wait for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn labels_are_live_only_when_the_kernel_has_their_class() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    let uid = running.register("web", fixture.cgroup("web"));
    fixture.place(&uid, 1, 1, "");
    running.hear(fixture.snapshot());
    running.live();
    running.said();
    let change = serde_json::from_value(serde_json::json!({"set": {"app": "db"}})).expect("a change");
    let (answer, mut answered) = tokio::sync::oneshot::channel();
    running.node.request(Request::Label("web".into(), change, answer));
    assert_eq!(answered.try_recv().expect("answered"), Ok(uid.clone()));
    let reported = |message: &agent_message::Message| {
        matches!(message, agent_message::Message::Workloads(report)
        if report.upserted.iter().any(|w| w.labels.get("app").is_some_and(|value| value == "db")))
    };
    assert!(running.said().iter().any(reported));
    let live = |running: &Running| running.node.current_view().workloads[&uid].labels_live();
    fixture.class(2, &[("@namespace", "/a"), ("app", "db")]);
    fixture.place(&uid, 1, 2, "");
    running.hear(fixture.snapshot());
    assert!(!live(&running));
    running.live();
    assert!(live(&running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_revocation_is_confirmed_and_what_it_cuts_is_reported() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    let uid = running.register("web", fixture.cgroup("web"));
    fixture.place(&uid, 1, 1, "");
    running.hear(fixture.snapshot());
    running.live();
    fixture.place(&uid, 1, 1, "rev-1");
    running.hear(fixture.snapshot());
    running.said();
    running.live();
    let cuts = |said: Vec<agent_message::Message>| -> Vec<(String, u32)> {
        let one = |message| match message {
            agent_message::Message::Cut(cut) => Some((cut.revocation_uid, cut.connections)),
            _ => None,
        };
        said.into_iter().filter_map(one).collect()
    };
    assert_eq!(cuts(running.said()), [("rev-1".to_owned(), 0)], "confirmed");
    assert_eq!(running.state_of(&uid).0, api::local::WorkloadState::Revoked);
    let cut = Kind::Refused { would: false, reset: false, early: false, cut: true };
    let of = record(cut, Reason::Revoked);
    let swept = datapath::walk::Cut {
        local: of.local,
        direction: of.direction,
        peer: of.peer,
        proof: of.proof,
        reason: of.reason,
        rule: 0,
        local_address: of.local_address,
        remote_address: of.remote_address,
    };
    running.node.on_kernel(Report::Swept(vec![swept; 3]));
    assert_eq!(cuts(running.said()), [("rev-1".to_owned(), 3)]);
    running.node.on_kernel(Report::Records(vec![of; 2]));
    assert_eq!(cuts(running.said()), [("rev-1".to_owned(), 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_the_kernel_does_not_know_is_asked_for_once() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    running.hear(fixture.snapshot());
    running.said();
    let unknown = |reason| record(Kind::Unknown { generations: (0, 0) }, reason);
    let records = vec![unknown(Reason::PeerUnknown), unknown(Reason::PeerUnknown), unknown(Reason::KeyUnknown)];
    running.node.on_kernel(Report::Records(records.clone()));
    running.node.on_kernel(Report::Records(records));
    let pulls: Vec<_> = running.said().into_iter().filter(|m| matches!(m, agent_message::Message::Pull(_))).collect();
    assert!(
        matches!(&pulls[..], [agent_message::Message::Pull(pull)] if pull.peers.len() == 1 && pull.node_keys == [2])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_older_or_forged_state_is_refused_and_the_next_stream_starts_over() {
    let mut fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    running.hear(fixture.snapshot());
    running.live();
    fixture.revision = 0;
    running.said();
    running.hear(fixture.snapshot());
    assert!(running.said().iter().any(|m| matches!(m, agent_message::Message::Rejected(r) if r.code == "K5011")));
    assert!(running.node.inner.stream.is_none(), "ended");
    running.connect();
    assert!(matches!(&running.said()[0], agent_message::Message::Hello(hello) if hello.have_revision == 0));
    fixture.revision = 10;
    fixture.key = SealKey::generate().expect("another key").0;
    running.hear(fixture.snapshot());
    assert!(running.node.current_view().alarms.iter().any(|alarm| alarm.code == "K5010"));
    assert_eq!(running.node.current_view().revision, 2, "what is live stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rotated_key_is_sent_at_once_and_the_old_one_dies_with_its_object() {
    let mut fixture = Fixture::new();
    let own_key = |generation, send| sync::NodeKey { node: NODE, generation, public: vec![9; 32], send };
    fixture.put("node-key/1/0", own_key(0, true));
    let mut running = fixture.start();
    running.connect();
    running.hear(fixture.snapshot());
    running.live();
    running.said();
    running.hear(server_message::Message::RotateKey(sync::RotateKey { generation: 1 }));
    running.hear(server_message::Message::RotateKey(sync::RotateKey { generation: 1 }));
    let keys: Vec<_> = running
        .said()
        .into_iter()
        .filter_map(|message| match message {
            agent_message::Message::HandshakeKey(key) => Some(key.public),
            _ => None,
        })
        .collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "asked twice, the same key");
    assert_eq!(running.node.ring.secrets.len(), 2);
    fixture.objects.remove("node-key/1/0");
    fixture.put("node-key/1/1", own_key(1, true));
    let settings =
        sync::Settings { node_id: NODE, own_key_generation: 1, trust_domain: "t".into(), ..Default::default() };
    fixture.put("settings", settings);
    running.hear(fixture.snapshot());
    assert_eq!(running.node.ring.secrets.keys().copied().collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn taking_enforcement_off_is_alarmed_and_outlives_a_restart() {
    let fixture = Fixture::new();
    let mut running = fixture.start();
    running.connect();
    running.said();
    let (answer, mut answered) = tokio::sync::oneshot::channel();
    running.node.request(Request::Detach(api::local::Detach { for_s: Some(600) }, answer));
    assert_eq!(answered.try_recv().expect("answered"), Ok(()));
    assert!(running.commands.try_iter().any(|command| matches!(command, Command::Detach)));
    assert!(running.said().iter().any(|m| matches!(m, agent_message::Message::Alarm(alarm) if alarm.code == "K5027")));
    let kept: Detached = running.node.disk.read_json(DETACHED).expect("readable").expect("kept");
    let now = jiff::Timestamp::now().as_second();
    assert!(kept.holds(now) && !kept.holds(now + 601));
}

fn record(kind: Kind, reason: Reason) -> Event {
    let peer = WorkloadRef { node: NodeId::new(2).expect("in range"), slot: Slot(5) };
    Event {
        kind,
        boot_ns: 1,
        local: Local { slot: Some(Slot(1)), stamp: 1 },
        direction: Direction::Ingress,
        peer: Peer::Workload(peer),
        proof: Proof::Proved,
        class: ClassId(1),
        local_address: "10.0.0.1:80".parse().expect("an address"),
        remote_address: "10.0.0.2:4000".parse().expect("an address"),
        port: 80,
        protocol: 6,
        isn_client: 1,
        isn_server: 2,
        verdict: Verdict { allow: false, would_allow: false, reason: reason as u8, rule: 0 },
        reason: Some(reason),
        netns: 1,
    }
}
