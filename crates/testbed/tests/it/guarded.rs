//! Nodes with a datapath each, driven by a [`Fleet`] instead of agents and a server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use datapath::count::{Counters, Denial, Stage};
use datapath::event::Event;
use datapath::{Datapath, Options};
use policy::reason::Reason;
use testbed::fleet::Fleet;
use testbed::node::Node;

/// How long anything in these tests may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// How long a refusal without a reset is waited for.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// Datapaths by node name.
pub(crate) struct Guarded(BTreeMap<String, Datapath>);

impl Guarded {
    /// Attaches a datapath to every node and applies the fleet's state.
    pub(crate) fn attach<'n>(nodes: impl IntoIterator<Item = &'n Node>, fleet: &Fleet) -> Result<Self> {
        let mut guarded = Self(BTreeMap::new());
        for node in nodes {
            let mut datapath = Datapath::attach(Options::new(node.cgroup().path(), node.bpffs()?))?;
            datapath.apply(&fleet.state(node))?;
            guarded.0.insert(node.name().to_owned(), datapath);
        }
        Ok(guarded)
    }

    /// Applies the fleet's state of each node again.
    pub(crate) fn apply<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>, fleet: &Fleet) -> Result<()> {
        for node in nodes {
            self.of(node)?.apply(&fleet.state(node))?;
        }
        Ok(())
    }

    pub(crate) fn of(&mut self, node: &Node) -> Result<&mut Datapath> {
        self.0.get_mut(node.name()).context("BUG: a node without datapath")
    }

    pub(crate) fn counters(&mut self, node: &Node) -> Result<Counters> {
        Ok(self.of(node)?.counters())
    }

    pub(crate) fn stage(&mut self, node: &Node, stage: Stage) -> Result<u64> {
        Ok(self.counters(node)?.stage(stage))
    }

    pub(crate) fn refused(&mut self, node: &Node, reason: Reason) -> Result<u64> {
        Ok(self.counters(node)?.refused(reason))
    }

    pub(crate) fn denials(&mut self, node: &Node) -> Result<Vec<Denial>> {
        Ok(self.of(node)?.denials().cells)
    }

    /// Every record there is now.
    pub(crate) fn events(&mut self, node: &Node) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        self.of(node)?.poll_events(Duration::ZERO, |event| events.push(event))?;
        Ok(events)
    }
}
