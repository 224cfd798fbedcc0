//! What depends on other documents: checked in the writing transaction, against what would be.
//!
//! [`admit`] writes a set of documents into a transaction and reports; whoever called commits or drops it.
//! [`remove`] does the same for a deletion.

mod prune;
mod reference;

use std::collections::{BTreeMap, BTreeSet};

use api::apply::{ApplyOutcome, ApplyResult};
use api::kind::cluster::ClusterSpec;
use api::kind::namespace::NamespaceSpec;
use api::kind::node::{NodeSpec, NodeStatus};
use api::kind::workload::{WorkloadSpec, WorkloadStatus};
use api::kind::{NAMESPACE, Spec};
use api::object::{Object, ObjectKey};
use api::problem::{self, Diagnostic, Problem as Document, Severity};
use jiff::Timestamp;
use policy::code::{api as api_code, manifest as code};
use policy::diagnostic::Problem;
use policy::namespace::NamespacePath;
use policy::posture::PostureTree;
use store::document::{Filter, Precondition, WriteError, Written};
use store::{StoreError, Transaction};

use crate::fleet::document::protection;
use crate::manifest::Manifest;

pub(crate) use prune::prune;

/// Why a set of documents was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The caller is told.
    #[error(transparent)]
    Refused(Box<Document>),
    /// A precondition does not hold, or the database failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Write(error.into())
    }
}

/// What was put into the transaction, with warnings.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Per document, in the order given.
    pub results: Vec<ApplyResult>,
    /// Warnings about documents that were taken.
    pub warnings: Vec<Diagnostic>,
}

/// Writes documents. Each carries its own precondition: `metadata.revision`, where its author gave one; `absent` asks
/// that there be none yet. Errors leave the transaction to be dropped.
pub async fn admit(
    write: &mut Transaction,
    manifests: &[Manifest<'_>],
    absent: bool,
    now: Timestamp,
) -> Result<Admitted, AdmitError> {
    let mut errors = twice(manifests);
    let before = Surroundings::load(write).await?;
    let mut admitted = Admitted::default();
    for manifest in manifests {
        let precondition = match (absent, manifest.object.metadata.revision) {
            (true, _) => Precondition::Absent,
            (false, Some(revision)) => Precondition::At(revision),
            (false, None) => Precondition::None,
        };
        let (object, written) = write.put(&manifest.object, precondition, now).await?;
        let outcome = match written {
            Written::Created => ApplyOutcome::Created,
            Written::Updated => ApplyOutcome::Updated,
            Written::Unchanged => ApplyOutcome::Unchanged,
        };
        admitted.results.push(ApplyResult { object, outcome });
    }
    let after = Surroundings::load(write).await?;
    let mut found = Vec::new();
    for manifest in manifests {
        found.extend(after.check_place(manifest));
        found.extend(after.check_posture(manifest, now));
        found.extend(reference::check(write, manifest, &after).await?);
    }
    let (wrong, warnings): (Vec<_>, Vec<_>) = found.into_iter().partition(|d| d.severity == Severity::Error);
    errors.extend(wrong);
    if !errors.is_empty() {
        errors.extend(warnings);
        return Err(AdmitError::Refused(Box::new(Document::invalid(errors))));
    }
    admitted.warnings = warnings;
    admitted.warnings.extend(after.tightened(&before, manifests, now));
    Ok(admitted)
}

/// The same object twice in one request: only one could hold.
fn twice(manifests: &[Manifest<'_>]) -> Vec<Diagnostic> {
    let mut seen = BTreeSet::new();
    let again = manifests.iter().filter(|manifest| !seen.insert(manifest.object.key()));
    again
        .map(|manifest| {
            let message = "this object stands in the request twice, and only one of them could hold";
            let span = manifest.span(&["metadata", "name"]);
            manifest.diagnose(Problem::new(code::DUPLICATE_KEY, span, message).field("metadata.name"))
        })
        .collect()
}

/// What checks look at: namespaces and clusters.
pub(crate) struct Surroundings {
    namespaces: BTreeSet<String>,
    postures: PostureTree,
    pub(crate) clusters: BTreeMap<String, ClusterSpec>,
}

impl Surroundings {
    async fn load(write: &mut Transaction) -> Result<Self, StoreError> {
        let mut namespaces = BTreeSet::from(["/".to_owned()]);
        let mut postures = PostureTree::new();
        for object in of_kind(write, NAMESPACE).await? {
            let path = object.key().path();
            if let (Ok(namespace), Ok(spec)) = (path.parse(), serde_json::from_value::<NamespaceSpec>(object.spec)) {
                postures.set(namespace, protection(&spec));
            }
            namespaces.insert(path);
        }
        let mut clusters = BTreeMap::new();
        for object in of_kind(write, ClusterSpec::KIND).await? {
            if let Ok(spec) = serde_json::from_value(object.spec) {
                clusters.insert(object.metadata.name, spec);
            }
        }
        Ok(Self { namespaces, postures, clusters })
    }

    /// The namespaces that a document names exist.
    fn check_place(&self, manifest: &Manifest<'_>) -> Vec<Diagnostic> {
        let object = &manifest.object;
        let mut named = vec![(object.metadata.namespace.as_str(), ["metadata", "namespace"])];
        if object.kind == ClusterSpec::KIND
            && let Some(namespace) = object.spec.get("namespace").and_then(serde_json::Value::as_str)
        {
            named.push((namespace, ["spec", "namespace"]));
        }
        let missing = named.into_iter().filter(|(path, _)| !self.namespaces.contains(*path));
        missing
            .map(|(path, field)| {
                let message = format!("there is no namespace {path}");
                let problem = Problem::new(api_code::NAMESPACE_MISSING, manifest.span(&field), message);
                let help = format!("add a Namespace document for {path} to the same apply, or create it first");
                manifest.diagnose(problem.field(field.join(".")).help(help))
            })
            .collect()
    }

    /// Children tighten, never loosen.
    fn check_posture(&self, manifest: &Manifest<'_>, now: Timestamp) -> Vec<Diagnostic> {
        let Some((path, said)) = self.declared(&manifest.object.key()) else { return Vec::new() };
        let found = policy::manifest::loosenings(&manifest.document.root, &path, &said, &self.postures, now);
        found.into_iter().map(|problem| manifest.diagnose(problem)).collect()
    }

    fn declared(&self, key: &ObjectKey) -> Option<(NamespacePath, policy::posture::Protection)> {
        if key.kind != NAMESPACE {
            return None;
        }
        let path: NamespacePath = key.path().parse().ok()?;
        let said = self.postures.declared().find(|(declared, _)| **declared == path)?;
        Some((path.clone(), *said.1))
    }

    /// Namespaces below those written whose settings do not hold any more.
    fn tightened(&self, before: &Self, manifests: &[Manifest<'_>], now: Timestamp) -> Vec<Diagnostic> {
        let written = |path: &NamespacePath| {
            manifests.iter().find(|m| m.object.kind == NAMESPACE && m.object.key().path() == path.as_str())
        };
        let mut warnings = Vec::new();
        for (path, said) in self.postures.declared() {
            let above = path.and_ancestors().skip(1).find_map(|p| written(&p.parse().ok()?));
            let (Some(above), None) = (above, written(path)) else { continue };
            let held = before.postures.loosenings(path, said, now);
            for loosening in self.postures.loosenings(path, said, now) {
                if held.contains(&loosening) {
                    continue;
                }
                let message = format!(
                    "{path} says `{}: {}`, which no longer holds: {} holds there now",
                    loosening.field, loosening.said, loosening.holds
                );
                let problem = Problem::new(code::POSTURE_LOOSENS, above.span(&["spec"]), message).warning();
                warnings.push(above.diagnose(problem));
            }
        }
        warnings
    }
}

/// Deletes an object, if nothing needs it; gives back what it was.
pub async fn remove(
    write: &mut Transaction,
    key: &ObjectKey,
    precondition: Precondition,
) -> Result<Object, AdmitError> {
    let refused = |kind, detail: String| Err(AdmitError::Refused(Box::new(Document::new(kind, detail))));
    match key.kind.as_str() {
        NAMESPACE if key.path() == "/" => {
            return refused(
                problem::ROOT_FIXED,
                "the root namespace cannot be deleted; change its posture instead".into(),
            );
        }
        NAMESPACE => {
            if let Some(tenant) = first_in(write, &key.path()).await? {
                let detail = format!("{} is not empty: {tenant} is in it; delete what it holds first", key.path());
                return refused(problem::NAMESPACE_IN_USE, detail);
            }
        }
        ClusterSpec::KIND => {
            if let Some(node) = node_of(write, &key.name).await? {
                let detail = format!("cluster {} still has nodes, {node} among them; delete its Nodes first", key.name);
                return refused(problem::CLUSTER_IN_USE, detail);
            }
        }
        NodeSpec::KIND => {
            for workload in workloads_of(write, &key.name).await? {
                write.delete(&workload, Precondition::None).await?;
            }
        }
        _ => {}
    }
    match write.delete(key, precondition).await? {
        Some(object) => Ok(object),
        None => refused(problem::NOT_FOUND, format!("there is no {key}")),
    }
}

/// Something that lives in a namespace or below it.
async fn first_in(write: &mut Transaction, path: &str) -> Result<Option<String>, StoreError> {
    let filter = Filter { namespace: Some(path.to_owned()), subtree: true, ..Filter::default() };
    if let Some(object) = write.list(&filter).await?.first() {
        return Ok(Some(object.key().to_string()));
    }
    let Ok(path) = path.parse::<NamespacePath>() else { return Ok(None) };
    let clusters = of_kind(write, ClusterSpec::KIND).await?;
    let lies_in = |object: &&Object| {
        let namespace = object.spec.get("namespace").and_then(serde_json::Value::as_str);
        namespace.and_then(|text| text.parse().ok()).is_some_and(|inner| path.contains(&inner))
    };
    Ok(clusters.iter().find(lies_in).map(|object| format!("the namespace of {}", object.key())))
}

async fn node_of(write: &mut Transaction, cluster: &str) -> Result<Option<String>, StoreError> {
    let nodes = of_kind(write, NodeSpec::KIND).await?;
    let belongs = |object: &&Object| status::<NodeStatus>(object).is_some_and(|status| status.cluster == cluster);
    Ok(nodes.iter().find(belongs).map(|object| object.metadata.name.clone()))
}

async fn workloads_of(write: &mut Transaction, node: &str) -> Result<Vec<ObjectKey>, StoreError> {
    let workloads = of_kind(write, WorkloadSpec::KIND).await?;
    let runs_there = |object: &&Object| status::<WorkloadStatus>(object).is_some_and(|status| status.node == node);
    Ok(workloads.iter().filter(runs_there).map(Object::key).collect())
}

async fn of_kind(write: &mut Transaction, kind: &str) -> Result<Vec<Object>, StoreError> {
    write.list(&Filter { kind: Some(kind.to_owned()), ..Filter::default() }).await
}

fn status<T: serde::de::DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_value(object.status.clone()?).ok()
}
