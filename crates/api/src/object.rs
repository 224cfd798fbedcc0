//! The shape that every document has: apiVersion, kind, metadata, spec, status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The only `apiVersion` of this version.
pub const API_VERSION: &str = "stolos.dev/v1";
/// Most labels of an object, and most annotations.
pub const LABELS_MAX: usize = 64;
/// Longest annotation in bytes. Labels are attributes: see `policy::attribute`.
pub const ANNOTATION_LEN_MAX: usize = 16 * 1024;
/// What a name looks like, for schemas; `policy::namespace::check_name` says the same.
pub const NAME_PATTERN: &str = r"^(/|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$";
/// What the path of a namespace looks like, for schemas; `policy::namespace::NamespacePath` says the same.
pub const NAMESPACE_PATTERN: &str = r"^(/|(/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){1,16})$";

/// A document. `S` and `T` are the kind's spec and status; the default is the untyped form that the store keeps.
///
/// Shape:  unknown fields are errors. `status` is written by the system; what a client sends there is ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object<S = Value, T = Value> {
    /// Always `stolos.dev/v1`.
    pub api_version: String,
    /// One of the kinds, as in `Policy`.
    pub kind: String,
    /// Where the object lives and what it is called.
    pub metadata: Metadata,
    /// What the author wants. Kinds that agents report have none.
    pub spec: S,
    /// What the system reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<T>,
}

/// Where an object lives, what it is called, and its history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The namespace it lives in, as a path from the root. Kinds of fleet scope live in `/`.
    #[serde(default = "root_path")]
    #[schemars(length(max = 512), regex(pattern = NAMESPACE_PATTERN))]
    pub namespace: String,
    /// Its name, unique for its kind in its namespace. The root namespace is called `/`.
    #[schemars(length(max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The author's own `key: value` pairs, for selecting objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools; nothing selects on them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Given by the system; sent back, it must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<UuidText>")]
    pub uid: Option<Uuid>,
    /// Fleet-wide number of the write that made spec, labels and annotations so; sent back, the write fails if somebody
    /// wrote since. What the system reports in `status` does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// When it was first written. Given by the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub created: Option<Timestamp>,
    /// When its spec, labels or annotations were last written. Given by the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub updated: Option<Timestamp>,
}

/// A fleet-wide, monotonic number of a write. 0 is before the first write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What names one object: kind, namespace, name. Prints as `Policy /acme:web-to-db`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectKey {
    /// The kind's name, as in `Policy`.
    pub kind: String,
    /// Path of the namespace.
    pub namespace: String,
    /// The name there.
    pub name: String,
}

impl ObjectKey {
    /// Puts the three together; checks nothing.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind.as_str() {
            crate::kind::NAMESPACE => f.write_str("Namespace ").and_then(|()| f.write_str(&self.path())),
            kind => write!(f, "{kind} {}:{}", self.namespace, self.name),
        }
    }
}

impl ObjectKey {
    /// For a Namespace the path that it *is*; for other kinds the namespace the object is in.
    pub fn path(&self) -> String {
        match (self.kind.as_str(), self.namespace.as_str(), self.name.as_str()) {
            (crate::kind::NAMESPACE, _, "/") => "/".to_owned(),
            (crate::kind::NAMESPACE, "/", name) => format!("/{name}"),
            (crate::kind::NAMESPACE, parent, name) => format!("{parent}/{name}"),
            (_, namespace, _) => namespace.to_owned(),
        }
    }

    /// The key of the Namespace object for a path: `/` is called `/` and lives in itself.
    pub fn of_namespace(path: &str) -> Self {
        match path.rsplit_once('/') {
            Some((_, "")) | None => Self::new(crate::kind::NAMESPACE, "/", "/"),
            Some(("", name)) => Self::new(crate::kind::NAMESPACE, "/", name),
            Some((parent, name)) => Self::new(crate::kind::NAMESPACE, parent, name),
        }
    }
}

impl<S, T> Object<S, T> {
    /// What names it.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.kind, &self.metadata.namespace, &self.metadata.name)
    }
}

/// The schema of a point in time (RFC 3339).
pub(crate) struct TimeText;
/// The schema of a UUID.
pub(crate) struct UuidText;

macro_rules! texts {
    ($($name:ident = $format:literal;)*) => {
        $(impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "format": $format})
            }
        })*
    };
}
texts! {
    TimeText = "date-time";
    UuidText = "uuid";
}

fn root_path() -> String {
    "/".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_parent_as_namespace() {
        for path in ["/", "/acme", "/acme/prod/shop"] {
            assert_eq!(ObjectKey::of_namespace(path).path(), path);
        }
        assert_eq!(ObjectKey::of_namespace("/acme/prod").to_string(), "Namespace /acme/prod");
        assert_eq!(ObjectKey::new("Policy", "/acme", "x").to_string(), "Policy /acme:x");
    }

    #[test]
    fn unknown_fields_are_errors() {
        let text = r#"{"apiVersion":"stolos.dev/v1","kind":"Policy","metadata":{"name":"x","lables":{}},"spec":{}}"#;
        assert!(serde_json::from_str::<Object>(text).unwrap_err().to_string().contains("lables"));
    }
}
