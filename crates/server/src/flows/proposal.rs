//! What a proposed change would break: flows seen of late, judged by the rules as they are and as they would be.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use api::flow::{FlowEnd, FlowRow};
use api::kind::external_network::ExternalNetworkSpec;
use api::kind::namespace::NamespaceSpec;
use api::kind::policy::PolicySpec;
use api::kind::{NAMESPACE, Spec};
use api::object::{Object, ObjectKey};
use ipnet::IpNet;
use policy::attribute::{Attributes, Identity, Peer};
use policy::decide::Flow;
use policy::namespace::{ExternalId, NamespacePath};
use policy::rules::RuleSet;

use super::Flows;
use super::table::Row;
use crate::fleet::Fleet;
use crate::fleet::document;

/// Most flows that are listed.
pub const BROKEN_MAX: usize = 200;

/// The fleet's rules with some documents changed.
#[derive(Debug)]
pub struct Proposal {
    rules: RuleSet,
    networks: BTreeMap<ExternalId, Vec<IpNet>>,
}

impl Proposal {
    /// The rules as they would be after these documents were written and those deleted. Documents that say nothing about
    /// who may reach what are ignored; they must have passed validation.
    pub fn new(fleet: &Fleet, put: &[Object], delete: &[ObjectKey]) -> Self {
        let mut postures = fleet.postures.clone();
        let mut proposal = Self { rules: fleet.rules().clone(), networks: networks_of(fleet) };
        for key in delete {
            let Ok(namespace) = NamespacePath::new(&key.path()) else { continue };
            match key.kind.as_str() {
                PolicySpec::KIND => {
                    policy::namespace::PolicyId::new(namespace, &key.name).ok().map(|id| proposal.rules.remove(&id));
                }
                ExternalNetworkSpec::KIND => {
                    ExternalId::new(namespace, &key.name).ok().map(|id| proposal.networks.remove(&id));
                }
                NAMESPACE => {
                    postures.remove(&namespace);
                    proposal.rules.set_posture(namespace, None);
                }
                _ => {}
            }
        }
        for object in put {
            match object.kind.as_str() {
                PolicySpec::KIND => {
                    document::policy(object).ok().map(|policy| proposal.rules.insert(policy));
                }
                ExternalNetworkSpec::KIND => {
                    let spec = serde_json::from_value::<ExternalNetworkSpec>(object.spec.clone());
                    let namespace = NamespacePath::new(&object.metadata.namespace);
                    if let (Ok(spec), Ok(namespace)) = (spec, namespace)
                        && let Ok(id) = ExternalId::new(namespace, &object.metadata.name)
                    {
                        proposal.networks.insert(id, spec.cidrs);
                    }
                }
                NAMESPACE => {
                    let spec = serde_json::from_value::<NamespaceSpec>(object.spec.clone());
                    if let (Ok(spec), Ok(path)) = (spec, NamespacePath::new(&object.key().path())) {
                        postures.set(path, document::protection(&spec));
                    }
                }
                _ => {}
            }
        }
        let declared: Vec<NamespacePath> = postures.declared().map(|(path, _)| path.clone()).collect();
        for path in declared {
            let posture = postures.effective(&path, fleet.now);
            proposal.rules.set_posture(path, Some(posture));
        }
        proposal
    }
}

/// Flows seen of late that are allowed by the present rules and would be refused by the proposed ones: the newest first,
/// one for each pair of ends and port.
pub fn would_break(flows: &Flows, fleet: &Fleet, proposal: &Proposal) -> Vec<FlowRow> {
    flows.with_rows(|rows| would_break_of(rows, fleet, proposal))
}

fn would_break_of<'a>(rows: impl Iterator<Item = &'a Row>, fleet: &Fleet, proposal: &Proposal) -> Vec<FlowRow> {
    let present = networks_of(fleet);
    let mut seen = HashSet::new();
    let once = rows.filter(|row| {
        let shown = row.shown();
        seen.insert((name(&shown.client), name(&shown.server), row.protocol(), shown.port))
    });
    let breaks = once.filter(|row| {
        let now = allowed(fleet.rules(), fleet, &present, row);
        let then = allowed(&proposal.rules, fleet, &proposal.networks, row);
        now == Some(true) && then == Some(false)
    });
    breaks.take(BROKEN_MAX).map(|row| row.shown().clone()).collect()
}

fn networks_of(fleet: &Fleet) -> BTreeMap<ExternalId, Vec<IpNet>> {
    fleet.networks.iter().map(|(id, network)| (id.clone(), network.cidrs.clone())).collect()
}

fn name(end: &FlowEnd) -> Option<String> {
    end.uid.clone().or_else(|| end.address.clone())
}

/// One end, as rules are asked about it.
enum Known {
    Workload(Identity),
    External(BTreeSet<ExternalId>),
}

impl Known {
    fn peer(&self) -> Peer<'_> {
        match self {
            Self::Workload(identity) => Peer::Workload(identity),
            Self::External(networks) => Peer::External(networks),
        }
    }
}

/// What rules say about a recorded flow; `None` where an end is not known well enough.
fn allowed(rules: &RuleSet, fleet: &Fleet, networks: &BTreeMap<ExternalId, Vec<IpNet>>, row: &Row) -> Option<bool> {
    let client = known(fleet, networks, &row.shown().client)?;
    let server = known(fleet, networks, &row.shown().server)?;
    let flow = Flow { client: client.peer(), server: server.peer(), protocol: row.protocol(), port: row.shown().port };
    Some(rules.decide(&flow).allowed)
}

/// A workload as it is now, or as it was when it was last seen; an external end by its address.
fn known(fleet: &Fleet, networks: &BTreeMap<ExternalId, Vec<IpNet>>, end: &FlowEnd) -> Option<Known> {
    if let Some(uid) = &end.uid {
        if let Some(workload) = fleet.workloads().find(|w| w.uid == *uid) {
            return Some(Known::Workload((*workload.identity).clone()));
        }
        let attributes = Attributes::try_from(end.attributes.clone()).ok()?;
        return Identity::new(attributes).ok().map(Known::Workload);
    }
    let address: IpAddr = end.address.as_deref()?.parse().ok()?;
    let covers = |cidrs: &Vec<IpNet>| cidrs.iter().any(|cidr| cidr.contains(&address));
    Some(Known::External(networks.iter().filter(|(_, cidrs)| covers(cidrs)).map(|(id, _)| id.clone()).collect()))
}

#[cfg(test)]
mod tests;
