//! From documents to the fleet in memory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::kind::cluster::ClusterSpec;
use api::kind::external_network::ExternalNetworkSpec;
use api::kind::namespace::{self, NamespaceSpec};
use api::kind::node::{NodeSpec, NodeStatus};
use api::kind::policy::PolicySpec;
use api::kind::revocation::RevocationSpec;
use api::kind::service::ServiceSpec;
use api::kind::workload::{WorkloadSpec, WorkloadState, WorkloadStatus};
use api::kind::{NAMESPACE, Spec};
use api::object::{Object, ObjectKey};
use api::sync as wire;
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use policy::attribute::{Attributes, Identity};
use policy::namespace::{ExternalId, NamespacePath, PolicyId};
use policy::policy::{Action, Mode, Policy};
use policy::port::Port;
use policy::posture::{Encryption, OnAgentLoss, Protection};
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Fleet, NetworkEntry, NodeEntry, PolicyEntry, RevocationEntry, WorkloadEntry};
use crate::place::ServiceEntry;
use crate::place::claims::Owner;
use crate::view::Changed;

/// A stored document that cannot be what its kind says. The fleet is as if it were not there.
#[derive(Debug, thiserror::Error)]
#[error("{key} cannot be used: {why}")]
pub struct Unusable {
    /// Which one.
    pub key: ObjectKey,
    /// One sentence.
    pub why: String,
}

impl Fleet {
    /// A document was created or changed. `service_id` is the interned number of a Service, for Services. Returns whether
    /// anything that nodes are told may have changed.
    pub fn put(&mut self, object: &Object, service_id: Option<u32>) -> Result<bool, Unusable> {
        let key = object.key();
        let done = match object.kind.as_str() {
            NAMESPACE => self.put_namespace(object),
            PolicySpec::KIND => self.put_policy(object),
            ExternalNetworkSpec::KIND => self.put_network(object),
            ServiceSpec::KIND => self.put_service(object, service_id),
            ClusterSpec::KIND => self.put_cluster(object),
            RevocationSpec::KIND => self.put_revocation(object),
            NodeSpec::KIND => self.put_node(object),
            WorkloadSpec::KIND => self.put_workload(object),
            _ => Ok(false),
        };
        match done {
            Ok(changed) => {
                if changed {
                    self.forget_shared(what_changes_with(&object.kind));
                }
                Ok(changed)
            }
            Err(why) => {
                self.delete(&key, service_id);
                Err(Unusable { key, why })
            }
        }
    }

    /// A document is gone. Returns whether anything that nodes are told may have changed.
    pub fn delete(&mut self, key: &ObjectKey, service_id: Option<u32>) -> bool {
        self.forget_shared(what_changes_with(&key.kind));
        match key.kind.as_str() {
            NAMESPACE => {
                let Ok(path) = NamespacePath::new(&key.path()) else { return false };
                self.compiled.set_posture(path.clone(), None);
                self.postures.remove(&path);
                self.refresh_postures();
                true
            }
            PolicySpec::KIND => policy_id(key).is_ok_and(|id| {
                self.compiled.remove(&id);
                self.policies.remove(&id).is_some()
            }),
            ExternalNetworkSpec::KIND => external_id(key).is_ok_and(|id| self.networks.remove(&id).is_some()),
            ServiceSpec::KIND => service_id.is_some_and(|id| self.services.remove(&id).is_some()),
            ClusterSpec::KIND => self.clusters.remove(&key.name).is_some(),
            RevocationSpec::KIND => self.revocations.remove(&key.name).is_some(),
            NodeSpec::KIND => self.node_id(&key.name).is_some_and(|id| {
                self.claims.release(Owner::Node(id));
                self.node_keys.remove(&id);
                self.nodes.remove(&id).is_some()
            }),
            WorkloadSpec::KIND => self.delete_workload(key),
            _ => false,
        }
    }

    fn put_namespace(&mut self, object: &Object) -> Result<bool, String> {
        let spec: NamespaceSpec = spec(object)?;
        let path = NamespacePath::new(&object.key().path()).map_err(|e| e.to_string())?;
        let protection = protection(&spec);
        let unchanged = self.postures.set(path, protection) == Some(protection);
        if !unchanged {
            self.refresh_postures();
        }
        Ok(!unchanged)
    }

    fn put_policy(&mut self, object: &Object) -> Result<bool, String> {
        let policy = policy(object)?;
        let id = policy.id.clone();
        let bare = json!({
            "apiVersion": object.api_version,
            "kind": object.kind,
            "metadata": {"namespace": object.metadata.namespace, "name": object.metadata.name},
            "spec": object.spec,
        });
        let object = wire::PolicyObject { json: bare.to_string().into_bytes() }.encode_to_vec();
        let entry = PolicyEntry { id: id.clone(), key: format!("policy/{id}").into(), object: object.into() };
        if self.policies.get(&id) == Some(&entry) {
            return Ok(false);
        }
        self.compiled.insert(policy);
        self.policies.insert(id, entry);
        Ok(true)
    }

    fn put_network(&mut self, object: &Object) -> Result<bool, String> {
        let spec: ExternalNetworkSpec = spec(object)?;
        let id = external_id(&object.key())?;
        let entry = NetworkEntry { id: id.clone(), cidrs: spec.cidrs };
        Ok(self.networks.insert(id, entry.clone()).as_ref() != Some(&entry))
    }

    fn put_service(&mut self, object: &Object, id: Option<u32>) -> Result<bool, String> {
        let spec: ServiceSpec = spec(object)?;
        let id = id.ok_or("it has no number")?;
        let namespace = NamespacePath::new(&object.metadata.namespace).map_err(|e| e.to_string())?;
        let selectors = parse_all(&spec.members.selectors)?;
        let name = object.metadata.name.clone();
        if self.services.get(&id).is_some_and(|before| before.spec == spec) {
            return Ok(false);
        }
        self.services.insert(id, ServiceEntry { id, namespace, name, spec, selectors });
        Ok(true)
    }

    fn put_cluster(&mut self, object: &Object) -> Result<bool, String> {
        let spec: ClusterSpec = spec(object)?;
        let name = &object.metadata.name;
        let before = self.clusters.insert(name.clone(), spec.clone());
        if before.as_ref().map(|b| b.realm_of(name)) != Some(spec.realm_of(name)) {
            self.claim_again(name);
        }
        Ok(before != Some(spec))
    }

    /// The realm of a cluster is another one: its addresses are claimed there, and no longer in the old one.
    fn claim_again(&mut self, cluster: &str) {
        let nodes = self.nodes.iter().filter(|(_, n)| n.cluster == cluster);
        let workloads = self.workloads.values().filter(|w| w.cluster() == cluster);
        let of_nodes = nodes.map(|(id, n)| (Owner::Node(*id), n.addresses.clone()));
        let of_workloads = workloads.map(|w| (Owner::Workload(w.at), w.addresses.clone()));
        let owners: Vec<(Owner, BTreeSet<IpAddr>)> = of_nodes.chain(of_workloads).collect();
        for (owner, addresses) in owners {
            self.claims.release(owner);
            self.claim(owner, &addresses);
        }
    }

    fn claim(&mut self, owner: Owner, addresses: &BTreeSet<IpAddr>) {
        let (Owner::Node(node) | Owner::Workload(WorkloadRef { node, .. })) = owner;
        // A node whose cluster is unknown has no realm, and its addresses are no places.
        if let Some(realm) = self.realm_of(node).map(str::to_owned) {
            self.claims.claim(owner, &realm, addresses);
        }
    }

    fn put_revocation(&mut self, object: &Object) -> Result<bool, String> {
        let spec: RevocationSpec = spec(object)?;
        let uid = object.metadata.uid.map(|uid| uid.to_string()).unwrap_or_default();
        let name = object.metadata.name.clone();
        if self.revocations.get(&name).is_some_and(|before| before.uid == uid && before.spec == spec) {
            return Ok(false);
        }
        let since = object.metadata.revision.unwrap_or_default().0;
        self.revocations.insert(name, RevocationEntry { uid, since, spec });
        Ok(true)
    }

    fn put_node(&mut self, object: &Object) -> Result<bool, String> {
        let status: NodeStatus = status(object)?;
        let id = NodeId::new(status.id).ok_or("its number is out of range")?;
        let addresses = addresses(&status.addresses)?;
        let entry = NodeEntry { name: object.metadata.name.clone(), cluster: status.cluster, addresses };
        if self.nodes.get(&id) == Some(&entry) {
            return Ok(false);
        }
        self.nodes.insert(id, entry.clone());
        self.claim(Owner::Node(id), &entry.addresses);
        Ok(true)
    }

    fn put_workload(&mut self, object: &Object) -> Result<bool, String> {
        let status: WorkloadStatus = status(object)?;
        let (Some(slot), Some(instance), Some(class)) = (status.slot, &status.instance, status.class) else {
            return Ok(self.delete_workload(&object.key()));
        };
        if status.state == WorkloadState::Refused {
            return Ok(self.delete_workload(&object.key()));
        }
        let node = self.node_id(&status.node).ok_or("its node is not enrolled")?;
        let at = WorkloadRef { node, slot: Slot(slot) };
        let instance = u64::from_str_radix(instance, 16).map_err(|_| "its instance is no number")?;
        let attributes = Attributes::try_from(status.attributes).map_err(|e| e.to_string())?;
        let identity = Arc::new(Identity::new(attributes).map_err(|e| e.to_string())?);
        let entry = WorkloadEntry {
            uid: status.uid,
            name: status.name,
            at,
            instance: Instance(instance),
            class,
            identity,
            addresses: addresses(&status.addresses)?,
            placed_revision: status.placed_revision,
        };
        if self.workloads.get(&at) == Some(&entry) {
            return Ok(false);
        }
        self.claim(Owner::Workload(at), &entry.addresses);
        if let Some(old) = self.by_uid.insert((node, entry.uid.clone()), at).filter(|old| *old != at) {
            self.claims.release(Owner::Workload(old));
            self.take_workload(old);
        }
        self.compiled.hold(class, &entry.identity);
        if let Some(before) = self.take_workload(at).filter(|before| before.uid != entry.uid) {
            self.by_uid.remove(&(node, before.uid));
        }
        self.workloads.insert(at, entry);
        Ok(true)
    }

    /// Takes a workload out, and its class with the last one that has it.
    fn take_workload(&mut self, at: WorkloadRef) -> Option<WorkloadEntry> {
        let workload = self.workloads.remove(&at)?;
        self.compiled.release(workload.class);
        self.departed.keep(workload.clone());
        Some(workload)
    }

    fn delete_workload(&mut self, key: &ObjectKey) -> bool {
        let is_it = |w: &&WorkloadEntry| {
            key.name.strip_prefix(w.name.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(w.node())
                && w.identity.namespace().as_str() == key.namespace
        };
        let Some((at, uid)) = self.workloads().find(is_it).map(|w| (w.at, w.uid.clone())) else { return false };
        self.claims.release(Owner::Workload(at));
        self.by_uid.remove(&(at.node, uid));
        self.take_workload(at).is_some()
    }
}

/// What of the views changes with a document of a kind.
fn what_changes_with(kind: &str) -> Changed {
    match kind {
        PolicySpec::KIND | ExternalNetworkSpec::KIND => Changed::Policies,
        NAMESPACE | RevocationSpec::KIND => Changed::Fleet,
        ServiceSpec::KIND | NodeSpec::KIND | WorkloadSpec::KIND => Changed::Places,
        _ => Changed::All,
    }
}

/// The policy of a document.
pub fn policy(object: &Object) -> Result<Policy, String> {
    let spec: PolicySpec = spec(object)?;
    let ports = match &spec.ports {
        None => vec![Port::Any],
        Some(ports) => parse_all(ports)?,
    };
    Ok(Policy {
        id: policy_id(&object.key())?,
        from: parse_all(&spec.from)?,
        to: parse_all(&spec.to)?,
        ports,
        action: action(spec.action),
        mode: spec.mode.map_or(Mode::Enforce, mode),
        reason: spec.reason,
    })
}

/// What a Namespace document says for itself.
pub fn protection(spec: &NamespaceSpec) -> Protection {
    let said = spec.protection.clone().unwrap_or_default();
    let default = said.default.unwrap_or_default();
    Protection {
        mode: said.mode.map(mode),
        ingress: default.ingress.map(action),
        egress: default.egress.map(action),
        encryption: said.encryption.map(|word| match word {
            namespace::Encryption::Off => Encryption::Off,
            namespace::Encryption::Permissive => Encryption::Permissive,
            namespace::Encryption::Strict => Encryption::Strict,
        }),
        on_agent_loss: said.on_agent_loss.map(|word| match word {
            namespace::OnAgentLoss::Open => OnAgentLoss::Open,
            namespace::OnAgentLoss::Hold => OnAgentLoss::Hold,
        }),
        observe_until: spec.observe_until,
    }
}

fn action(word: namespace::Action) -> Action {
    match word {
        namespace::Action::Allow => Action::Allow,
        namespace::Action::Deny => Action::Deny,
    }
}

fn mode(word: namespace::Mode) -> Mode {
    match word {
        namespace::Mode::Observe => Mode::Observe,
        namespace::Mode::Enforce => Mode::Enforce,
    }
}

fn spec<S: DeserializeOwned>(object: &Object) -> Result<S, String> {
    serde_json::from_value(object.spec.clone()).map_err(|e| e.to_string())
}

fn status<T: DeserializeOwned>(object: &Object) -> Result<T, String> {
    serde_json::from_value(object.status.clone().unwrap_or(Value::Null)).map_err(|e| e.to_string())
}

fn parse_all<T: std::str::FromStr<Err: std::fmt::Display>>(texts: &[String]) -> Result<Vec<T>, String> {
    texts.iter().map(|text| text.parse().map_err(|e: T::Err| e.to_string())).collect()
}

fn addresses(texts: &[String]) -> Result<BTreeSet<IpAddr>, String> {
    parse_all(texts).map(|addresses: Vec<IpAddr>| addresses.into_iter().collect())
}

fn policy_id(key: &ObjectKey) -> Result<PolicyId, String> {
    let namespace = NamespacePath::new(&key.namespace).map_err(|e| e.to_string())?;
    PolicyId::new(namespace, &key.name).map_err(|e| e.to_string())
}

fn external_id(key: &ObjectKey) -> Result<ExternalId, String> {
    let namespace = NamespacePath::new(&key.namespace).map_err(|e| e.to_string())?;
    ExternalId::new(namespace, &key.name).map_err(|e| e.to_string())
}
