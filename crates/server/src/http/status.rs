//! Statuses that follow from other documents: computed when somebody reads, never stored.

use api::kind::external_network::{ExternalNetworkSpec, ExternalNetworkStatus};
use api::kind::namespace::{self, NamespaceStatus};
use api::kind::node::NodeSpec;
use api::kind::service::{ServiceSpec, ServiceStatus};
use api::kind::{NAMESPACE, Spec};
use api::object::Object;
use policy::namespace::NamespacePath;
use policy::policy::{Action, Mode};
use policy::posture::{Encryption, OnAgentLoss, Posture};
use serde::Serialize;
use serde_json::Value;

use crate::fleet::Fleet;
use crate::place;

/// Most fleet addresses that an ExternalNetwork's status names.
const COVERED_MAX: usize = 100;

/// The object with the status that holds now.
pub(super) fn filled(fleet: &Fleet, mut object: Object) -> Object {
    let status = match object.kind.as_str() {
        NAMESPACE => of_namespace(fleet, &object),
        ServiceSpec::KIND => of_service(fleet, &object),
        ExternalNetworkSpec::KIND => of_network(fleet, &object),
        NodeSpec::KIND => of_node(fleet, object.status),
        _ => return object,
    };
    object.status = status;
    object
}

fn json(status: impl Serialize) -> Option<Value> {
    serde_json::to_value(status).ok()
}

/// What its agent reported, and how far it has to come.
fn of_node(fleet: &Fleet, reported: Option<Value>) -> Option<Value> {
    let mut status = reported?;
    status.as_object_mut()?.insert("dueRevision".to_owned(), fleet.revision().into());
    Some(status)
}

fn of_namespace(fleet: &Fleet, object: &Object) -> Option<Value> {
    let path = NamespacePath::new(&object.key().path()).ok()?;
    let Posture { mode, ingress, egress, encryption, on_agent_loss } = fleet.postures.effective(&path, fleet.now);
    json(NamespaceStatus {
        mode: match mode {
            Mode::Observe => namespace::Mode::Observe,
            Mode::Enforce => namespace::Mode::Enforce,
        },
        ingress: action(ingress),
        egress: action(egress),
        encryption: match encryption {
            Encryption::Off => namespace::Encryption::Off,
            Encryption::Permissive => namespace::Encryption::Permissive,
            Encryption::Strict => namespace::Encryption::Strict,
        },
        on_agent_loss: match on_agent_loss {
            OnAgentLoss::Open => namespace::OnAgentLoss::Open,
            OnAgentLoss::Hold => namespace::OnAgentLoss::Hold,
        },
    })
}

fn action(action: Action) -> namespace::Action {
    match action {
        Action::Allow => namespace::Action::Allow,
        Action::Deny => namespace::Action::Deny,
    }
}

fn of_service(fleet: &Fleet, object: &Object) -> Option<Value> {
    let is_it =
        |s: &&place::ServiceEntry| s.name == object.metadata.name && s.namespace.as_str() == object.metadata.namespace;
    let service = fleet.services.values().find(is_it)?;
    let identities = fleet.workloads().map(|workload| (workload.at, &*workload.identity));
    let (members, _) = place::members(service, identities, &fleet.declared());
    let paths = members.workloads.iter().filter_map(|at| fleet.workload(*at)).map(|workload| workload.path());
    let mut members: Vec<String> = paths.chain(members.external.iter().cloned()).collect();
    members.sort_unstable();
    json(ServiceStatus { members })
}

fn of_network(fleet: &Fleet, object: &Object) -> Option<Value> {
    let spec: ExternalNetworkSpec = serde_json::from_value(object.spec.clone()).ok()?;
    let declared = fleet.declared();
    let realms = fleet.clusters.iter().map(|(name, cluster)| cluster.realm_of(name));
    let mut covered: Vec<String> = realms
        .flat_map(|realm| place::fleet_addresses(realm, &declared))
        .filter(|address| spec.cidrs.iter().any(|prefix| prefix.contains(address)))
        .map(|address| address.addr().to_string())
        .collect();
    covered.sort_unstable();
    covered.dedup();
    covered.truncate(COVERED_MAX);
    json(ExternalNetworkStatus { covers_fleet: covered })
}
