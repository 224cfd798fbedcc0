//! A class that changes never refuses, in between, what both the state before and the state after allow.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use datapath::state::{ClassId, Peer, State};
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use policy::reason::Reason;
use testbed::bench::load::{Slice, Work};
use testbed::fleet::{Fleet, TCP};
use testbed::process::Program;
use testbed::run::Run;
use testbed::world::World;

use crate::guarded::Guarded;

const CROWD: u16 = 20_000;

#[test]
fn whoever_is_relabelled_is_never_refused_in_between() -> Result<()> {
    let load = env!("CARGO_BIN_EXE_bench-load");
    let run = Run::start("relabel")?;
    let world = World::one_cluster(&run, 2)?;
    let [first, second] = &world.clusters[0].nodes[..] else { anyhow::bail!("BUG: two nodes") };
    let (caller, service) = (first.workload("caller")?, second.workload("service")?);
    let mut fleet = Fleet::of(&world)?;
    fleet.add(first, &caller, "before")?;
    fleet.add(second, &service, "service")?;
    fleet.allow("before", "service", TCP, 1..=u16::MAX);
    let mut guarded = Guarded::attach([first, second], &fleet)?;
    let mut before = fleet.state(second);
    before.peers.extend(crowd());
    let after = relabelled(&before);
    let to = SocketAddr::new(second.addresses().v4.into(), 7000);
    let server = service.start(Program::new(load).named("serve").args(["serve", &to.to_string(), "1"]))?;
    server.wait_for_log("ready", Duration::from_secs(10))?;
    let duration = Duration::from_secs(3);
    let slice = Slice { work: Work::Connect, to, duration, threads: 1, core: None, every: None };
    let slice = serde_json::to_string(&slice)?;
    let drive = caller.start(Program::new(load).named("drive").args(["drive", &slice]))?;
    let mut applied = 0;
    while drive.status().is_none() {
        let state = if applied % 2 == 0 { &after } else { &before };
        guarded.of(second)?.apply(state)?;
        applied += 1;
    }
    let refused = guarded.refused(second, Reason::DefaultDeny)?;
    eprintln!("{applied} states, {refused} refused; {}", drive.log_text());
    assert_eq!(refused, 0, "of connections that each state allows, over {applied} states");
    run.finish()
}

/// Peers that are relabelled as well, written after the caller: they make the moment between its entry and the flip long.
fn crowd() -> impl Iterator<Item = Peer> {
    let node = NodeId::new(1000).expect("BUG: 1000 is a node");
    (0..CROWD).map(move |slot| Peer {
        at: WorkloadRef { node, slot: Slot(slot) },
        instance: Instance(u64::from(slot) + 1),
        class: ClassId(7),
        revoked: false,
    })
}

/// The same verdicts, and other classes for every peer and for every workload of the node.
fn relabelled(before: &State) -> State {
    let mut after = before.clone();
    let renamed = |class: ClassId| if class == ClassId::ANY { class } else { ClassId(class.0 + 70) };
    after.peers.iter_mut().for_each(|peer| peer.class = renamed(peer.class));
    after.workloads.iter_mut().for_each(|workload| workload.class = renamed(workload.class));
    for pair in &mut after.verdicts {
        (pair.local, pair.peer) = (renamed(pair.local), renamed(pair.peer));
    }
    after
}
