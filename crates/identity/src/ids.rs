//! Names of things that every layer shares: trust domain, node, slot, workload instance.
//!
//! Pure values with validated constructors. Nothing here knows how they are stored or sent.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node's fleet-wide number.
///
/// Shape: 24 bits, 1..=0xFF_FFFF; 0 is "no node" and never assigned. Source: PROTOCOL, option bytes 7..10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(u32);

impl NodeId {
    /// The largest number that fits the wire field.
    pub const MAX: u32 = 0x00FF_FFFF;

    /// `None` for 0 and for values over [`NodeId::MAX`].
    pub const fn new(value: u32) -> Option<Self> {
        if value == 0 || value > Self::MAX { None } else { Some(Self(value)) }
    }

    /// The number as it stands on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A workload's number on its node (16 bits). (node, slot) names one workload fleet-wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

/// (node, slot): the name of one workload in the handshake. Its life and reuse: PROTOCOL rule 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadRef {
    /// The node that hosts the workload.
    pub node: NodeId,
    /// Its number there.
    pub slot: Slot,
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node.0, self.slot.0)
    }
}

/// U of PROTOCOL section 1: a 64-bit hash of a workload instance's uid, fixed by the server when the slot is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instance(pub u64);
