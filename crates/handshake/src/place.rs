//! Places (rule 1): which workload may answer at a dialled address, and which address speaks for which client.
//!
//! A proof of identity is not a proof of place: without this check a third party that got a client to dial it could relay the
//! handshake to the real server and take over the plain stream.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use identity::ids::{NodeId, WorkloadRef};

const TCP: u8 = 6;

/// Who belongs at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A node's shared address: any workload of that node.
    Node(NodeId),
    /// A workload's own address: that workload only.
    Workload(WorkloadRef),
    /// A Service's address and port: its members.
    Service(u32),
    /// A gateway or NAT address of the fleet: nobody answers there, and as a source it refuses nobody.
    Declared,
}

/// Why an answer was not accepted at the dialled address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The address is no declared place: a plain connection is refused.
    #[error("the dialled address is no declared place")]
    Unknown,
    /// Somebody else belongs there.
    #[error("the answering workload does not belong at the dialled address")]
    Mismatch,
}

/// The places of one realm.
#[derive(Clone, Debug, Default)]
pub struct Places {
    by_port: BTreeMap<(IpAddr, u8, u16), Target>,
    by_address: BTreeMap<IpAddr, Target>,
    members: BTreeSet<(u32, WorkloadRef)>,
}

impl Places {
    /// Declares an address, or one (protocol, port) of it. IPv4-mapped addresses are stored as IPv4.
    pub fn declare(&mut self, address: IpAddr, port: Option<(u8, u16)>, target: Target) {
        let address = address.to_canonical();
        match port {
            Some((protocol, port)) => self.by_port.insert((address, protocol, port), target),
            None => self.by_address.insert(address, target),
        };
    }

    /// Adds a member to a Service.
    pub fn join(&mut self, service: u32, member: WorkloadRef) {
        self.members.insert((service, member));
    }

    /// Whether `answering` may answer a TCP connection that `client` dialled to `dialled`.
    ///
    /// (address, port) comes before the address alone. A client's own workload always passes. Loopback is the shared address
    /// of the client's own node, whatever is declared.
    pub fn admits(&self, dialled: SocketAddr, answering: WorkloadRef, client: WorkloadRef) -> Result<(), PlaceError> {
        if answering == client {
            return Ok(());
        }
        let address = dialled.ip().to_canonical();
        if address.is_loopback() {
            return if answering.node == client.node { Ok(()) } else { Err(PlaceError::Mismatch) };
        }
        let target = self.by_port.get(&(address, TCP, dialled.port())).or_else(|| self.by_address.get(&address));
        let belongs = match target {
            Some(Target::Node(node)) => *node == answering.node,
            Some(Target::Workload(workload)) => *workload == answering,
            Some(Target::Service(service)) => self.members.contains(&(*service, answering)),
            Some(Target::Declared) | None => return Err(PlaceError::Unknown),
        };
        if belongs { Ok(()) } else { Err(PlaceError::Mismatch) }
    }

    /// Whether a client may come from `source`: everything but the unshared address of another workload.
    pub fn may_come_from(&self, source: IpAddr, client: WorkloadRef) -> bool {
        let source = source.to_canonical();
        match self.by_address.get(&source) {
            Some(Target::Workload(owner)) if !source.is_loopback() => *owner == client,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::ids::Slot;

    fn workload(node: u32, slot: u16) -> WorkloadRef {
        WorkloadRef { node: NodeId::new(node).expect("in range"), slot: Slot(slot) }
    }

    fn places() -> Places {
        let mut places = Places::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        places.declare(address(1), None, Target::Node(NodeId::new(1).expect("in range")));
        places.declare(address(9), None, Target::Workload(workload(1, 9)));
        places.declare(address(250), None, Target::Declared);
        places.declare(address(250), Some((6, 5432)), Target::Service(77));
        places.join(77, workload(2, 3));
        places
    }

    fn check(dialled: &str, answering: WorkloadRef, expect: Result<(), PlaceError>) {
        let dialled: SocketAddr = dialled.parse().expect("address");
        assert_eq!(places().admits(dialled, answering, workload(5, 5)), expect, "{dialled} {answering}");
    }

    #[test]
    fn each_kind_of_place_admits_its_own_only() {
        check("10.0.0.1:80", workload(1, 4), Ok(()));
        check("10.0.0.1:80", workload(2, 4), Err(PlaceError::Mismatch));
        check("[::ffff:10.0.0.1]:80", workload(1, 4), Ok(()));
        check("10.0.0.9:80", workload(1, 9), Ok(()));
        check("10.0.0.9:80", workload(1, 4), Err(PlaceError::Mismatch));
        check("10.0.0.250:5432", workload(2, 3), Ok(()));
        check("10.0.0.250:5432", workload(2, 4), Err(PlaceError::Mismatch));
        check("10.0.0.250:5433", workload(2, 3), Err(PlaceError::Unknown));
        check("192.0.2.1:80", workload(1, 4), Err(PlaceError::Unknown));
        check("192.0.2.1:80", workload(5, 5), Ok(()));
        check("127.0.0.1:80", workload(5, 6), Ok(()));
        check("[::1]:80", workload(1, 6), Err(PlaceError::Mismatch));
    }

    #[test]
    fn rule_15_loopback_is_a_place_of_the_callers_node_whatever_is_declared() {
        let (own, other) = (workload(5, 6), workload(1, 9));
        for text in ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"] {
            let address: IpAddr = text.parse().expect("address");
            for target in [Target::Workload(other), Target::Service(77), Target::Declared] {
                let mut places = places();
                places.declare(address, None, target);
                places.declare(address, Some((6, 80)), target);
                places.join(77, other);
                let dialled = SocketAddr::new(address, 80);
                assert_eq!(places.admits(dialled, own, workload(5, 5)), Ok(()), "{text} {target:?}");
                assert_eq!(
                    places.admits(dialled, other, workload(5, 5)),
                    Err(PlaceError::Mismatch),
                    "{text} {target:?}"
                );
                assert!(places.may_come_from(address, own), "{text}");
            }
        }
    }

    #[test]
    fn only_an_unshared_address_of_another_workload_refuses_a_source() {
        let from = |text: &str, client| places().may_come_from(text.parse().expect("address"), client);
        assert!(from("10.0.0.9", workload(1, 9)));
        assert!(!from("10.0.0.9", workload(1, 4)));
        assert!(!from("::ffff:10.0.0.9", workload(1, 4)));
        assert!(from("10.0.0.1", workload(3, 1)), "a node's address: masquerade");
        assert!(from("10.0.0.250", workload(3, 1)), "a gateway");
        assert!(from("203.0.113.5", workload(3, 1)));
    }
}
