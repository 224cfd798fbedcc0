//! Makes the kernel equal to a [`State`]: all of it, or nothing.
//!
//! Order: policy into fresh maps of the idle bank; additions in place, classes into that bank's cells; configuration; one store
//! that flips bank and epoch; removals. A failure before the flip takes the additions back and leaves the last good state live.

use std::collections::BTreeMap;

use libbpf_rs::MapCore;

use crate::abi;
use crate::assign::{Locals, LocalsFull};
use crate::attach::Datapath;
use crate::bank;
use crate::state::State;
use crate::tables::{Policy, StateError, Tables, key};
use crate::write::{Shape, Undo, WriteError, fill_bank, read_all, remove_absent, upsert};

/// Why a state is not live. The one before it still is.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The state contradicts itself or cannot be expressed.
    #[error("the state cannot be expressed in the kernel")]
    State(#[from] StateError),
    /// A map has no room.
    #[error("{wanted} {map} wanted, room for {capacity}")]
    Full {
        /// Which map.
        map: &'static str,
        /// Entries the state has.
        wanted: usize,
        /// Entries the map holds.
        capacity: u32,
    },
    /// The kernel refused a write.
    #[error("the kernel refused a map update")]
    Write(#[from] WriteError),
    /// A fleet key generation outside 0..=3, or one without a key.
    #[error("no fleet key of generation {0} to send with")]
    FleetGeneration(u8),
    /// Outgoing segments of what the state refuses could not be stopped.
    #[error("the check of outgoing segments cannot be attached")]
    Egress(#[source] Box<crate::attach::AttachError>),
}

/// What an application did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The epoch that is live now. Connections judged under an older one are judged again at their next packet.
    pub epoch: u64,
    /// Nothing differed, so nothing was written.
    pub unchanged: bool,
}

/// What is live, as far as this process knows.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) tables: Tables,
    pub(crate) locals: Locals,
    /// The live bank was filled by this process from `tables.policy`.
    pub(crate) policy_known: bool,
}

impl Live {
    /// What a predecessor left in the maps.
    pub(crate) fn read(maps: &crate::attach::Maps, config: &abi::Config) -> Self {
        let tables = Tables {
            peers: read_all(&maps.peers),
            nodes: read_all(&maps.nodes),
            places: read_all(&maps.places),
            members: read_all(&maps.members),
            policy: Policy::default(),
        };
        let mut entries: BTreeMap<u32, abi::Local> = read_all(&maps.locals);
        entries.retain(|_, entry| entry.generation != 0);
        let locals = Locals { workloads: read_all(&maps.workloads), entries, host: config.host };
        Self { tables, locals, policy_known: false }
    }
}

impl Datapath {
    /// Makes the kernel enforce `state`.
    ///
    /// Errors: see [`ApplyError`]; whatever it is, the state applied before stays live and whole.
    /// Cost: proportional to what differs, but policy is written whole when any of it differs.
    pub fn apply(&mut self, state: &State) -> Result<Applied, ApplyError> {
        let mut tables = Tables::compile(state)?;
        let capacity = self.maps.locals.max_entries();
        let mut locals = self
            .live
            .locals
            .next(state, capacity)
            .map_err(|LocalsFull { wanted, capacity }| ApplyError::Full { map: "workloads", wanted, capacity })?;
        self.check_room(&tables, &locals)?;
        let before = self.page.read();
        let config = configured(state, &locals, &before)?;
        let same_policy = self.live.policy_known && self.live.tables.policy == tables.policy;
        let bank = if same_policy { (before.live & 1) as u32 } else { (before.live & 1 ^ 1) as u32 };
        bank::stage_all((&self.live.tables, &self.live.locals), &mut tables, &mut locals, bank);
        let same_tables = same_policy && self.live.tables == tables && self.live.locals == locals;
        if same_tables && before.live != 0 && config == before {
            return Ok(Applied { epoch: before.live >> 1, unchanged: true });
        }
        if !same_policy {
            self.fill(bank, &tables.policy)?;
        }
        if before.live != 0 {
            self.attach_egress().map_err(|error| ApplyError::Egress(Box::new(error)))?;
        }
        // After the filling, which waits for whoever still reads that bank: its classes are nobody's now.
        self.add(&tables, &locals)?;
        self.page.write(&config);
        let epoch = (before.live >> 1) + 1;
        self.page.set_live(epoch << 1 | u64::from(bank));
        self.remove(&tables, &locals);
        self.live = Live { tables, locals, policy_known: true };
        Ok(Applied { epoch, unchanged: false })
    }

    /// Tells the programs how far the server's clock is ahead of this machine's boot clock, in nanoseconds.
    pub fn set_clock_offset(&mut self, offset_ns: i64) {
        let config = abi::Config { clock_offset_ns: offset_ns, ..self.page.read() };
        self.page.write(&config);
    }

    /// Says that every question ([`Kind::Unknown`](crate::event::Kind)) recorded up to `boot_ns` was answered, and that what the
    /// answer brought is live: a place that still does not fit is then refused for good, with a reset (PROTOCOL rule 11).
    ///
    /// Nanoseconds of the boot clock, as in [`Event::boot_ns`](crate::event::Event); an earlier time than before changes nothing.
    pub fn answered(&mut self, boot_ns: u64) {
        let config = self.page.read();
        if config.answered_ns < boot_ns {
            self.page.write(&abi::Config { answered_ns: boot_ns, ..config });
        }
    }

    fn check_room(&self, tables: &Tables, locals: &Locals) -> Result<(), ApplyError> {
        // Additions come before removals, so the union has to fit.
        fn union<K: Ord, V, W>(old: &BTreeMap<K, V>, new: &BTreeMap<K, W>) -> usize {
            new.len() + old.keys().filter(|key| !new.contains_key(key)).count()
        }
        let (live, maps) = (&self.live, &self.maps);
        let wanted = [
            ("peers", union(&live.tables.peers, &tables.peers), &maps.peers),
            ("nodes", union(&live.tables.nodes, &tables.nodes), &maps.nodes),
            ("places", union(&live.tables.places, &tables.places), &maps.places),
            ("members", union(&live.tables.members, &tables.members), &maps.members),
            ("cgroups", union(&live.locals.workloads, &locals.workloads), &maps.workloads),
        ];
        for (map, wanted, handle) in wanted {
            let capacity = handle.max_entries();
            if wanted > capacity as usize {
                return Err(ApplyError::Full { map, wanted, capacity });
            }
        }
        Ok(())
    }

    /// Putting a map into a bank waits until no program runs with the one before, some 15 ms: three wait side by side.
    fn fill(&self, bank: u32, policy: &Policy) -> Result<(), WriteError> {
        let maps = &self.maps;
        let indices: Vec<u32> = (0..policy.ports.len() as u32).collect();
        let joined = |filled: std::thread::ScopedJoinHandle<'_, Result<(), WriteError>>| {
            filled.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        std::thread::scope(|scope| {
            let verdicts = scope.spawn(|| fill_bank(&maps.verdicts, bank, Shape::VERDICTS, policy.verdicts.iter()));
            let ports = scope.spawn(|| fill_bank(&maps.ports, bank, Shape::PORTS, indices.iter().zip(&policy.ports)));
            let networks = fill_bank(&maps.networks, bank, Shape::NETWORKS, policy.networks.iter());
            joined(verdicts).and(joined(ports)).and(networks)
        })
    }

    fn add(&self, tables: &Tables, locals: &Locals) -> Result<(), WriteError> {
        let mut undo = Undo::default();
        let (maps, live) = (&self.maps, &self.live);
        let added = upsert(&maps.nodes, &live.tables.nodes, &tables.nodes, &mut undo)
            .and_then(|()| upsert(&maps.peers, &live.tables.peers, &tables.peers, &mut undo))
            .and_then(|()| upsert(&maps.members, &live.tables.members, &tables.members, &mut undo))
            .and_then(|()| upsert(&maps.places, &live.tables.places, &tables.places, &mut undo))
            .and_then(|()| upsert(&maps.locals, &live.locals.entries, &locals.entries, &mut undo))
            .and_then(|()| upsert(&maps.workloads, &live.locals.workloads, &locals.workloads, &mut undo));
        if added.is_err() {
            undo.run();
        }
        added
    }

    fn remove(&self, tables: &Tables, locals: &Locals) {
        let (maps, live) = (&self.maps, &self.live);
        remove_absent(&maps.workloads, &live.locals.workloads, &locals.workloads);
        remove_absent(&maps.places, &live.tables.places, &tables.places);
        remove_absent(&maps.members, &live.tables.members, &tables.members);
        remove_absent(&maps.peers, &live.tables.peers, &tables.peers);
        remove_absent(&maps.nodes, &live.tables.nodes, &tables.nodes);
    }
}

/// The configuration for a state; `live`, the secret and what is not of the state stay.
fn configured(state: &State, locals: &Locals, before: &abi::Config) -> Result<abi::Config, ApplyError> {
    let mut config = abi::Config {
        clock_offset_ns: state.clock_offset_ns,
        node: state.node.get(),
        host: locals.host,
        fleet: Default::default(),
        fleet_valid: 0,
        fleet_generation: state.fleet_generation,
        own_generation: state.own_generation,
        port_places: state
            .places
            .iter()
            .filter_map(|place| place.port)
            .fold(0, |set, (_, port)| set | 1 << (port & 63)),
        ..*before
    };
    for (generation, fleet) in state.fleet_keys.iter().enumerate() {
        if let Some(fleet) = fleet {
            config.fleet[generation] = key(fleet);
            config.fleet_valid |= 1 << generation;
        }
    }
    let sending = state.fleet_keys.get(usize::from(state.fleet_generation)).copied().flatten();
    if sending.is_none() {
        return Err(ApplyError::FleetGeneration(state.fleet_generation));
    }
    if state.own_generation > 3 {
        return Err(StateError::Generation(state.own_generation).into());
    }
    Ok(config)
}
