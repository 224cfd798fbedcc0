//! The datapath as a contender: attached and detached on both nodes for each of its turns.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use datapath::state::{Place, PlaceTarget, State};
use datapath::{Datapath, Options};

use crate::fleet::{Fleet, TCP};
use crate::node::{Node, Workload};
use crate::world::World;

/// States of both nodes, and their datapaths while it is our turn.
pub(super) struct Ours {
    states: [State; 2],
    attached: Vec<Datapath>,
}

impl Ours {
    /// One rule: the caller may reach the service. Both nodes also answer at the addresses of the veth pair that joins them.
    pub(super) fn plan(
        world: &World,
        nodes: [&Node; 2],
        [caller, service]: [&Workload; 2],
        addresses: &[IpAddr; 2],
    ) -> Result<Self> {
        let mut fleet = Fleet::of(world)?;
        fleet.add(nodes[0], caller, "caller")?;
        fleet.add(nodes[1], service, "service")?;
        fleet.allow("caller", "service", TCP, 1..=u16::MAX);
        let states = nodes.map(|node| {
            let mut state = fleet.state(node);
            state.places.extend(nodes.iter().zip(addresses).map(|(node, address)| Place {
                address: *address,
                port: None,
                target: PlaceTarget::Node(fleet.node(node)),
                real_port: None,
                claimed_udp: false,
            }));
            state
        });
        Ok(Self { states, attached: Vec::new() })
    }

    pub(super) fn attach(&mut self, nodes: [&Node; 2]) -> Result<()> {
        for (node, state) in nodes.into_iter().zip(&self.states) {
            let pin = node.bpffs()?.join("bench");
            let options = Options::new(node.cgroup().path(), pin);
            let mut datapath = Datapath::attach(options).with_context(|| format!("on {}", node.name()))?;
            datapath.apply(state)?;
            self.attached.push(datapath);
        }
        Ok(())
    }

    pub(super) fn detach(&mut self) -> Result<()> {
        for datapath in self.attached.drain(..) {
            datapath.detach()?;
        }
        Ok(())
    }
}
