//! Workloads that have ended: reports of their last flows come after the news of their end, and are still theirs.
//!
//! A number is not bound anew before every node has acknowledged its release (PROTOCOL rule 12), and a living workload
//! of the same number always comes first, so that nobody's flow is taken for another's.

use std::collections::{BTreeMap, VecDeque};

use identity::ids::WorkloadRef;

use super::WorkloadEntry;

/// Most ended workloads that are remembered; the oldest go first.
const DEPARTED_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    entries: BTreeMap<WorkloadRef, WorkloadEntry>,
    order: VecDeque<WorkloadRef>,
}

impl Departed {
    /// A workload is gone.
    pub(crate) fn keep(&mut self, workload: WorkloadEntry) {
        let at = workload.at;
        if self.entries.insert(at, workload).is_none() {
            self.order.push_back(at);
        }
        if self.order.len() > DEPARTED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// The last one of a number.
    pub(crate) fn get(&self, at: WorkloadRef) -> Option<&WorkloadEntry> {
        self.entries.get(&at)
    }
}
