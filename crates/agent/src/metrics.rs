//! Metrics in the OpenMetrics form. Names carry their unit; labels are closed lists (reasons, stages, maps, features).

use api::local::WorkloadState;
use datapath::capacity::MapUse;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::view::View;

/// One label from a closed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Map {
    map: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Everything as text. The kernel's counters are read by the node; a scrape only writes down what it has.
pub(crate) fn text(view: &View) -> String {
    let mut registry = Registry::with_prefix("stolos_agent");
    kernel(&mut registry, view);
    node(&mut registry, view);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// What a scrape can have: every metric, with a value for every label. docs/book/metrics.md is made of it.
pub fn catalogue() -> String {
    let mut view = View::default();
    view.counted.capacities = vec![MapUse { name: "peers", capacity: 0, used: Some(0), entry_bytes: 0 }];
    view.counted.counters.stages.insert(datapath::count::Stage::Cut, 0);
    text(&view)
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn kernel(registry: &mut Registry, view: &View) {
    let counters = &view.counted.counters;
    let refused = Family::<Reason, Counter>::default();
    let would = Family::<Reason, Counter>::default();
    let stages = Family::<Stage, Counter>::default();
    for reason in policy::reason::Reason::ALL {
        let label = Reason { reason: reason.label() };
        refused.get_or_create(&label).inc_by(counters.refused.get(reason).copied().unwrap_or_default());
        would.get_or_create(&label).inc_by(counters.would_refuse.get(reason).copied().unwrap_or_default());
    }
    for (stage, count) in &counters.stages {
        stages.get_or_create(&Stage { stage: stage.label() }).inc_by(*count);
    }
    registry.register("refused", "Refusals carried out since the attach, by reason", refused);
    registry.register("would_refuse", "Refusals only recorded (observing) since the attach, by reason", would);
    registry.register("stages", "Steps of handshakes and events of the datapath since the attach", stages);
    let (used, capacity) = (Family::<Map, Gauge>::default(), Family::<Map, Gauge>::default());
    for map in &view.counted.capacities {
        capacity.get_or_create(&Map { map: map.name }).set(map.capacity.into());
        if let Some(entries) = map.used {
            used.get_or_create(&Map { map: map.name }).set(entries.into());
        }
    }
    registry.register("map_used_entries", "Entries of a kernel map", used);
    registry.register("map_capacity_entries", "Room of a kernel map", capacity);
}

fn node(registry: &mut Registry, view: &View) {
    let states = Family::<State, Gauge>::default();
    let label = |state| match state {
        WorkloadState::Active => "active",
        WorkloadState::Pending => "pending",
        WorkloadState::Refused => "refused",
        WorkloadState::Revoked => "revoked",
    };
    for state in [WorkloadState::Active, WorkloadState::Pending, WorkloadState::Refused, WorkloadState::Revoked] {
        let count = view.workloads.values().filter(|found| found.workload.state == state).count();
        states.get_or_create(&State { state: label(state) }).set(count as i64);
    }
    registry.register("workloads", "Workloads of this node, by state", states);
    let own = &view.own;
    gauge(registry, "connected", "1 while a Sync stream is up", view.server.connected.into());
    gauge(registry, "attached", "1 while the kernel programs are attached", view.enforcement.attached.into());
    gauge(
        registry,
        "revision",
        "Revision that is live in the kernel",
        i64::try_from(view.revision).unwrap_or(i64::MAX),
    );
    gauge(
        registry,
        "state_expires_timestamp_seconds",
        "End of the outage budget",
        view.holds_until_unix_s.unwrap_or_default(),
    );
    gauge(
        registry,
        "clock_skew_milliseconds",
        "This machine's clock minus the server's",
        view.clock.skew_ms.unwrap_or_default(),
    );
    gauge(registry, "alarms", "Things that are wrong now", view.alarms.len() as i64);
    gauge(registry, "not_captured", "Processes whose traffic passes by the programs", view.not_captured.len() as i64);
    gauge(
        registry,
        "last_apply_microseconds",
        "Compile and kernel, last state",
        i64::try_from(own.last_apply_us).unwrap_or(i64::MAX),
    );
    counter(registry, "applied", "States made live", own.applied);
    counter(registry, "not_applied", "States that could not be made live", own.not_applied);
    counter(registry, "streams", "Sync streams begun", own.streams);
    counter(registry, "resets", "Resets sent to callers that were refused", view.counted.resets);
    counter(registry, "pulls_dropped", "Questions about unknown peers that the budget swallowed", own.pulls_dropped);
    counter(registry, "flows_sampled_out", "Allowed connections left out of reports", own.flows_sampled_out);
    counter(registry, "cut", "Live connections ended by a revocation or change", own.cut);
}
