//! What nodes report: who they are, and which workloads run on them.
//!
//! One transaction a report: classes are interned, slots bound or released, documents written. What the server does not
//! accept is refused by code; a workload that was accepted before keeps its last good identity.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::kind::Spec;
use api::kind::cluster::ClusterSpec;
use api::kind::node::{NodeAlarm, NodeSpec, NodeStatus};
use api::kind::workload::{Refusal, WorkloadSpec, WorkloadState, WorkloadStatus};
use api::object::{API_VERSION, Metadata, Object, ObjectKey};
use api::sync as wire;
use identity::ids::{Instance, NodeId, Slot, WorkloadRef};
use identity::instance::instance;
use jiff::Timestamp;
use policy::attribute::Identity;
use policy::code::enrolment as code;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use store::Transaction;
use store::document::Precondition;

use super::key::{decode, put};
use super::{CLASS_MAX, Registry, RegistryError};
use crate::class::{self, Claim, Place, Refused};
use crate::place;
use crate::place::claims::Owner;
use crate::slots::{Pool, Standing};

/// Records of the documents of a node's workloads, by uid.
pub(super) const WORKLOADS: &str = "workload";
/// Records of a node's slots, by number.
pub(super) const SLOTS: &str = "slot";
/// Workloads that one node may have: as many as its kernel's tables hold.
pub const WORKLOADS_MAX: usize = 4096;
/// Addresses that one node or workload may declare.
const ADDRESSES_MAX: usize = 64;

/// What is stored of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SlotRecord {
    standing: Standing<String>,
    /// U of the present or last binding.
    instance: u64,
}

/// A node, its cluster and what it had, while one report is handled.
struct Reporter {
    id: NodeId,
    name: String,
    cluster: String,
    grant: ClusterSpec,
    trust_domain: String,
    documents: BTreeMap<String, ObjectKey>,
    slots: BTreeMap<u32, SlotRecord>,
    pool: Pool<String>,
    workloads_max: usize,
    now: Timestamp,
}

impl Reporter {
    fn realm(&self) -> &str {
        self.grant.realm_of(&self.cluster)
    }

    /// Refused workloads count as well: they are shown.
    fn is_full(&self) -> bool {
        self.documents.len() >= self.workloads_max
    }
}

impl Registry {
    /// Takes what a node says of itself. Addresses outside the Cluster's ranges, or held by others, are left out and
    /// raise an alarm.
    pub async fn hello(&self, node: NodeId, hello: &wire::Hello) -> Result<(), RegistryError> {
        let (name, cluster, grant) = self.whereabouts(node)?;
        let realm = grant.realm_of(&cluster).to_owned();
        let (addresses, refused) = self.addresses(Owner::Node(node), &realm, &grant, &hello.node_addresses);
        self.set_alarms(node, "node", refused);
        let now = self.now();
        let mut transaction = self.store.begin().await?;
        let key = ObjectKey::new(NodeSpec::KIND, "/", &name);
        let Some(mut object) = transaction.get(&key).await? else { return Err(RegistryError::NodeUnknown(node)) };
        let mut status: NodeStatus = status_of(&object)?;
        status.region = grant.region.clone().unwrap_or_default();
        (status.namespace, status.realm) = (grant.namespace, realm);
        status.addresses = addresses.iter().map(ToString::to_string).collect();
        status.agent_version = shown(&hello.agent_version);
        status.kernel_release = shown(&hello.kernel_release);
        status.features = hello.features.iter().take(ADDRESSES_MAX).map(|f| shown(f)).collect();
        status.detached = hello.detached;
        status.connected = true;
        status.last_seen = Some(now);
        object.status = Some(to_json(&key, &status)?);
        transaction.put(&object, Precondition::None, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Takes what runs on a node. Returns what is refused, by uid.
    pub async fn report(
        &self,
        node: NodeId,
        report: wire::WorkloadReport,
    ) -> Result<Vec<(String, Refused)>, RegistryError> {
        let (name, cluster, grant) = self.whereabouts(node)?;
        let mut transaction = self.store.begin().await?;
        let trust_domain = self.fleet().trust_domain().to_owned();
        let (documents, slots) = stored(&mut transaction, node).await?;
        let standings = slots.iter().map(|(number, record)| (*number, record.standing.clone()));
        let mut pool = Pool::restore(u32::from(self.limits.slot_max), standings);
        pool.acknowledged(self.acknowledged());
        let now = self.now();
        let workloads_max = self.limits.workloads_max;
        let mut reporter =
            Reporter { id: node, name, cluster, grant, trust_domain, documents, slots, pool, workloads_max, now };
        let mut gone: BTreeSet<String> = report.removed_uids.into_iter().collect();
        if report.complete {
            let listed: BTreeSet<&str> = report.upserted.iter().map(|w| w.uid.as_str()).collect();
            gone.extend(reporter.documents.keys().filter(|uid| !listed.contains(uid.as_str())).cloned());
        }
        for uid in &gone {
            remove(&mut transaction, &mut reporter, uid).await?;
        }
        let mut refused = Vec::new();
        // Beyond twice as many as a node can have, nothing is even refused by name.
        for workload in report.upserted.into_iter().take(2 * self.limits.workloads_max) {
            let (claim, texts) = claim_of(workload);
            let alarms = match self.place(&mut transaction, &mut reporter, &claim, &texts).await? {
                Ok(alarms) => alarms,
                Err(refusal) => {
                    keep_refused(&mut transaction, &mut reporter, &claim, &refusal).await?;
                    refused.push((claim.uid.clone(), refusal.clone()));
                    vec![refusal]
                }
            };
            self.set_alarms(node, named(&claim.uid), alarms);
        }
        transaction.commit().await?;
        for uid in gone.iter().filter(|uid| class::check_uid(uid).is_ok()) {
            self.set_alarms(node, uid, Vec::new());
        }
        self.status_due.notify_one();
        Ok(refused)
    }

    /// Places one workload, or says why not.
    async fn place(
        &self,
        transaction: &mut Transaction,
        node: &mut Reporter,
        claim: &Claim,
        addresses: &[String],
    ) -> Result<Result<Vec<Refused>, Refused>, RegistryError> {
        let whereabouts =
            Place { trust_domain: &node.trust_domain, cluster: &node.cluster, grant: &node.grant, node: &node.name };
        let identity = match class::identify(&whereabouts, claim) {
            Ok(identity) => identity,
            Err(refused) => return Ok(Err(refused)),
        };
        let key = document_key(identity.namespace().as_str(), &claim.name, &node.name);
        if node.documents.iter().any(|(uid, taken)| *taken == key && *uid != claim.uid) {
            let message = format!("another workload of this node is called `{}` in {}", claim.name, key.namespace);
            return Ok(Err(Refused::new(&code::NAME_TAKEN, message)));
        }
        let full = node.is_full() && !node.documents.contains_key(&claim.uid);
        let bound = if full { None } else { bind(transaction, node, &claim.uid).await? };
        let Some((at, instance)) = bound else {
            return Ok(Err(Refused::new(&code::SLOTS_EXHAUSTED, "no slot is free on this node")));
        };
        let (held, alarms) = self.addresses(Owner::Workload(at), node.realm(), &node.grant, addresses);
        let class = intern(transaction, &identity).await?;
        write(transaction, node, claim, &key, &Placement { at, instance, class, identity, held }).await?;
        Ok(Ok(alarms))
    }

    /// The addresses that an owner may hold, and what is refused of those that it declares.
    fn addresses(
        &self,
        owner: Owner,
        realm: &str,
        grant: &ClusterSpec,
        texts: &[String],
    ) -> (BTreeSet<IpAddr>, Vec<Refused>) {
        let wanted = texts.iter().take(ADDRESSES_MAX).filter_map(|text| text.parse::<IpAddr>().ok());
        let (granted, outside) = place::granted(grant, wanted);
        let mut refused: Vec<Refused> = outside
            .into_iter()
            .map(|a| Refused::new(&code::ADDRESS_RANGE, format!("{a} is in no range that the Cluster grants")))
            .collect();
        let fleet = self.fleet();
        let (held, taken): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) =
            granted.into_iter().partition(|a| fleet.holder(realm, *a).is_none_or(|holder| holder == owner));
        refused.extend(taken.into_iter().map(|a| {
            let holder = fleet.holder(realm, a).map(|holder| fleet.owner_name(holder)).unwrap_or_default();
            Refused::new(&code::ADDRESS_TAKEN, format!("{a} belongs to {holder} in realm `{realm}`"))
        }));
        (held, refused)
    }

    fn whereabouts(&self, node: NodeId) -> Result<(String, String, ClusterSpec), RegistryError> {
        let fleet = self.fleet();
        let (entry, cluster) = fleet.node_with_cluster(node).ok_or(RegistryError::NodeUnknown(node))?;
        Ok((entry.name.clone(), entry.cluster.clone(), cluster.clone()))
    }

    /// Replaces the alarms that concern one object of a node.
    pub(crate) fn set_alarms(&self, node: NodeId, object: &str, refused: Vec<Refused>) {
        let since = self.now();
        let alarms = refused.into_iter().map(|r| NodeAlarm {
            code: r.code.id.to_owned(),
            object: object.to_owned(),
            message: r.message,
            since,
        });
        if self.subscriptions().set_alarms(node, object, alarms.collect()) {
            self.status_due.notify_one();
        }
    }
}

/// What a placed workload is written from.
struct Placement {
    at: WorkloadRef,
    instance: Instance,
    class: u32,
    identity: Identity,
    held: BTreeSet<IpAddr>,
}

async fn stored(
    transaction: &mut Transaction,
    node: NodeId,
) -> Result<(BTreeMap<String, ObjectKey>, BTreeMap<u32, SlotRecord>), RegistryError> {
    let mut documents = BTreeMap::new();
    for (uid, value) in transaction.records(&format!("{WORKLOADS}/{node}")).await? {
        documents.insert(uid.clone(), decode(WORKLOADS, &uid, &value)?);
    }
    let mut slots = BTreeMap::new();
    for (key, value) in transaction.records(&format!("{SLOTS}/{node}")).await? {
        if let Ok(number) = key.parse() {
            slots.insert(number, decode(SLOTS, &key, &value)?);
        }
    }
    Ok((documents, slots))
}

/// The slot of a workload and its instance; `None` when no slot is free.
async fn bind(
    transaction: &mut Transaction,
    node: &mut Reporter,
    uid: &str,
) -> Result<Option<(WorkloadRef, Instance)>, RegistryError> {
    let Ok(bound) = node.pool.bind(uid.to_owned()) else { return Ok(None) };
    let number = bound.number();
    let standing = Standing::Bound { owner: uid.to_owned() };
    let kept = match bound {
        crate::slots::Bound::Kept(_) => node.slots.get(&number).map(|record| record.instance),
        crate::slots::Bound::New(_) => None,
    };
    let instance = match kept {
        Some(instance) => instance,
        None => {
            let mut nonce = [0; 16];
            // Without randomness a slot cannot be bound safely; none is.
            if OsRng.try_fill_bytes(&mut nonce).is_err() {
                return Ok(None);
            }
            instance(&node.trust_domain, uid, &nonce).0
        }
    };
    let record = SlotRecord { standing, instance };
    if node.slots.get(&number) != Some(&record) {
        put(transaction, &format!("{SLOTS}/{}", node.id), &number.to_string(), &record).await?;
        node.slots.insert(number, record);
    }
    let slot = Slot(u16::try_from(number).unwrap_or_default());
    Ok(Some((WorkloadRef { node: node.id, slot }, Instance(instance))))
}

/// A workload is gone: its document goes, its slot drains.
async fn remove(transaction: &mut Transaction, node: &mut Reporter, uid: &str) -> Result<(), RegistryError> {
    let Some(document) = node.documents.remove(uid) else { return Ok(()) };
    transaction.delete(&document, Precondition::None).await?;
    transaction.delete_record(&format!("{WORKLOADS}/{}", node.id), uid).await?;
    let since = transaction.revision().await?.0;
    let Some(number) = node.pool.release(&uid.to_owned(), since) else { return Ok(()) };
    let order = node.slots.values().filter_map(|record| match record.standing {
        Standing::Released { order, .. } => Some(order + 1),
        Standing::Bound { .. } => None,
    });
    let order = order.max().unwrap_or(0);
    if let Some(record) = node.slots.get_mut(&number) {
        record.standing = Standing::Released { owner: uid.to_owned(), since, order };
        put(transaction, &format!("{SLOTS}/{}", node.id), &number.to_string(), record).await?;
    }
    Ok(())
}

/// The number of an attribute set; another set never gets it.
async fn intern(transaction: &mut Transaction, identity: &Identity) -> Result<u32, RegistryError> {
    let content = serde_json::to_vec(identity.attributes()).map_err(|e| RegistryError::Record("class".into(), e))?;
    Ok(transaction.intern("class", &content, CLASS_MAX).await?)
}

async fn write(
    transaction: &mut Transaction,
    node: &mut Reporter,
    claim: &Claim,
    key: &ObjectKey,
    placement: &Placement,
) -> Result<(), RegistryError> {
    let before = transaction.get(key).await?;
    let before: Option<WorkloadStatus> = before.as_ref().map(status_of).transpose()?;
    let mut status = WorkloadStatus {
        uid: claim.uid.clone(),
        name: claim.name.clone(),
        node: node.name.clone(),
        cluster: node.cluster.clone(),
        workload_type: claim.workload_type.clone(),
        state: WorkloadState::Pending,
        slot: Some(placement.at.slot.0),
        instance: Some(format!("{:016x}", placement.instance.0)),
        class: Some(placement.class),
        attributes: placement.identity.attributes().clone().into(),
        addresses: placement.held.iter().map(ToString::to_string).collect(),
        refused: None,
        revocation: None,
        placed_revision: 0,
        since: Some(node.now),
    };
    if let Some(before) = before {
        // What did not change keeps its history, so that a repeated report writes nothing.
        status.since = before.since;
        let same = WorkloadStatus {
            placed_revision: 0,
            state: WorkloadState::Pending,
            revocation: None,
            refused: None,
            ..before.clone()
        };
        if same == status && before.slot.is_some() {
            status = WorkloadStatus { refused: None, ..before };
        }
    }
    if status.placed_revision == 0 {
        status.placed_revision = transaction.revision().await?.0;
    }
    put_workload(transaction, node, &claim.uid, key, &status).await
}

/// Shows a refused workload to operators; one that was accepted before stays as it was, with the refusal beside it.
async fn keep_refused(
    transaction: &mut Transaction,
    node: &mut Reporter,
    claim: &Claim,
    refused: &Refused,
) -> Result<(), RegistryError> {
    let refusal = Some(Refusal { code: refused.code.id.to_owned(), message: refused.message.clone() });
    if let Some(key) = node.documents.get(&claim.uid).cloned() {
        let Some(object) = transaction.get(&key).await? else { return Ok(()) };
        let status = WorkloadStatus { refused: refusal, ..status_of(&object)? };
        return put_workload(transaction, node, &claim.uid, &key, &status).await;
    }
    let nameable = class::check_uid(&claim.uid).is_ok() && policy::namespace::check_name(&claim.name).is_ok();
    let key = document_key(&node.grant.namespace, &claim.name, &node.name);
    if !nameable || node.is_full() || node.documents.values().any(|taken| *taken == key) {
        return Ok(());
    }
    let status = WorkloadStatus {
        uid: claim.uid.clone(),
        name: claim.name.clone(),
        node: node.name.clone(),
        cluster: node.cluster.clone(),
        workload_type: shown(&claim.workload_type),
        state: WorkloadState::Refused,
        slot: None,
        instance: None,
        class: None,
        attributes: BTreeMap::new(),
        addresses: Vec::new(),
        refused: refusal,
        revocation: None,
        placed_revision: 0,
        since: Some(node.now),
    };
    put_workload(transaction, node, &claim.uid, &key, &status).await
}

async fn put_workload(
    transaction: &mut Transaction,
    node: &mut Reporter,
    uid: &str,
    key: &ObjectKey,
    status: &WorkloadStatus,
) -> Result<(), RegistryError> {
    let object = Object {
        api_version: API_VERSION.into(),
        kind: WorkloadSpec::KIND.into(),
        metadata: Metadata { namespace: key.namespace.clone(), name: key.name.clone(), ..Metadata::default() },
        spec: serde_json::json!({}),
        status: Some(to_json(key, status)?),
    };
    transaction.put(&object, Precondition::None, node.now).await?;
    match node.documents.insert(uid.to_owned(), key.clone()) {
        Some(before) if before == *key => return Ok(()),
        // It moved to another namespace.
        Some(before) => {
            transaction.delete(&before, Precondition::None).await?;
        }
        None => {}
    }
    put(transaction, &format!("{WORKLOADS}/{}", node.id), uid, key).await
}

fn document_key(namespace: &str, name: &str, node: &str) -> ObjectKey {
    ObjectKey::new(WorkloadSpec::KIND, namespace, &format!("{name}.{node}"))
}

fn claim_of(workload: wire::LocalWorkload) -> (Claim, Vec<String>) {
    let claim = Claim {
        uid: workload.uid,
        name: workload.name,
        workload_type: workload.r#type,
        relative_namespace: workload.relative_namespace,
        labels: workload.labels,
        observed: workload.observed,
    };
    (claim, workload.own_addresses)
}

/// The status of a document, typed.
pub(super) fn status_of<T: serde::de::DeserializeOwned>(object: &Object) -> Result<T, RegistryError> {
    let status = object.status.clone().unwrap_or_default();
    serde_json::from_value(status).map_err(|e| RegistryError::Record(object.key().to_string(), e))
}

/// A status as documents hold it.
pub(super) fn to_json<T: Serialize>(key: &ObjectKey, status: &T) -> Result<serde_json::Value, RegistryError> {
    serde_json::to_value(status).map_err(|e| RegistryError::Record(key.to_string(), e))
}

/// What alarms call a workload. A peer chose the text: only a UUID is taken, which is short and none of our own words.
fn named(uid: &str) -> &str {
    if class::check_uid(uid).is_ok() { uid } else { "workload" }
}

/// The beginning of a text that a peer chose.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 256;
    text.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect()
}
