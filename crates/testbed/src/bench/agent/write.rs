//! Policy writes, each timed until the connections of a probe on every node are answered by it.

use std::io::{BufRead, BufReader};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::admin::AdminConfig;
use api::apply::{ApplyRequest, Source};
use api::client::{Client, ListQuery};
use api::kind::node::NodeSpec;
use tokio::runtime::Runtime;

use super::Options;
use super::fleet::{CLIENT, SERVER, probe_of};
use crate::bench::probe::{Flip, monotonic_ns};
use crate::demo::site::Site;

/// For one write to be live everywhere, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at what the server has heard from the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Writes come at any time in relation to the timers of server and agents: up to so long after the last.
const PAUSE_MAX_MS: u64 = 50;
/// Writes that are not counted: connections open, pages are touched.
const WARM_UP: u32 = 4;

/// One write. All in milliseconds since it was begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Write {
    /// The server answered.
    pub(super) acknowledged_ms: f64,
    /// The last node's kernel decides by it.
    pub(super) live_ms: f64,
    /// The server knows that.
    pub(super) confirmed_ms: f64,
}

/// Writes one policy again and again, allowing and denying in turn.
pub(super) fn measure(site: &mut Site, options: &Options) -> Result<Vec<Write>> {
    let mut probes = Vec::new();
    let mut flips = Vec::new();
    for node in [CLIENT, SERVER] {
        let (inside, program) = probe_of(site, options, node)?;
        let (process, _stdin, stdout) = inside.place.start_piped(program)?;
        probes.push(process);
        let (sender, receiver) = channel();
        std::thread::spawn(move || deliver(BufReader::new(stdout), &sender));
        flips.push(receiver);
    }
    let admin = std::fs::read_to_string(site.admin_config())?;
    let (writes, netns) = (options.writes, site.server.place.netns().clone());
    let measured = netns.enter(move || {
        let writer = Writer::new(&admin)?;
        flips.iter().try_for_each(|flips| wait_for(flips, false).map(drop))?;
        for number in 0..WARM_UP {
            writer.write(number, &flips)?;
        }
        (WARM_UP..WARM_UP + writes).map(|number| writer.write(number, &flips)).collect()
    });
    probes.iter().for_each(|process| process.kill());
    measured
}

fn deliver(probe: impl BufRead, to: &Sender<Flip>) {
    for line in probe.lines().map_while(Result::ok) {
        let Ok(flip) = serde_json::from_str(&line) else { continue };
        if to.send(flip).is_err() {
            return;
        }
    }
}

/// When the probe's answer became `open`. Errors: it did not, or the probe ended.
fn wait_for(flips: &Receiver<Flip>, open: bool) -> Result<u64> {
    let start = Instant::now();
    loop {
        let flip = flips.recv_timeout(LIMIT.saturating_sub(start.elapsed()));
        let flip = flip.with_context(|| format!("connections were not {} in time", word(open)))?;
        if flip.open == open {
            return Ok(flip.at_ns);
        }
    }
}

fn word(open: bool) -> &'static str {
    if open { "accepted" } else { "refused" }
}

struct Writer {
    runtime: Runtime,
    client: Client,
}

impl Writer {
    fn new(admin: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(&AdminConfig::parse(admin)?)?;
        Ok(Self { runtime, client })
    }

    /// Even numbers allow, odd ones deny.
    fn write(&self, number: u32, flips: &[Receiver<Flip>]) -> Result<Write> {
        std::thread::sleep(Duration::from_millis(rand::random_range(0..PAUSE_MAX_MS)));
        let open = number.is_multiple_of(2);
        let action = if open { "allow" } else { "deny" };
        let text = format!(
            "{{apiVersion: stolos.dev/v1, kind: Policy, metadata: {{namespace: /acme, name: probe}}, \
             spec: {{from: [app=probe], to: [app=target], ports: [tcp/9000], action: {action}}}}}"
        );
        let request =
            ApplyRequest { sources: vec![Source { name: "probe.yaml".to_owned(), text }], ..ApplyRequest::default() };
        let begun = monotonic_ns();
        let since = |at_ns: u64| (at_ns as f64 - begun as f64) / 1e6;
        let answer = self.runtime.block_on(self.client.apply(&request, false))?;
        let acknowledged_ms = since(monotonic_ns());
        let live = flips.iter().map(|flips| wait_for(flips, open)).collect::<Result<Vec<_>>>();
        let live = live.with_context(|| format!("after write {number}, which is to {action}"))?;
        let live_ms = live.into_iter().map(since).fold(f64::NEG_INFINITY, f64::max);
        self.wait_until_confirmed(answer.revision.0)?;
        Ok(Write { acknowledged_ms, live_ms, confirmed_ms: since(monotonic_ns()) })
    }

    fn wait_until_confirmed(&self, revision: u64) -> Result<()> {
        let start = Instant::now();
        loop {
            let nodes = self.runtime.block_on(self.client.list::<NodeSpec>(&ListQuery::default()))?;
            let behind = |status: &Option<api::kind::node::NodeStatus>| {
                status.as_ref().is_none_or(|status| status.applied_revision < revision)
            };
            if !nodes.iter().any(|node| behind(&node.status)) {
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "revision {revision} is not confirmed by every node");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
