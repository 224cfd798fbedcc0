//! The network namespaces of this node's workloads, by the cookie that the kernel's records carry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use linux::netns::Netns;

/// A held namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// As the kernel's programs name it.
    pub cookie: u64,
    /// Keeps it alive.
    pub netns: Arc<Netns>,
}

/// All of them, the agent's own included.
#[derive(Debug)]
pub struct Namespaces {
    own: u64,
    held: BTreeMap<u64, Namespace>,
}

impl Namespaces {
    /// The agent's own alone. Errors: it cannot be read; Linux before 5.14 has no cookie.
    pub fn new() -> std::io::Result<Self> {
        let netns = Arc::new(Netns::own()?);
        let (own, cookie) = (netns.inode()?, netns.cookie().map_err(std::io::Error::other)?);
        Ok(Self { own, held: BTreeMap::from([(own, Namespace { cookie, netns })]) })
    }

    /// Inode of the agent's own.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Addresses that workloads share: those of the agent's own namespace.
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.held.get(&self.own).map(|namespace| namespace.netns.addresses());
        own.and_then(Result::ok).unwrap_or_default()
    }

    /// The one of a cookie.
    pub fn of_cookie(&self, cookie: u64) -> Option<&Namespace> {
        self.held.values().find(|namespace| namespace.cookie == cookie)
    }

    /// Makes the held ones those of `current` and the agent's own, so that ended ones can go. Whether that changed any.
    pub fn update(&mut self, current: &BTreeMap<u64, Arc<Netns>>) -> bool {
        let before = self.held.len();
        let own = self.own;
        self.held.retain(|inode, _| *inode == own || current.contains_key(inode));
        let ended = self.held.len() != before;
        self.add(current) || ended
    }

    /// Holds these, too. Whether any was new.
    pub fn add(&mut self, current: &BTreeMap<u64, Arc<Netns>>) -> bool {
        let mut changed = false;
        for (inode, netns) in current {
            if self.held.contains_key(inode) {
                continue;
            }
            match netns.cookie() {
                Ok(cookie) => {
                    self.held.insert(*inode, Namespace { cookie, netns: Arc::clone(netns) });
                    changed = true;
                }
                Err(error) => tracing::warn!(inode, %error, "network namespace left out"),
            }
        }
        changed
    }

    /// All of them.
    pub fn all(&self) -> Vec<Namespace> {
        self.held.values().cloned().collect()
    }
}
