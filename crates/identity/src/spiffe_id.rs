//! Trust domains and SPIFFE ids, and the ids that Stolos itself gives out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// Longest trust domain name in bytes. Source: SPIFFE-ID section 2.1.
pub const TRUST_DOMAIN_LEN_MAX: usize = 255;
/// Longest SPIFFE id in bytes. Source: SPIFFE-ID section 2.3.
pub const ID_LEN_MAX: usize = 2048;

/// The root of identity: `example.org`, without scheme.
///
/// Shape: `a-z0-9.-_`, 1..=[`TRUST_DOMAIN_LEN_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// A SPIFFE id: `spiffe://trust-domain/path`.
///
/// Shape: the path is empty or `/seg/seg` of `a-zA-Z0-9.-_`, no `.` or `..` segment, no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    path: String,
}

/// Who a SPIFFE id of Stolos' own stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `/stolos/node/17`: an enrolled node's agent.
    Node(NodeId),
    /// `/stolos/admin/NAME`: an operator with all rights.
    Admin(String),
    /// `/stolos/server`: the control plane.
    Server,
    /// Anything else.
    Workload,
}

/// Why a text is no trust domain or SPIFFE id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// The trust domain has a character it may not have, is empty, or too long.
    #[error("a trust domain is 1 to 255 of a-z, 0-9, `.`, `-` and `_`, as in `example.org`")]
    TrustDomain,
    /// No `spiffe://` in front.
    #[error("a SPIFFE id begins with `spiffe://`")]
    Scheme,
    /// A path segment is empty, `.`, `..`, or has a character it may not have.
    #[error("a SPIFFE id's path has segments of a-z, A-Z, 0-9, `.`, `-` and `_`")]
    Path,
    /// Longer than 2048 bytes.
    #[error("a SPIFFE id has at most 2048 bytes")]
    TooLong,
}

impl TrustDomain {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, SpiffeIdError> {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
        if name.is_empty() || name.len() > TRUST_DOMAIN_LEN_MAX || !name.bytes().all(good) {
            return Err(SpiffeIdError::TrustDomain);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SpiffeId {
    /// Puts a path below a trust domain; the path is empty or begins with a slash.
    pub fn new(trust_domain: TrustDomain, path: &str) -> Result<Self, SpiffeIdError> {
        if let Some(rest) = path.strip_prefix('/') {
            let good = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
            let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(good);
            if !rest.split('/').all(segment) {
                return Err(SpiffeIdError::Path);
            }
        } else if !path.is_empty() {
            return Err(SpiffeIdError::Path);
        }
        if "spiffe://".len() + trust_domain.0.len() + path.len() > ID_LEN_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        Ok(Self { trust_domain, path: path.to_owned() })
    }

    /// The id of a node's agent.
    pub fn node(trust_domain: &TrustDomain, node: NodeId) -> Self {
        Self { trust_domain: trust_domain.clone(), path: format!("/stolos/node/{node}") }
    }

    /// The id of an operator; the name is one path segment.
    pub fn admin(trust_domain: &TrustDomain, name: &str) -> Result<Self, SpiffeIdError> {
        if name.contains('/') {
            return Err(SpiffeIdError::Path);
        }
        Self::new(trust_domain.clone(), &format!("/stolos/admin/{name}"))
    }

    /// The id of the control plane.
    pub fn server(trust_domain: &TrustDomain) -> Self {
        Self { trust_domain: trust_domain.clone(), path: "/stolos/server".to_owned() }
    }

    /// Where it is rooted.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Empty, or begins with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Who it stands for. A malformed id below `/stolos/` is a workload's: it has no rights.
    pub fn role(&self) -> Role {
        let parts: Vec<&str> = self.path.split('/').collect();
        match parts.as_slice() {
            ["", "stolos", "node", id] => {
                let number = id.parse().ok().and_then(NodeId::new);
                number.filter(|n| n.to_string() == *id).map_or(Role::Workload, Role::Node)
            }
            ["", "stolos", "admin", name] => Role::Admin((*name).to_owned()),
            ["", "stolos", "server"] => Role::Server,
            _ => Role::Workload,
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;
    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::new(text)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;
    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self::new(TrustDomain::new(domain)?, path)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeIdError;
    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        Self::new(&text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> String {
        domain.0
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;
    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_and_print() {
        for good in ["spiffe://example.org", "spiffe://example.org/a/B-1_.x", "spiffe://a/stolos/node/17"] {
            assert_eq!(good.parse::<SpiffeId>().unwrap().to_string(), good);
        }
        for bad in [
            "spiffe://",
            "example.org/a",
            "spiffe://Example.org",
            "spiffe://a/",
            "spiffe://a/b/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a/b?x",
            "spiffe://a:80/b",
            "spiffe://u@a/b",
            "spiffe://a/%41",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_are_exact() {
        let role = |path: &str| format!("spiffe://a{path}").parse::<SpiffeId>().unwrap().role();
        assert_eq!(role("/stolos/node/17"), Role::Node(NodeId::new(17).unwrap()));
        assert_eq!(role("/stolos/admin/root"), Role::Admin("root".into()));
        assert_eq!(role("/stolos/server"), Role::Server);
        for path in ["/stolos/node/0", "/stolos/node/017", "/stolos/node/1/2", "/stolos/admin", "/x/stolos/server", ""]
        {
            assert_eq!(role(path), Role::Workload, "{path}");
        }
    }

    #[test]
    fn an_admin_name_is_one_segment() {
        let domain = TrustDomain::new("a").unwrap();
        assert!(SpiffeId::admin(&domain, "x/../../stolos/server").is_err());
        assert!(SpiffeId::admin(&domain, "").is_err());
    }
}
