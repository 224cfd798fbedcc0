//! Applying many documents in one transaction: all of them, or none.

use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::flow::FlowRow;
use crate::object::{Object, Revision};
use crate::problem::Diagnostic;

/// What a client sends to `POST …/apply`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    /// Files of YAML or JSON, each with any number of documents.
    #[serde(deserialize_with = "mappings")]
    pub sources: Vec<Source>,
    /// Namespace for documents that name none; absent means `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Deletes, in the same transaction, what was applied before and is not among the documents any more.
    #[serde(default, deserialize_with = "mapping", skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
    /// Every document gets the label [`OWNER`] with this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// The label that says who applies an object.
pub const OWNER: &str = "stolos.dev/owner";

/// Which objects go when they are not among the documents. Everything given must hold, and something must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prune {
    /// Those that this owner applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Those in this namespace and below it; the namespace itself stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// How messages call it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A value that is read from a mapping only: a derived type would be read from a list as well, by the order of its fields.
struct Mapping<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Mapping<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = T;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mapping")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        reader.deserialize_map(Reader(PhantomData)).map(Self)
    }
}

fn mapping<'de, T: Deserialize<'de>, D: Deserializer<'de>>(reader: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Mapping<T>>::deserialize(reader)?.map(|mapping| mapping.0))
}

fn mappings<'de, T: Deserialize<'de>, D: Deserializer<'de>>(reader: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Mapping<T>>::deserialize(reader)?.into_iter().map(|mapping| mapping.0).collect())
}

/// What an apply did, or with `dryRun` would have done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyResponse {
    /// Per document, in the order given.
    pub results: Vec<ApplyResult>,
    /// The revision of the write; where everything was so already, the one since which it is; with `dryRun` the one
    /// that it was computed at.
    pub revision: Revision,
    /// Whether nothing was written.
    #[serde(default)]
    pub dry_run: bool,
    /// Warnings about documents that were taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// With `dryRun`: flows seen of late that would be refused from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_break: Vec<FlowRow>,
}

/// What happened to one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyResult {
    /// As it is now.
    pub object: Object,
    /// What was done.
    pub outcome: ApplyOutcome,
}

/// What was done with one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApplyOutcome {
    /// There was none of that name.
    Created,
    /// It was changed.
    Updated,
    /// It was so already; nothing was written.
    Unchanged,
    /// It was not among the documents, and is gone.
    Deleted,
}

impl std::fmt::Display for ApplyOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}
