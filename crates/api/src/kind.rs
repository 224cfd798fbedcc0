//! The one table of kinds. REST routes, the CLI, `explain field` and the checks of manifests derive from it.
//!
//! A new kind is one file in `kind/` and one row in [`KINDS`].

pub mod cluster;
pub mod external_network;
pub mod namespace;
pub mod node;
pub mod policy;
pub mod revocation;
pub mod service;
pub mod workload;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object::Object;

/// Name of the kind that makes the tenancy tree.
pub const NAMESPACE: &str = "Namespace";

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// In the root only; names are unique in the fleet.
    Fleet,
    /// In any namespace.
    Namespace,
}

/// What can be done with objects of a kind over the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Create or change.
    Write,
    /// Remove.
    Delete,
}

/// Verbs of kinds that users write.
const ALL: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch, Verb::Write, Verb::Delete];
/// Verbs of kinds that agents report and that come and go with what they stand for.
const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
/// Verbs of nodes: what is gone for good is deleted by an operator.
const READ_DELETE: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch, Verb::Delete];

/// One row of the table.
#[derive(Debug)]
pub struct Kind {
    /// `ExternalNetwork`.
    pub name: &'static str,
    /// `externalnetworks`: the word in URLs.
    pub plural: &'static str,
    /// Other words that the CLI takes, lower case: singular and short forms.
    pub aliases: &'static [&'static str],
    /// Where objects live.
    pub scope: Scope,
    /// What the API offers.
    pub verbs: &'static [Verb],
    /// One sentence for `stolos explain field KIND`.
    pub about: &'static str,
    /// JSON schema of the whole object.
    pub schema: fn() -> Schema,
    /// The same as a reference to a definition of a document's generator.
    pub component: fn(&mut SchemaGenerator) -> Schema,
}

impl Kind {
    /// Whether users write it.
    pub fn writable(&self) -> bool {
        self.verbs.contains(&Verb::Write)
    }
}

/// The spec type of a kind, with what belongs to it.
pub trait Spec: Serialize + DeserializeOwned + JsonSchema {
    /// The kind's name.
    const KIND: &'static str;
    /// What the system reports of it.
    type Status: Serialize + DeserializeOwned + JsonSchema;
}

/// Every kind, in the order in which a set of documents can be created.
pub const KINDS: &[Kind] = &[
    Kind {
        name: NAMESPACE,
        plural: "namespaces",
        aliases: &["namespace", "ns"],
        scope: Scope::Namespace,
        verbs: ALL,
        about: "A node of the tenancy tree, and the posture of everything below it.",
        schema: schema::<namespace::NamespaceSpec>,
        component: component::<namespace::NamespaceSpec>,
    },
    Kind {
        name: "Cluster",
        plural: "clusters",
        aliases: &["cluster"],
        scope: Scope::Fleet,
        verbs: ALL,
        about: "A group of nodes: where it is, how its nodes enrol, and what they may assert.",
        schema: schema::<cluster::ClusterSpec>,
        component: component::<cluster::ClusterSpec>,
    },
    Kind {
        name: "ExternalNetwork",
        plural: "externalnetworks",
        aliases: &["externalnetwork", "external", "network", "net"],
        scope: Scope::Namespace,
        verbs: ALL,
        about: "Addresses outside the fleet, under a name that policies can use: `@external=NAME`.",
        schema: schema::<external_network::ExternalNetworkSpec>,
        component: component::<external_network::ExternalNetworkSpec>,
    },
    Kind {
        name: "Service",
        plural: "services",
        aliases: &["service", "svc"],
        scope: Scope::Namespace,
        verbs: ALL,
        about: "The addresses by which clients reach a set of workloads, and who stands behind them.",
        schema: schema::<service::ServiceSpec>,
        component: component::<service::ServiceSpec>,
    },
    Kind {
        name: "Policy",
        plural: "policies",
        aliases: &["policy", "pol"],
        scope: Scope::Namespace,
        verbs: ALL,
        about: "Who may reach what, on which ports.",
        schema: schema::<policy::PolicySpec>,
        component: component::<policy::PolicySpec>,
    },
    Kind {
        name: "Revocation",
        plural: "revocations",
        aliases: &["revocation", "rev"],
        scope: Scope::Fleet,
        verbs: ALL,
        about: "Takes a workload, a node, a cluster or a SPIFFE ID out of the fleet until it is deleted.",
        schema: schema::<revocation::RevocationSpec>,
        component: component::<revocation::RevocationSpec>,
    },
    Kind {
        name: "Node",
        plural: "nodes",
        aliases: &["node"],
        scope: Scope::Fleet,
        verbs: READ_DELETE,
        about: "One kernel that runs an agent. Reported, never written; deleted when it is gone for good.",
        schema: schema::<node::NodeSpec>,
        component: component::<node::NodeSpec>,
    },
    Kind {
        name: "Workload",
        plural: "workloads",
        aliases: &["workload", "wl"],
        scope: Scope::Namespace,
        verbs: READ,
        about: "What runs and is protected. Reported, never written.",
        schema: schema::<workload::WorkloadSpec>,
        component: component::<workload::WorkloadSpec>,
    },
];

/// Finds a kind by its name, plural or alias, in any letter case.
pub fn find(word: &str) -> Option<&'static Kind> {
    let lower = word.to_ascii_lowercase();
    KINDS.iter().find(|k| k.name.eq_ignore_ascii_case(word) || k.plural == lower || k.aliases.contains(&lower.as_str()))
}

/// The kind that somebody may have meant.
pub fn suggest(word: &str) -> Option<&'static Kind> {
    let lower = word.to_ascii_lowercase();
    let near = |k: &&'static Kind| strsim::damerau_levenshtein(&k.name.to_ascii_lowercase(), &lower);
    KINDS.iter().min_by_key(near).filter(|k| near(k) <= 3)
}

fn schema<S: Spec>() -> Schema {
    schemars::schema_for!(Object<S, S::Status>)
}

fn component<S: Spec>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Object<S, S::Status>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_one_kind_each() {
        let mut words: Vec<String> = Vec::new();
        for kind in KINDS {
            words.push(kind.plural.to_owned());
            words.extend(kind.aliases.iter().map(|a| (*a).to_owned()));
            assert_eq!(find(kind.name).map(|k| k.name), Some(kind.name));
        }
        let count = words.len();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn misspelt_kinds_get_a_suggestion() {
        assert_eq!(suggest("Polcy").map(|k| k.name), Some("Policy"));
        assert_eq!(suggest("externalNetwrok").map(|k| k.name), Some("ExternalNetwork"));
        assert!(suggest("Deployment").is_none());
    }
}
