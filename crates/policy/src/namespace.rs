//! Names in the tenancy tree: namespaces, and things that live in one.
//!
//! Pure values; which namespaces exist is the server's knowledge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest namespace path in bytes.
pub const PATH_LEN_MAX: usize = 512;
/// Most segments of a namespace path.
pub const PATH_DEPTH_MAX: usize = 16;
/// Longest segment of a path in bytes (a DNS label, so that Kubernetes namespaces fit).
pub const SEGMENT_LEN_MAX: usize = 63;
/// Longest object name in bytes (a DNS subdomain).
pub const NAME_LEN_MAX: usize = 253;

/// A node of the tenancy tree.
///
/// Shape:  `/` for the root, else `/a/b`: at most [`PATH_DEPTH_MAX`] DNS labels (`a-z0-9-`, at most
///         [`SEGMENT_LEN_MAX`] bytes each), no trailing slash, at most [`PATH_LEN_MAX`] bytes.
/// Errors: [`NamespaceError`] names the part that is wrong.
/// Cost:   cloning copies a reference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespacePath(Arc<str>);

/// Why a text is no namespace path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// It does not begin with a slash.
    #[error("a namespace path begins with `/`, as in `/acme/prod`")]
    NotAbsolute,
    /// It ends with a slash, or has two in a row.
    #[error("a namespace path has no empty segment")]
    EmptySegment,
    /// A segment is no DNS label.
    #[error("`{0}` is no namespace segment: use a-z, 0-9 and `-` inside, at most 63 characters")]
    BadSegment(String),
    /// Too many segments or bytes.
    #[error("a namespace path has at most 16 segments and 512 characters")]
    TooLong,
}

impl NamespacePath {
    /// The root of the tree, `/`.
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Parses `/` or `/a/b`.
    pub fn new(text: &str) -> Result<Self, NamespaceError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(NamespaceError::NotAbsolute);
        };
        if text.len() > PATH_LEN_MAX {
            return Err(NamespaceError::TooLong);
        }
        if rest.is_empty() {
            return Ok(Self::root());
        }
        for (index, segment) in rest.split('/').enumerate() {
            if index >= PATH_DEPTH_MAX {
                return Err(NamespaceError::TooLong);
            }
            if segment.is_empty() {
                return Err(NamespaceError::EmptySegment);
            }
            if segment.len() > SEGMENT_LEN_MAX || !is_label(segment) {
                return Err(NamespaceError::BadSegment(segment.to_owned()));
            }
        }
        Ok(Self(Arc::from(text)))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// How many segments the path has; the root has none.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.matches('/').count() }
    }

    /// Whether `other` is this namespace or lies below it.
    pub fn contains(&self, other: &NamespacePath) -> bool {
        path_contains(&self.0, &other.0)
    }

    /// The namespace one step up; `None` for the root.
    pub fn parent(&self) -> Option<NamespacePath> {
        parent_str(&self.0).map(|p| Self(Arc::from(p)))
    }

    /// This namespace and everything above it, nearest first, the root last.
    pub fn and_ancestors(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(&*self.0), |p| parent_str(p))
    }

    /// The namespace `relative` below this one; an empty text is this one.
    pub fn join(&self, relative: &str) -> Result<Self, NamespaceError> {
        match (relative, self.is_root()) {
            ("", _) => Ok(self.clone()),
            (_, true) => Self::new(&format!("/{relative}")),
            (_, false) => Self::new(&format!("{}/{relative}", self.0)),
        }
    }

    /// The deepest namespace that contains both.
    pub fn common(&self, other: &NamespacePath) -> NamespacePath {
        let shared = self.and_ancestors().find(|p| path_contains(p, &other.0));
        Self(Arc::from(shared.unwrap_or("/")))
    }
}

/// `/a` contains `/a` and `/a/b`, not `/ab`.
pub(crate) fn path_contains(outer: &str, inner: &str) -> bool {
    outer.len() == 1 || (inner.starts_with(outer) && matches!(inner.as_bytes().get(outer.len()), None | Some(b'/')))
}

fn parent_str(path: &str) -> Option<&str> {
    match path.rfind('/') {
        Some(0) if path.len() == 1 => None,
        Some(0) => Some("/"),
        Some(at) => Some(&path[..at]),
        None => None,
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

impl fmt::Display for NamespacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NamespacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NamespacePath {
    type Err = NamespaceError;
    fn from_str(text: &str) -> Result<Self, NamespaceError> {
        Self::new(text)
    }
}

impl TryFrom<String> for NamespacePath {
    type Error = NamespaceError;
    fn try_from(text: String) -> Result<Self, NamespaceError> {
        Self::new(&text)
    }
}

impl From<NamespacePath> for String {
    fn from(path: NamespacePath) -> String {
        path.0.to_string()
    }
}

/// Why a text is no object name, or no `/namespace:name`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name part is empty, too long or has characters that names do not have.
    #[error("`{0}` is no name: use a-z, 0-9, `-` and `.` inside, at most 253 characters")]
    BadName(String),
    /// There is no `:` between namespace and name.
    #[error("a qualified name is written `/namespace:name`")]
    NotQualified,
    /// The namespace part is wrong.
    #[error("the namespace of a qualified name is not valid")]
    Namespace(#[source] NamespaceError),
}

/// Checks an object name: DNS labels joined by dots, at most [`NAME_LEN_MAX`] bytes.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let labels = name.split('.').all(|l| !l.is_empty() && is_label(l));
    if name.len() > NAME_LEN_MAX || !labels {
        return Err(NameError::BadName(name.to_owned()));
    }
    Ok(())
}

/// A namespace and a name in it; cloning copies a reference.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct QualifiedName {
    namespace: NamespacePath,
    name: Box<str>,
}

macro_rules! qualified {
    ($(#[$doc:meta])* $id:ident) => {
        $(#[$doc])*
        ///
        /// Shape: `/namespace:name`; in the root, `/:name`. Cloning copies a reference.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $id(Arc<QualifiedName>);

        impl $id {
            /// Checks the name and puts it in its namespace.
            pub fn new(namespace: NamespacePath, name: &str) -> Result<Self, NameError> {
                check_name(name)?;
                Ok(Self(Arc::new(QualifiedName { namespace, name: name.into() })))
            }

            /// Where it lives.
            pub fn namespace(&self) -> &NamespacePath {
                &self.0.namespace
            }

            /// Its name there.
            pub fn name(&self) -> &str {
                &self.0.name
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", self.0.namespace, self.0.name)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $id {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let (namespace, name) = text.split_once(':').ok_or(NameError::NotQualified)?;
                Self::new(NamespacePath::new(namespace).map_err(NameError::Namespace)?, name)
            }
        }

        impl TryFrom<String> for $id {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> String {
                id.to_string()
            }
        }
    };
}

qualified! {
    /// Names one Policy of the trust domain.
    PolicyId
}
qualified! {
    /// Names one ExternalNetwork of the trust domain.
    ExternalId
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NamespacePath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_checked() {
        for good in ["/", "/a", "/acme/prod/eu-1/shop", "/0"] {
            assert_eq!(path(good).to_string(), good);
        }
        for bad in ["", "a", "/a/", "//", "/A", "/a//b", "/-a", "/a-", "/a_b", "/a*", "/a/**"] {
            assert!(NamespacePath::new(bad).is_err(), "{bad}");
        }
        assert!(NamespacePath::new(&"/a".repeat(16)).is_ok());
        assert_eq!(NamespacePath::new(&"/a".repeat(17)), Err(NamespaceError::TooLong));
    }

    #[test]
    fn subtrees_end_at_a_slash() {
        assert!(path("/a").contains(&path("/a")));
        assert!(path("/a").contains(&path("/a/b")));
        assert!(!path("/a").contains(&path("/ab")));
        assert!(!path("/a/b").contains(&path("/a")));
        assert!(path("/").contains(&path("/x/y")));
    }

    #[test]
    fn ancestors_go_up_to_the_root() {
        assert_eq!(path("/a/b").and_ancestors().collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(path("/").and_ancestors().collect::<Vec<_>>(), ["/"]);
        assert_eq!(path("/a").parent(), Some(path("/")));
        assert_eq!(path("/").parent(), None);
        assert_eq!(path("/a/b/c").common(&path("/a/bc")), path("/a"));
        assert_eq!(path("/a").common(&path("/b")), path("/"));
        assert_eq!(path("/").join("x/y").unwrap(), path("/x/y"));
        assert_eq!(path("/a").join("").unwrap(), path("/a"));
    }

    #[test]
    fn qualified_names_parse_and_print() {
        for good in ["/:stripe", "/acme:web-to-db", "/acme/shop:web.n1"] {
            assert_eq!(good.parse::<PolicyId>().unwrap().to_string(), good);
        }
        for bad in ["stripe", "acme:x", "/acme:", "/acme:X", "/acme:a..b", "/a:b:c"] {
            assert!(bad.parse::<ExternalId>().is_err(), "{bad}");
        }
    }
}
