//! A protected client and server, and a captured node whose keys an attacker has: what attacks and rules are tried on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use datapath::state::State;
use datapath::{Datapath, Options};
use handshake::model::Local;
use handshake::option::{Flags, Message};
use handshake::segment::{Segment, TcpFlags};
use identity::ids::{Instance, WorkloadRef};
use policy::reason::Reason;
use testbed::attack::flood::Plan;
use testbed::attack::oracle::{Oracle, option_of, tables_of};
use testbed::attack::speak::Speaker;
use testbed::attack::tap::Tap;
use testbed::attack::{Attacker, Tally};
use testbed::fleet::{Fleet, TCP};
use testbed::node::{Node, Workload};
use testbed::peer::{Listener, Peer};
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// Long enough for an attack, short of the test's patience.
pub(crate) const GIVE_UP: Duration = Duration::from_millis(900);

/// Two protected nodes, a workload on each, and a third node, captured, with a pod from which the attacker sends.
pub(crate) struct Arena {
    pub(crate) run: Run,
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) captured: State,
    /// A workload of the captured node that may reach the server, too.
    pub(crate) spy: WorkloadRef,
    pub(crate) attacker: Attacker,
    pub(crate) attacker_pod: Workload,
}

/// One protected end.
pub(crate) struct End {
    pub(crate) node: Node,
    pub(crate) workload: Workload,
    pub(crate) peer: Peer,
    pub(crate) at: WorkloadRef,
    pub(crate) state: State,
    pub(crate) datapath: Datapath,
}

impl End {
    pub(crate) fn new(node: &Node, workload: Workload, at: WorkloadRef, state: State) -> Result<Self> {
        let options = Options::new(node.cgroup().path(), node.bpffs()?.join("attacks"));
        let mut datapath = Datapath::attach(options)?;
        datapath.apply(&state)?;
        let peer = workload.peer()?;
        Ok(Self { node: node.clone(), workload, peer, at, state, datapath })
    }

    pub(crate) fn refused(&self) -> BTreeMap<Reason, u64> {
        self.datapath.counters().refused
    }

    pub(crate) fn oracle(&self) -> Result<Oracle> {
        Oracle::of(&self.state, self.at)
    }

    /// Waits until the counters have moved by what was sent, and says how they differ when they never do.
    pub(crate) fn expect(&self, tally: &Tally, before: &BTreeMap<Reason, u64>) -> Result<()> {
        wait::until("the counters", LIMIT, || tally.compare(before, &self.refused()).ok())
            .or_else(|_| tally.compare(before, &self.refused()))
    }
}

impl Arena {
    pub(crate) fn build(name: &str) -> Result<Self> {
        let run = Run::start(name)?;
        let world = World::one_cluster(&run, 3)?;
        let [a, b, c] = &world.clusters[0].nodes[..] else { panic!("three nodes were asked for") };
        let (web, db, spy_workload) = (a.workload("web")?, b.workload("db")?, c.workload("spy")?);
        let attacker_pod = c.pod("attacker", 133)?;
        let mut fleet = Fleet::of(&world)?;
        let (web_at, db_at) = (fleet.add(a, &web, "web")?, fleet.add(b, &db, "db")?);
        let spy = fleet.add(c, &spy_workload, "web")?;
        fleet.allow("web", "db", TCP, 1..=u16::MAX);
        let client = End::new(a, web, web_at, fleet.state(a))?;
        let server = End::new(b, db, db_at, fleet.state(b))?;
        let captured = fleet.state(c);
        let attacker = Attacker::new(attacker_pod.place().netns())?;
        Ok(Self { run, client, server, captured, spy, attacker, attacker_pod })
    }

    pub(crate) fn families(&self) -> Vec<(IpAddr, IpAddr)> {
        let [client, server] = [&self.client, &self.server].map(|end| end.workload.addresses().both());
        client.into_iter().zip(server).collect()
    }

    /// Honest connections, listened in on: their SYNs, SYN-ACKs and ACKs, once each.
    pub(crate) fn capture(&self, to: SocketAddr, connections: usize) -> Result<BTreeMap<Message, Vec<Segment>>> {
        let tap = Tap::open(self.server.node.netns())?;
        for _ in 0..connections {
            self.client.peer.request(to, LIMIT)??;
        }
        wait::until("the captured handshakes", LIMIT, || {
            let mut messages: BTreeMap<Message, Vec<Segment>> = BTreeMap::new();
            for segment in tap.heard(|s| s.source == to || s.destination == to) {
                let Ok(option) = option_of(&segment) else { continue };
                let kept = messages.entry(option.fields.message).or_default();
                // Bridge and port are two interfaces; a repeated option is the same proof.
                if !kept.iter().any(|other| option_of(other).is_ok_and(|known| known == option)) {
                    kept.push(segment);
                }
            }
            let complete = |message| messages.get(&message).is_some_and(|kept| kept.len() >= connections);
            [Message::Syn, Message::SynAck, Message::Ack].into_iter().all(complete).then_some(messages)
        })
    }

    /// Other machines: some on the network, some far away.
    pub(crate) fn sources(&self, v6: bool) -> Vec<IpAddr> {
        let (near, far) = if v6 { ("fd00:a::", "2001:db8::") } else { ("10.0.0.", "203.0.113.") };
        let near = (201..=220).map(|host: u8| if v6 { format!("{near}{host:x}") } else { format!("{near}{host}") });
        let far = (1..=20).map(|host: u8| if v6 { format!("{far}{host:x}") } else { format!("{far}{host}") });
        near.chain(far).map(|text| text.parse().expect("address")).collect()
    }

    pub(crate) fn plan(&self, seed: u64, count: usize, v6: bool) -> Plan {
        Plan { seed, count, sources: self.sources(v6) }
    }

    /// A socket in SYN_SENT: a listener's port at which the server's firewall keeps silent. Gives its SYN.
    pub(crate) fn waiting_at(&self, to: SocketAddr) -> Result<(Segment, std::thread::JoinHandle<Result<bool>>)> {
        let tap = Tap::open(self.client.node.netns())?;
        let peer = self.client.peer.clone();
        let connecting = std::thread::spawn(move || Ok(peer.connect(to, GIVE_UP)?.is_ok()));
        let syn = tap.wait("the SYN", LIMIT, |s| s.flags == TcpFlags::SYN && s.destination == to)?;
        Ok((syn, connecting))
    }

    pub(crate) fn speaker(&self, says: WorkloadRef, instance: Instance) -> Result<Speaker> {
        Ok(Speaker { tables: tables_of(&self.captured)?, says: Local { at: says, instance, flags: Flags::NONE } })
    }

    pub(crate) fn instance(&self, of: WorkloadRef) -> Instance {
        let peer = self.captured.peers.iter().find(|peer| peer.at == of);
        peer.expect("every workload is in every state").instance
    }

    /// From the attacker's pod to the server's listener.
    pub(crate) fn pod_address(&self, to: SocketAddr, port: u16) -> SocketAddr {
        let own = self.attacker_pod.addresses().both();
        SocketAddr::new(own[usize::from(to.is_ipv6())], port)
    }
}

pub(crate) fn silence(node: &Node, port: u16) -> Result<()> {
    node.netns().nft(&format!(
        "table inet firewall {{\n chain in {{\n type filter hook input priority 0\n tcp dport {port} drop\n }}\n }}\n"
    ))
}

pub(crate) fn honest_only(listener: &Listener, client: IpAddr, honest: usize) -> Result<()> {
    let accepted = listener.accepted()?;
    assert!(accepted.iter().all(|from| from.ip() == client), "accepted from elsewhere: {accepted:?}");
    assert_eq!(accepted.len(), honest, "every accepted connection was asked for by the client");
    Ok(())
}
