//! From what the server told and what runs here to the desired state of the kernel.
//!
//! Pure but for the numbering of names: no clock, socket or task. Start at [`Compiler::compile`]. What a compile costs
//! follows from what changed; verdicts and keys are kept between compiles.

mod external;
mod keys;
mod pairs;
mod verdict;

use std::collections::BTreeSet;

use datapath::state::{ClassId, Key128, LocalWorkload, Peer, Place, PlaceTarget, State};
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use ipnet::IpNet;
use policy::namespace::{ExternalId, NamespacePath};

pub use self::keys::KeyRing;
use crate::model::{self, Model, ObjectError};
use crate::numbering::Numbering;

/// Keeps what one compile can use of the one before.
#[derive(Debug, Default)]
pub struct Compiler {
    pairs: pairs::Pairs,
    derived: keys::Derived,
    externals: external::Externals,
}

/// A workload of this node, as far as the kernel needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// UUID.
    pub uid: String,
    /// Its cgroup directory's id and those below that are known.
    pub cgroup_ids: Vec<u64>,
    /// The node's host workload.
    pub host: bool,
}

/// What a compile needs besides the model.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Workloads of this node.
    pub locals: &'a [Local],
    /// This node's keys.
    pub ring: &'a KeyRing,
    /// Server's clock minus boot clock, nanoseconds.
    pub clock_offset_ns: i64,
    /// The host workload is enforced like any other.
    pub host_protected: bool,
}

/// The desired state, and what to tell about it.
#[derive(Debug)]
pub struct Compiled {
    /// For the kernel.
    pub state: State,
    /// Nodes whose public key is of low order: nothing can be proved to or by them.
    pub bad_keys: BTreeSet<NodeId>,
    /// ExternalNetworks that cover addresses of the fleet, which they never match.
    pub covering_fleet: BTreeSet<ExternalId>,
}

/// Why nothing was compiled; the kernel keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// An object cannot be read.
    #[error("object {key} cannot be used")]
    Object {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        error: ObjectError,
    },
    /// Something that another object names is not there.
    #[error("{by} names {missing}, which is not there")]
    Missing {
        /// Key of the object that names it.
        by: String,
        /// Key of what is missing.
        missing: String,
    },
}

impl CompileError {
    /// Key of the failing object.
    pub fn object(&self) -> &str {
        match self {
            CompileError::Object { key, .. } => key,
            CompileError::Missing { by, .. } => by,
        }
    }
}

impl Compiler {
    /// Compiles everything that changed since the last time, and puts the whole state together.
    ///
    /// Errors: the model's changes stay remembered, so that the compile after the mend is complete.
    pub fn compile(
        &mut self,
        model: &mut Model,
        inputs: &Inputs<'_>,
        numbering: &mut Numbering,
    ) -> Result<Compiled, CompileError> {
        if let Some((key, error)) = model.unreadable.first_key_value() {
            return Err(CompileError::Object { key: key.clone(), error: error.clone() });
        }
        let settings = model.settings.clone().ok_or_else(|| missing("snapshot", "settings"))?;
        let invalid = |field| CompileError::Object { key: "settings".to_owned(), error: ObjectError::Field(field) };
        let node = NodeId::new(settings.node_id).ok_or_else(|| invalid("node_id"))?;
        let own_generation = u8::try_from(settings.own_key_generation)
            .ok()
            .filter(|g| *g < 4)
            .ok_or_else(|| invalid("own_key_generation"))?;
        let identity_scope = settings.identity_scope.iter().map(|cidr| cidr.parse::<IpNet>()).collect::<Result<_, _>>();
        let identity_scope = identity_scope.map_err(|_| invalid("identity_scope"))?;
        check_classes(model)?;
        if model.touched.all || model.touched.networks {
            self.externals = external::compile(model, numbering);
        }
        let host = host(model, inputs);
        let locals = inputs.locals.iter().filter_map(|local| model.placed.get(&local.uid)).map(|p| ClassId(p.class));
        let (locals, classes) = (locals.collect(), self.externals.classes.clone());
        self.pairs.update(model, locals, classes, host, numbering);

        let mut bad_keys = BTreeSet::new();
        let pair_keys = self.derived.pair_keys(
            &settings.trust_domain,
            node,
            own_generation,
            inputs.ring,
            &model.node_keys,
            &mut bad_keys,
        );
        let mut verdicts = Vec::with_capacity(self.pairs.len());
        verdicts.extend(self.pairs.all().cloned());
        let state = State {
            node,
            trust_domain: settings.trust_domain,
            clock_offset_ns: inputs.clock_offset_ns,
            fleet_keys: fleet_keys(model),
            fleet_generation: fleet_generation(model),
            own_generation,
            pair_keys,
            workloads: self.workloads(model, inputs)?,
            peers: peers(model),
            places: places(model)?,
            members: members(model)?,
            networks: self.externals.networks.clone(),
            verdicts,
            identity_scope,
        };
        Ok(Compiled { state, bad_keys, covering_fleet: self.externals.covering_fleet.clone() })
    }

    fn workloads(&self, model: &Model, inputs: &Inputs<'_>) -> Result<Vec<LocalWorkload>, CompileError> {
        let one = |local: &Local| {
            let Some(placed) = model.placed.get(&local.uid) else {
                return Ok(LocalWorkload {
                    cgroup_ids: local.cgroup_ids.clone(),
                    slot: None,
                    instance: Instance(0),
                    class: ClassId::ANY,
                    enforce: !local.host && self.enforces_by_default(model),
                    revoked: false,
                    host: local.host,
                });
            };
            let namespace = NamespacePath::new(&placed.namespace).map_err(|_| CompileError::Object {
                key: format!("workload/{}", placed.uid),
                error: ObjectError::Field("namespace"),
            })?;
            Ok(LocalWorkload {
                cgroup_ids: local.cgroup_ids.clone(),
                slot: u16::try_from(placed.slot).ok().map(Slot),
                instance: Instance(placed.instance),
                class: ClassId(placed.class),
                enforce: self.pairs.enforces(&namespace) && (!local.host || inputs.host_protected),
                revoked: placed.revoked,
                host: local.host,
            })
        };
        inputs.locals.iter().map(one).collect()
    }

    /// Where a pending workload will be placed is not known; it is in the cluster's subtree at least.
    fn enforces_by_default(&self, model: &Model) -> bool {
        let cluster = model.settings.as_ref().map(|settings| settings.cluster_namespace.as_str());
        cluster.and_then(|path| NamespacePath::new(path).ok()).is_none_or(|path| self.pairs.enforces(&path))
    }
}

fn missing(by: &str, what: &str) -> CompileError {
    CompileError::Missing { by: by.to_owned(), missing: what.to_owned() }
}

/// Every class that is named is there: without its attributes no deny could reach it.
fn check_classes(model: &Model) -> Result<(), CompileError> {
    let named = model.peers.iter().map(|(at, peer)| (format!("peer/{at}"), peer.class));
    let placed = model.placed.values().map(|placed| (format!("workload/{}", placed.uid), placed.class));
    for (by, class) in named.chain(placed) {
        if !model.classes.contains_key(&ClassId(class)) {
            return Err(CompileError::Missing { by, missing: format!("class/{class}") });
        }
    }
    Ok(())
}

fn host(model: &Model, inputs: &Inputs<'_>) -> pairs::Host {
    let uid = inputs.locals.iter().find(|local| local.host).map(|local| &local.uid);
    let class = uid.and_then(|uid| model.placed.get(uid)).map(|placed| ClassId(placed.class));
    pairs::Host { class, protected: inputs.host_protected }
}

fn fleet_keys(model: &Model) -> [Option<Key128>; 4] {
    let mut keys = [None; 4];
    for (generation, fleet) in &model.fleet_keys {
        keys[usize::from(*generation)] = Some(Key128(fleet.key));
    }
    keys
}

/// The one to send with; where none is marked yet, the lowest there is.
fn fleet_generation(model: &Model) -> u8 {
    let sending = model.fleet_keys.iter().find(|(_, fleet)| fleet.send).or_else(|| model.fleet_keys.iter().next());
    sending.map_or(0, |(generation, _)| *generation)
}

fn peers(model: &Model) -> Vec<Peer> {
    let one = |(at, peer): (&WorkloadRef, &api::sync::Peer)| Peer {
        at: *at,
        instance: Instance(peer.instance),
        class: ClassId(peer.class),
        revoked: peer.revoked,
    };
    model.peers.iter().map(one).collect()
}

fn places(model: &Model) -> Result<Vec<Place>, CompileError> {
    model.places.iter().map(|(key, place)| self::place(key, place, model)).collect()
}

fn place(key: &str, found: &model::Place, model: &Model) -> Result<Place, CompileError> {
    use api::sync::place::Target;
    let invalid = |field| CompileError::Object { key: key.to_owned(), error: ObjectError::Field(field) };
    let place = &found.place;
    let port = u16::try_from(place.port).map_err(|_| invalid("port"))?;
    let protocol = u8::try_from(place.protocol).map_err(|_| invalid("protocol"))?;
    let real_port = u16::try_from(place.real_port).map_err(|_| invalid("real_port"))?;
    let target = match &place.target {
        _ if place.declared_only => PlaceTarget::Declared,
        Some(Target::Node(node)) => PlaceTarget::Node(NodeId::new(*node).ok_or_else(|| invalid("node"))?),
        Some(Target::Workload(at)) => PlaceTarget::Workload(
            model::workload_ref(at.node, at.slot)
                .map_err(|error| CompileError::Object { key: key.to_owned(), error })?,
        ),
        Some(Target::Service(id)) => PlaceTarget::Service(*id),
        None => return Err(invalid("target")),
    };
    let claimed_udp = match target {
        PlaceTarget::Service(id) if protocol == policy::port::protocol::UDP => {
            model.services.get(&id).is_some_and(|service| service.claimed_udp_ports.contains(&u32::from(port)))
        }
        _ => false,
    };
    Ok(Place {
        address: found.address,
        port: (port != 0).then_some((protocol, port)),
        target,
        real_port: (real_port != 0).then_some(real_port),
        claimed_udp,
    })
}

fn members(model: &Model) -> Result<Vec<(u32, WorkloadRef)>, CompileError> {
    let one = |(id, service): (&u32, &api::sync::Service)| {
        let member = |at: &api::sync::PeerRef| {
            model::workload_ref(at.node, at.slot)
                .map(|at| (*id, at))
                .map_err(|error| CompileError::Object { key: format!("service/{id}"), error })
        };
        service.members.iter().map(member).collect::<Result<Vec<_>, _>>()
    };
    Ok(model.services.iter().map(one).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// What the classes of external networks mean, for reports: qualified names.
pub fn external_names(class: ClassId, numbering: &Numbering) -> Vec<String> {
    let number = class.0 & !ClassId::EXTERNAL_OTHER.0;
    let name = numbering.name(number).unwrap_or_default();
    name.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
