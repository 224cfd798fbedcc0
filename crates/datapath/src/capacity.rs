//! How much the maps hold. Sizes are fixed when the maps are made; a takeover keeps the sizes it finds.

/// Sizes of the maps that a state fills, in entries. A state that does not fit is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Workloads of this node, at most 65,535.
    pub locals: u32,
    /// cgroup directories of those.
    pub cgroups: u32,
    /// Workloads that may be met.
    pub peers: u32,
    /// Nodes with keys.
    pub nodes: u32,
    /// Addresses with and without port.
    pub places: u32,
    /// Members of Services.
    pub members: u32,
    /// Cells of the denial counters.
    pub denials: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            locals: 4096,
            cgroups: 16_384,
            peers: 262_144,
            nodes: 16_384,
            places: 262_144,
            members: 262_144,
            denials: 16_384,
        }
    }
}

/// One map as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// The map's name.
    pub name: &'static str,
    /// Entries it can hold.
    pub capacity: u32,
    /// Entries it holds; `None` where counting makes no sense (rings, caches, arrays).
    pub used: Option<u32>,
    /// Bytes per entry, key and value.
    pub entry_bytes: u32,
}

impl Capacity {
    /// The maps whose size is chosen here.
    pub(crate) fn of_maps(&self) -> [(&'static str, u32); 7] {
        [
            ("locals", self.locals),
            ("workloads", self.cgroups),
            ("peers", self.peers),
            ("nodes", self.nodes),
            ("places", self.places),
            ("members", self.members),
            ("denials", self.denials),
        ]
    }
}
