//! What a workload is: its attributes, and the identity they make.
//!
//! Pure values with limits. Who may assert which attribute is the server's business.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::namespace::{ExternalId, NamespaceError, NamespacePath};

/// Most attributes of one identity, system attributes included.
pub const ATTRIBUTES_MAX: usize = 128;
/// Longest key in bytes: a Kubernetes label key (253 + `/` + 63).
pub const KEY_LEN_MAX: usize = 317;
/// Longest value in bytes: room for paths and image references.
pub const VALUE_LEN_MAX: usize = 1024;

/// The key of the namespace a workload lives in.
pub const NAMESPACE_KEY: &str = "@namespace";
/// The key that selectors use for external ends; no workload ever has it.
pub const EXTERNAL_KEY: &str = "@external";

/// Every key that the system attests or derives. Users cannot assert keys that begin with `@`.
pub const SYSTEM_KEYS: &[&str] = &[
    "@namespace",
    "@cluster",
    "@region",
    "@node",
    "@type",
    "@spiffe",
    "@k8s:namespace",
    "@k8s:serviceaccount",
    "@k8s:pod",
    "@k8s:owner",
    "@k8s:image",
    "@k8s:image-digest",
    "@linux:unit",
    "@linux:user",
    "@linux:exe",
    "@linux:exe-sha256",
    "@cloud:provider",
    "@cloud:account",
    "@cloud:region",
    "@cloud:zone",
    "@cloud:instance",
    "@mesh",
];

/// Why an attribute set is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The key has characters that keys do not have, is empty or too long.
    #[error("`{0}` is no attribute key: letters, digits and `-_./:` inside, at most 317 characters")]
    BadKey(String),
    /// A key that begins with `@` and is none of [`SYSTEM_KEYS`].
    #[error("`{0}` is no system attribute")]
    UnknownSystemKey(String),
    /// A user tried to assert a key that only the system may set.
    #[error("`{0}` is set by the system only")]
    SystemKey(String),
    /// The value has control characters or is too long.
    #[error("the value of `{0}` has control characters or more than 1024 bytes")]
    BadValue(String),
    /// More than [`ATTRIBUTES_MAX`].
    #[error("an identity has at most 128 attributes")]
    TooMany,
}

/// A set of `key=value`, keys unique, in canonical (byte) order of the keys.
///
/// Cost: one piece of text and one table, so that a fleet of identities stays small and a look at one is near memory.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Attributes {
    /// Keys and values one after the other: `k1v1k2v2`.
    text: Box<str>,
    /// For each attribute where its key ends and where its value ends.
    ends: Box<[(u32, u32)]>,
}

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one attribute, user or system; an equal key is replaced.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), AttributeError> {
        check_attribute(key, value)?;
        let place = self.position(key);
        if self.len() >= ATTRIBUTES_MAX && place.is_err() {
            return Err(AttributeError::TooMany);
        }
        let (at, skip) = place.map_or_else(|at| (at, 0), |at| (at, 1));
        let tail = (at + skip..self.len()).map(|i| self.pair(i));
        *self = Self::of_sorted((0..at).map(|i| self.pair(i)).chain([(key, value)]).chain(tail));
        Ok(())
    }

    /// Takes one attribute away; whether it was there.
    pub fn unset(&mut self, key: &str) -> bool {
        let Ok(at) = self.position(key) else {
            return false;
        };
        *self = Self::of_sorted((0..self.len()).filter(|i| *i != at).map(|i| self.pair(i)));
        true
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.position(key).ok().map(|at| self.pair(at).1)
    }

    /// All attributes in canonical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        (0..self.len()).map(|at| self.pair(at))
    }

    /// Those that users asserted.
    pub fn user(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|(k, _)| !k.starts_with('@'))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Pairs that are checked, in order, keys unique.
    fn of_sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        let at = |text: &String| u32::try_from(text.len()).expect("BUG: attributes have bounded lengths");
        for (key, value) in pairs {
            text.push_str(key);
            let key_end = at(&text);
            text.push_str(value);
            ends.push((key_end, at(&text)));
        }
        Self { text: text.into(), ends: ends.into() }
    }

    fn pair(&self, at: usize) -> (&str, &str) {
        let start = if at == 0 { 0 } else { self.ends[at - 1].1 as usize };
        let (key, value) = self.ends[at];
        (&self.text[start..key as usize], &self.text[key as usize..value as usize])
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.pair(middle).0.cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

/// Checks a key that a user wants to assert: well-formed, and not the system's.
pub fn check_user_key(key: &str) -> Result<(), AttributeError> {
    match key.starts_with('@') {
        true => Err(AttributeError::SystemKey(key.to_owned())),
        false => check_key(key),
    }
}

/// Checks one attribute, user or system.
pub fn check_attribute(key: &str, value: &str) -> Result<(), AttributeError> {
    check_key(key)?;
    if value.len() > VALUE_LEN_MAX || value.chars().any(char::is_control) {
        return Err(AttributeError::BadValue(key.to_owned()));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), AttributeError> {
    if key.starts_with('@') {
        return match SYSTEM_KEYS.contains(&key) {
            true => Ok(()),
            false => Err(AttributeError::UnknownSystemKey(key.to_owned())),
        };
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let good = key.chars().all(is_key_char) && ends(key.chars().next()) && ends(key.chars().next_back());
    match good && key.len() <= KEY_LEN_MAX {
        true => Ok(()),
        false => Err(AttributeError::BadKey(key.to_owned())),
    }
}

/// Characters a key may have after an `@` of the system.
pub(crate) fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':')
}

impl TryFrom<BTreeMap<String, String>> for Attributes {
    type Error = AttributeError;
    fn try_from(map: BTreeMap<String, String>) -> Result<Self, AttributeError> {
        if map.len() > ATTRIBUTES_MAX {
            return Err(AttributeError::TooMany);
        }
        for (key, value) in &map {
            check_attribute(key, value)?;
        }
        Ok(Self::of_sorted(map.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
    }
}

impl From<Attributes> for BTreeMap<String, String> {
    fn from(attributes: Attributes) -> Self {
        attributes.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Why attributes make no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Every workload lives in a namespace.
    #[error("the attributes have no @namespace")]
    NoNamespace,
    /// `@namespace` is no path.
    #[error("@namespace is not valid")]
    Namespace(#[source] NamespaceError),
    /// An attribute is not valid.
    #[error("an attribute is not valid")]
    Attribute(#[source] AttributeError),
}

/// The full attribute set of a workload; its SPIFFE id, where it has one, is the attribute `@spiffe`.
///
/// Always has a valid `@namespace`, so that no policy can be asked about a workload that lives nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    attributes: Attributes,
    namespace: NamespacePath,
}

impl Identity {
    /// Needs a valid `@namespace` among the attributes.
    pub fn new(attributes: Attributes) -> Result<Self, IdentityError> {
        let namespace = attributes.get(NAMESPACE_KEY).ok_or(IdentityError::NoNamespace)?;
        let namespace = NamespacePath::new(namespace).map_err(IdentityError::Namespace)?;
        Ok(Self { attributes, namespace })
    }

    /// From `key, value` pairs, `@namespace` among them.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, IdentityError> {
        let mut attributes = Attributes::new();
        for (key, value) in pairs {
            attributes.set(key, value).map_err(IdentityError::Attribute)?;
        }
        Self::new(attributes)
    }

    /// All attributes.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Where the workload lives.
    pub fn namespace(&self) -> &NamespacePath {
        &self.namespace
    }

    /// The SPIFFE id, where one was issued.
    pub fn spiffe(&self) -> Option<&str> {
        self.attributes.get("@spiffe")
    }
}

/// The other end of a flow, from one side's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer<'a> {
    /// A workload whose identity is known.
    Workload(&'a Identity),
    /// An end outside the fleet: the ExternalNetworks that cover its address. An empty set matches no policy.
    External(&'a std::collections::BTreeSet<ExternalId>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_cannot_assert_system_keys() {
        assert_eq!(check_user_key("@cluster"), Err(AttributeError::SystemKey("@cluster".into())));
        assert!(check_user_key("app.kubernetes.io/name").is_ok());
        assert!(matches!(check_attribute("@external", "x"), Err(AttributeError::UnknownSystemKey(_))));
    }

    #[test]
    fn limits_hold() {
        let mut attributes = Attributes::new();
        for index in 0..ATTRIBUTES_MAX {
            attributes.set(&format!("k{index}"), "v").unwrap();
        }
        assert_eq!(attributes.set("one-more", "v"), Err(AttributeError::TooMany));
        assert!(attributes.set("k1", "replaced").is_ok());
        assert!(matches!(attributes.set("", "v"), Err(AttributeError::BadKey(_))));
        assert!(matches!(attributes.set("a b", "v"), Err(AttributeError::BadKey(_))));
        assert!(matches!(attributes.set("k1", "a\nb"), Err(AttributeError::BadValue(_))));
    }

    #[test]
    fn attributes_are_a_sorted_map() {
        let mut attributes = Attributes::new();
        for (key, value) in [("b", "2"), ("a", "1"), ("c", ""), ("b", "3")] {
            attributes.set(key, value).unwrap();
        }
        assert_eq!(attributes.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3"), ("c", "")]);
        let map: BTreeMap<String, String> = attributes.clone().into();
        assert_eq!(Attributes::try_from(map), Ok(attributes.clone()));
        assert!(attributes.unset("a") && !attributes.unset("a"));
        assert_eq!((attributes.get("c"), attributes.get("a")), (Some(""), None));
    }

    #[test]
    fn an_identity_needs_a_namespace() {
        assert_eq!(Identity::from_pairs([("app", "web")]), Err(IdentityError::NoNamespace));
        assert!(matches!(Identity::from_pairs([("@namespace", "shop")]), Err(IdentityError::Namespace(_))));
        let web = Identity::from_pairs([("app", "web"), ("@namespace", "/shop")]).unwrap();
        assert_eq!(web.attributes().to_string(), "@namespace=/shop,app=web");
    }
}
