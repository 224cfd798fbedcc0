//! Which nodes hold a state of ours, and how new the one is that they enforce.
//!
//! A node is subscribed as long as a state that was sealed for it has not expired, connected or not: until then it may
//! enforce what that state says. Numbers are reused only after every subscribed node has acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::kind::node::{NodeAlarm, RejectedState};
use api::sync as wire;
use identity::ids::NodeId;
use jiff::Timestamp;
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::report::shown;
use super::{Registry, RegistryError};
use crate::view::layer::View;

/// Name of the records that keep until when a node's state is valid.
const SPACE: &str = "subscription";
/// The stored expiry is rounded up by so much, so that not every seal is a write.
const SLACK_S: i64 = 3600;
/// How the objects of alarms begin that the agent itself has raised. No uid and none of the server's own words do.
const RAISED: &str = "agent ";
/// Objects of one node that may have alarms at once.
const ALARMS_MAX: usize = 64;

/// All subscriptions, by node.
#[derive(Debug, Default)]
pub struct Subscriptions {
    nodes: BTreeMap<NodeId, Subscription>,
    streams: u64,
}

/// One node's.
#[derive(Debug, Default)]
pub struct Subscription {
    /// Until when a state that it may hold is valid.
    pub expires: Option<Timestamp>,
    /// The newest revision whose view is live in its kernel.
    pub applied: u64,
    /// When that was confirmed.
    pub applied_at: Option<Timestamp>,
    /// Until when the seal of the state that it enforces holds: its outage budget. `None` where no state was confirmed
    /// since the server started.
    pub holds_until: Option<Timestamp>,
    /// The newest revision whose view was sent.
    pub sent: u64,
    /// What it has acknowledged, for a delta after a reconnect.
    pub known: Option<(u64, Arc<View>)>,
    /// Its stream, while it has one.
    pub stream: Option<Stream>,
    /// When its stream began.
    pub connected_at: Option<Timestamp>,
    /// When anything was last heard of it.
    pub last_seen: Option<Timestamp>,
    /// Its clock minus the server's, in milliseconds.
    pub clock_skew_ms: i64,
    /// The last state that it refused.
    pub rejected: Option<RejectedState>,
    /// What people should look at, by object.
    alarms: BTreeMap<String, Vec<NodeAlarm>>,
}

/// A state that a node has confirmed.
#[derive(Debug)]
pub struct Enforced {
    /// The revision whose view it is.
    pub revision: u64,
    /// The state with the label that the node knows it by.
    pub state: (u64, Arc<View>),
    /// When its seal ends, where it came with a new one.
    pub expires: Option<Timestamp>,
}

/// The one stream of a node.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Distinguishes it from the one before.
    pub number: u64,
    /// Ends it.
    pub cancel: CancellationToken,
}

impl Subscriptions {
    /// What is known of a node after a restart of the server: it may hold a state, nobody knows which.
    pub fn restore(&mut self, node: NodeId, expires: Timestamp) {
        self.nodes.entry(node).or_default().expires = Some(expires);
    }

    /// A node's stream begins; the one before, if any, ends.
    pub fn connect(&mut self, node: NodeId, cancel: CancellationToken, now: Timestamp) -> u64 {
        self.streams += 1;
        let number = self.streams;
        let subscription = self.nodes.entry(node).or_default();
        if let Some(before) = subscription.stream.replace(Stream { number, cancel }) {
            before.cancel.cancel();
        }
        subscription.last_seen = Some(now);
        subscription.connected_at = Some(now);
        number
    }

    /// A stream ended; does nothing if a newer one has taken over.
    pub fn disconnect(&mut self, node: NodeId, number: u64, now: Timestamp) {
        if let Some(subscription) = self.nodes.get_mut(&node).filter(|s| s.is_stream(number)) {
            subscription.stream = None;
            subscription.last_seen = Some(now);
        }
    }

    /// The subscription of a node, while this stream is the node's.
    pub fn of_stream(&mut self, node: NodeId, number: u64) -> Option<&mut Subscription> {
        self.nodes.get_mut(&node).filter(|s| s.is_stream(number))
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Subscription> {
        self.nodes.get(&node)
    }

    /// Forgets a node that was deleted, and ends its stream.
    pub fn remove(&mut self, node: NodeId) {
        if let Some(stream) = self.nodes.remove(&node).and_then(|s| s.stream) {
            stream.cancel.cancel();
        }
    }

    /// The newest revision that every subscribed node has acknowledged; `u64::MAX` when none is subscribed.
    pub fn acknowledged(&self, now: Timestamp) -> u64 {
        let subscribed = self.nodes.values().filter(|s| s.is_subscribed(now));
        subscribed.map(|s| s.applied).min().unwrap_or(u64::MAX)
    }

    /// Replaces the alarms that concern one object of a node; whether that changed any. At most [`ALARMS_MAX`] objects
    /// have some.
    pub fn set_alarms(&mut self, node: NodeId, object: &str, mut alarms: Vec<NodeAlarm>) -> bool {
        let of_node = &mut self.nodes.entry(node).or_default().alarms;
        if alarms.is_empty() {
            return of_node.remove(object).is_some();
        }
        if of_node.len() < ALARMS_MAX || of_node.contains_key(object) {
            alarms.truncate(ALARMS_MAX);
            let before = of_node.entry(object.to_owned()).or_default();
            for alarm in &mut alarms {
                if let Some(old) = before.iter().find(|a| a.code == alarm.code && a.message == alarm.message) {
                    alarm.since = old.since;
                }
            }
            let changed = *before != alarms;
            *before = alarms;
            return changed;
        }
        false
    }

    /// A new stream begins: what the agent had raised before, it raises again where it still is so.
    pub fn forget_raised(&mut self, node: NodeId) {
        if let Some(subscription) = self.nodes.get_mut(&node) {
            subscription.alarms.retain(|object, _| !object.starts_with(RAISED));
        }
    }

    /// The newest revision that every connected node enforces. One that refused its last state is not waited for: it is
    /// reported, and may never enforce a newer one.
    pub fn everywhere(&self) -> u64 {
        let waited_for = self.nodes.values().filter(|s| s.stream.is_some() && s.rejected.is_none());
        waited_for.map(|s| s.applied).min().unwrap_or(0)
    }

    /// Nodes that are connected now, and what each has applied.
    pub fn connected(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.nodes.iter().filter(|(_, s)| s.stream.is_some()).map(|(node, s)| (*node, s.applied))
    }
}

impl Subscription {
    /// What people should look at.
    pub fn alarms(&self) -> impl Iterator<Item = &NodeAlarm> {
        self.alarms.values().flatten()
    }

    fn is_stream(&self, number: u64) -> bool {
        self.stream.as_ref().is_some_and(|s| s.number == number)
    }

    fn is_subscribed(&self, now: Timestamp) -> bool {
        self.stream.is_some() || self.expires.is_some_and(|at| at > now)
    }
}

impl Registry {
    /// The newest revision that every subscribed node has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let now = self.now();
        self.subscriptions().acknowledged(now)
    }

    /// Tells of the newest revision that every connected node enforces: [`Subscriptions::everywhere`].
    pub fn everywhere(&self) -> watch::Receiver<u64> {
        self.everywhere.subscribe()
    }

    fn see_everywhere(&self) {
        let now = self.subscriptions().everywhere();
        self.everywhere.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// The revision that a node enforces and whether it is connected, as this process of the server knows it.
    pub fn standing(&self, node: NodeId) -> Option<(u64, bool)> {
        let subscriptions = self.subscriptions();
        let subscription = subscriptions.get(node)?;
        (subscription.applied > 0).then(|| (subscription.applied, subscription.stream.is_some()))
    }

    /// Must be called before a state is sent: the node may use it until `expires`, and counts as subscribed until then.
    pub async fn subscribe(&self, node: NodeId, expires: Timestamp) -> Result<(), RegistryError> {
        let known = self.subscriptions().get(node).and_then(|s| s.expires);
        if known.is_some_and(|at| at >= expires) {
            return Ok(());
        }
        let rounded = Timestamp::from_second(expires.as_second() + SLACK_S).unwrap_or(expires);
        let mut transaction = self.store.begin().await?;
        transaction.put_record(SPACE, &node.to_string(), rounded.as_second().to_string().as_bytes()).await?;
        transaction.commit().await?;
        self.subscriptions().restore(node, rounded);
        Ok(())
    }

    /// A stream begins; see [`Subscriptions::connect`].
    pub fn connect(&self, node: NodeId, cancel: CancellationToken, now: Timestamp) -> u64 {
        self.status_due.notify_one();
        let stream = {
            let mut subscriptions = self.subscriptions();
            subscriptions.forget_raised(node);
            subscriptions.connect(node, cancel, now)
        };
        self.see_everywhere();
        stream
    }

    /// A stream ended. Returns whether another one had taken over before, or the node is gone.
    pub fn disconnect(&self, node: NodeId, stream: u64) -> bool {
        self.status_due.notify_one();
        let now = self.now();
        let replaced = self.subscriptions().of_stream(node, stream).is_none();
        self.subscriptions().disconnect(node, stream, now);
        self.see_everywhere();
        replaced
    }

    /// What a node had acknowledged when it was last connected to this process.
    pub fn known(&self, node: NodeId) -> Option<(u64, Arc<View>)> {
        self.subscriptions().get(node)?.known.clone()
    }

    /// The view of `revision` was sent.
    pub fn sent(&self, node: NodeId, stream: u64, revision: u64) {
        if let Some(subscription) = self.subscriptions().of_stream(node, stream) {
            subscription.sent = revision;
        }
    }

    /// A node enforces a state.
    pub async fn applied(&self, node: NodeId, stream: u64, enforced: Enforced) -> Result<(), RegistryError> {
        let now = self.now();
        if let Some(subscription) = self.subscriptions().of_stream(node, stream) {
            subscription.applied = enforced.revision;
            subscription.applied_at = Some(now);
            subscription.last_seen = Some(now);
            subscription.known = Some(enforced.state);
            subscription.holds_until = enforced.expires.or(subscription.holds_until);
            subscription.rejected = None;
        }
        self.see_everywhere();
        self.status_due.notify_one();
        self.settle_keys().await
    }

    /// A node could not apply a state.
    pub fn rejected(&self, node: NodeId, stream: u64, rejected: RejectedState) {
        if let Some(subscription) = self.subscriptions().of_stream(node, stream) {
            subscription.rejected = Some(rejected);
        }
        self.see_everywhere();
        self.status_due.notify_one();
    }

    /// How far a node's clock is off.
    pub fn set_skew(&self, node: NodeId, skew_ms: i64) {
        self.subscriptions().nodes.entry(node).or_default().clock_skew_ms = skew_ms;
    }

    /// A node asks for a person's look, or says that it is not needed any more.
    pub fn raise_alarm(&self, node: NodeId, alarm: &wire::AlarmRaised) {
        let (code, object, message) = (shown(&alarm.code), shown(&alarm.object), shown(&alarm.message));
        let key = format!("{RAISED}{code} {object}");
        let raised = NodeAlarm { code, object, message, since: self.now() };
        let alarms = if alarm.over { Vec::new() } else { vec![raised] };
        if self.subscriptions().set_alarms(node, &key, alarms) {
            self.status_due.notify_one();
        }
    }
}

/// Until when each node's state is valid, as stored.
pub(super) async fn load(store: &Store) -> Result<Vec<(NodeId, Timestamp)>, StoreError> {
    let records = store.records(SPACE).await?;
    let parsed = records.iter().filter_map(|(key, value)| {
        let node = NodeId::new(key.parse().ok()?)?;
        let seconds: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
        Some((node, Timestamp::from_second(seconds).ok()?))
    });
    Ok(parsed.collect())
}

/// Removes what is stored of a deleted node.
pub(super) async fn forget(transaction: &mut store::Transaction, node: NodeId) -> Result<(), StoreError> {
    transaction.delete_record(SPACE, &node.to_string()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_disconnected_node_counts_until_its_state_expires() {
        let mut all = Subscriptions::default();
        assert_eq!(all.acknowledged(at(0)), u64::MAX);
        let stream = all.connect(node(1), CancellationToken::new(), at(0));
        all.of_stream(node(1), stream).unwrap().applied = 7;
        all.restore(node(2), at(100));
        assert_eq!(all.acknowledged(at(50)), 0, "node 2 may hold anything");
        assert_eq!(all.acknowledged(at(100)), 7);
        all.disconnect(node(1), stream, at(60));
        assert_eq!(all.acknowledged(at(100)), u64::MAX);
    }

    #[test]
    fn a_new_stream_takes_over() {
        let mut all = Subscriptions::default();
        let first = CancellationToken::new();
        let one = all.connect(node(1), first.clone(), at(0));
        let two = all.connect(node(1), CancellationToken::new(), at(1));
        assert!(first.is_cancelled());
        all.disconnect(node(1), one, at(2));
        assert!(all.of_stream(node(1), two).is_some());
        assert!(all.of_stream(node(1), one).is_none());
    }
}
