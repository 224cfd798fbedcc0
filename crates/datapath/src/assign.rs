//! Gives every local workload a stamp that stays while the workload lives: sockets carry it.
//!
//! Pure. What was assigned before is read from the kernel's own maps, so a restarted agent continues where it left.

use std::collections::{BTreeMap, BTreeSet};

use crate::abi;
use crate::state::{LocalWorkload, State};

/// A workload's number in its node's kernel: generation << 16 | index. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp(pub(crate) u32);

impl Stamp {
    pub(crate) fn index(self) -> u32 {
        self.0 & 0xFFFF
    }
}

/// Local workloads as the kernel holds them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Locals {
    /// cgroup id -> stamp
    pub(crate) workloads: BTreeMap<u64, u32>,
    /// index -> entry; invalid ones keep their generation.
    pub(crate) entries: BTreeMap<u32, abi::Local>,
    /// The host workload's stamp, 0 = none.
    pub(crate) host: u32,
}

/// More local workloads than the map holds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} workloads on this node, room for {capacity}")]
pub(crate) struct LocalsFull {
    pub(crate) wanted: usize,
    pub(crate) capacity: u32,
}

impl Locals {
    /// The locals that `state` asks for, with stamps kept from `self` wherever the workload is the same.
    pub(crate) fn next(&self, state: &State, capacity: u32) -> Result<Locals, LocalsFull> {
        let mut next = Locals { entries: self.entries.clone(), ..Locals::default() };
        for entry in next.entries.values_mut() {
            entry.flags = 0;
        }
        let mut taken = BTreeSet::new();
        let mut homeless = Vec::new();
        for workload in &state.workloads {
            match self.stamp_of(workload).filter(|stamp| taken.insert(stamp.index())) {
                Some(stamp) => next.put(stamp, workload),
                None => homeless.push(workload),
            }
        }
        let mut free = (1..capacity).filter(|index| !taken.contains(index));
        for workload in homeless {
            let full = LocalsFull { wanted: state.workloads.len(), capacity: capacity.saturating_sub(1) };
            let index = free.next().ok_or(full)?;
            let before = self.entries.get(&index).map_or(0, |entry| entry.generation);
            next.put(Stamp(u32::from(before.wrapping_add(1)) << 16 | index), workload);
        }
        Ok(next)
    }

    /// The stamp that this very workload has: by cgroup unless the slot went to another instance, else by slot and instance.
    fn stamp_of(&self, workload: &LocalWorkload) -> Option<Stamp> {
        let same = |stamp: &Stamp| {
            self.entries.get(&stamp.index()).is_some_and(|entry| {
                entry.flags & abi::LOCAL_VALID != 0
                    && (entry.instance == 0 || workload.instance.0 == 0 || entry.instance == workload.instance.0)
            })
        };
        let by_cgroup = || workload.cgroup_ids.iter().find_map(|id| self.workloads.get(id).copied().map(Stamp));
        let by_slot = || {
            let slot = workload.slot?.0;
            let found = self.entries.iter().find(|(_, entry)| {
                entry.flags & abi::LOCAL_PLACED != 0 && entry.slot == slot && entry.instance == workload.instance.0
            });
            found.map(|(&index, entry)| Stamp(u32::from(entry.generation) << 16 | index))
        };
        let by_host = || (workload.host && self.host != 0).then_some(Stamp(self.host));
        by_cgroup().filter(same).or_else(by_slot).or_else(by_host).filter(same)
    }

    fn put(&mut self, stamp: Stamp, workload: &LocalWorkload) {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = abi::LOCAL_VALID
            | flag(workload.enforce, abi::LOCAL_ENFORCE)
            | flag(workload.revoked, abi::LOCAL_REVOKED)
            | flag(workload.host, abi::LOCAL_HOST)
            | flag(workload.slot.is_some(), abi::LOCAL_PLACED);
        let entry = abi::Local {
            instance: workload.instance.0,
            class: [workload.class.0; 2],
            generation: (stamp.0 >> 16) as u16,
            slot: workload.slot.map_or(0, |slot| slot.0),
            flags,
        };
        self.entries.insert(stamp.index(), entry);
        self.workloads.extend(workload.cgroup_ids.iter().map(|&id| (id, stamp.0)));
        if workload.host {
            self.host = stamp.0;
        }
    }
}
