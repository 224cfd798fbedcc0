//! What the node publishes about itself: read by the local socket, waited on by requests, without asking the node.

use std::collections::{BTreeMap, BTreeSet};

use api::local::{Alarm, ClockStatus, Enforcement, NodeStatus, NotCaptured, ServerStatus, Workload, WorkloadState};
use datapath::capacity::MapUse;
use datapath::count::{Counters, Denials};
use policy::code::Code;

/// The node as it is now.
#[derive(Clone, Debug)]
pub struct View {
    /// Once enrolled.
    pub node: Option<NodeStatus>,
    /// Where the state comes from.
    pub server: ServerStatus,
    /// Whether the node enforces.
    pub enforcement: Enforcement,
    /// Live in the kernel.
    pub revision: u64,
    /// Unix seconds until which the seal holds.
    pub holds_until_unix_s: Option<i64>,
    /// Clock.
    pub clock: ClockStatus,
    /// By uid.
    pub workloads: BTreeMap<String, WorkloadView>,
    /// Names of features.
    pub features: Vec<String>,
    /// What is wrong now.
    pub alarms: BTreeSet<Alarm>,
    /// What the programs do not see.
    pub not_captured: Vec<NotCaptured>,
    /// Last reading of the kernel's counters.
    pub counted: Counted,
    /// Counters of the agent itself.
    pub own: OwnCounters,
}

impl Default for View {
    /// Before anything is known.
    fn default() -> Self {
        Self {
            node: None,
            server: ServerStatus { source: String::new(), connected: false, since: String::new(), last_error: None },
            enforcement: Enforcement { attached: false, in_force: false, until: None },
            revision: 0,
            holds_until_unix_s: None,
            clock: ClockStatus { source: String::new(), skew_ms: None },
            workloads: BTreeMap::new(),
            features: Vec::new(),
            alarms: BTreeSet::new(),
            not_captured: Vec::new(),
            counted: Counted::default(),
            own: OwnCounters::default(),
        }
    }
}

/// A workload, and what of it is live.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadView {
    /// As told.
    pub workload: Workload,
    /// User labels of the class that the kernel enforces; `None` while none is.
    pub live_labels: Option<BTreeMap<String, String>>,
    /// Every connected node of the fleet enforces it as it is live here.
    pub everywhere: bool,
}

impl WorkloadView {
    /// Kernels enforce it with the labels that it has: this one, and those of its peers.
    pub fn labels_live(&self) -> bool {
        self.live_labels.as_ref() == Some(&self.workload.labels) && self.everywhere
    }

    /// There is nothing to wait for: the fleet knows it (PROTOCOL rule 11), or will not.
    pub fn is_settled(&self) -> bool {
        match self.workload.state {
            WorkloadState::Pending => false,
            WorkloadState::Active => self.everywhere,
            WorkloadState::Refused | WorkloadState::Revoked => true,
        }
    }
}

/// A reading of the kernel's counters.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Refusals, exactly.
    pub denials: Denials,
    /// Stages of handshakes, reasons.
    pub counters: Counters,
    /// Maps and how full they are.
    pub capacities: Vec<MapUse>,
    /// Resets sent to callers that were refused.
    pub resets: u64,
}

/// What the agent counts itself. All since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnCounters {
    /// States made live.
    pub applied: u64,
    /// States that were not.
    pub not_applied: u64,
    /// Microseconds the last one took, compile and kernel.
    pub last_apply_us: u64,
    /// Sync streams begun.
    pub streams: u64,
    /// Questions about unknown peers that the budget swallowed.
    pub pulls_dropped: u64,
    /// Allowed connections left out of reports.
    pub flows_sampled_out: u64,
    /// Connections cut by sweeps.
    pub cut: u64,
}

/// An alarm with its code's title as message, unless there is more to say.
pub(crate) fn alarm(code: &Code, object: &str, message: &str) -> Alarm {
    let message = if message.is_empty() { code.title } else { message };
    Alarm { code: code.id.to_owned(), object: object.to_owned(), message: message.to_owned() }
}
