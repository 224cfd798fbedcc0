//! `./x bench policy`: compile 10,000 policies over 100,000 identities, change one policy in it, decide.
//!
//! Prints one JSON object per line in the form that all benches share. Everything runs in one thread.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use policy::attribute::Identity;
use policy::compile::{Class, Fleet};
use policy::namespace::PolicyId;
use policy::policy::{Action, Mode, Policy, Side};
use policy::posture::Posture;
use policy::rules::RuleSet;

const TENANTS: usize = 20;
const NAMESPACES_PER_TENANT: usize = 50;
const IDENTITIES_PER_NAMESPACE: usize = 100;
const POLICIES_PER_NAMESPACE: usize = 10;
const APPS: usize = 20;
const CLUSTERS: usize = 8;
const CHANGES: usize = 200;
/// Changes of a policy that names everybody: each is a write, another form of it, and its removal.
const WIDE_CHANGES: usize = 10;
const DECISIONS: usize = 64_000;

fn main() {
    let mut rounds = 5;
    let mut json = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--rounds", Some(value)) => rounds = value.parse().expect("--rounds takes a number"),
            ("--json", Some(value)) => json = Some(value),
            _ => panic!("usage: bench_policy [--rounds N] [--json FILE]"),
        }
    }
    let mut rows = Rows { text: String::new(), rounds };
    rows.machine();
    let before = resident_mib();
    let identities = identities();
    rows.row("identities_memory", resident_mib() - before, "MiB");
    let policies = policies();
    let mut samples = Samples::default();
    for _ in 0..rounds {
        round(&identities, &policies, &mut samples);
    }
    samples.report(&mut rows);
    print!("{}", rows.text);
    if let Some(path) = json {
        std::fs::write(&path, &rows.text).expect("the JSON file can be written");
    }
}

/// What all rounds measured.
#[derive(Default)]
struct Samples {
    compile_s: Vec<f64>,
    memory_mib: Vec<f64>,
    change_ms: Vec<f64>,
    wide_change_ms: Vec<f64>,
    pod_change_ms: Vec<f64>,
    decide_us: Vec<f64>,
    side_us: Vec<f64>,
    uncompiled_us: Vec<f64>,
}

impl Samples {
    fn report(mut self, rows: &mut Rows) {
        rows.row("compile_10k_policies_100k_identities", percentile(&mut self.compile_s, 50), "s");
        // Later rounds fill what the first one gave back.
        rows.row("compile_memory", percentile(&mut self.memory_mib, 100), "MiB");
        rows.row("change_one_policy_p50", percentile(&mut self.change_ms, 50), "ms");
        rows.row("change_one_policy_p99", percentile(&mut self.change_ms, 99), "ms");
        rows.row("change_policy_of_everybody_p50", percentile(&mut self.wide_change_ms, 50), "ms");
        rows.row("change_policy_of_everybody_p99", percentile(&mut self.wide_change_ms, 99), "ms");
        rows.row("change_policy_of_every_pod_p50", percentile(&mut self.pod_change_ms, 50), "ms");
        rows.row("change_policy_of_every_pod_p99", percentile(&mut self.pod_change_ms, 99), "ms");
        rows.row("decide_p50", percentile(&mut self.decide_us, 50), "us");
        rows.row("decide_p99", percentile(&mut self.decide_us, 99), "us");
        rows.row("decide_uncompiled_p50", percentile(&mut self.uncompiled_us, 50), "us");
        rows.row("side_p50", percentile(&mut self.side_us, 50), "us");
    }
}

fn round(identities: &[Arc<Identity>], policies: &[Policy], samples: &mut Samples) {
    let before = resident_mib();
    let start = Instant::now();
    let mut rules = RuleSet::new();
    let enforce = Posture { mode: Mode::Enforce, ingress: Action::Deny, egress: Action::Deny, ..Posture::FRESH };
    rules.set_posture("/".parse().expect("a path"), Some(enforce));
    for policy in policies {
        rules.insert(policy.clone());
    }
    let mut fleet = Fleet::new(rules);
    let classes: Vec<Class> = identities.iter().map(|identity| fleet.intern(Arc::clone(identity))).collect();
    samples.compile_s.push(start.elapsed().as_secs_f64());
    samples.memory_mib.push(resident_mib() - before);
    assert_eq!((fleet.rules().len(), fleet.len()), (policies.len(), identities.len()));

    let mut random = Random(7);
    for _ in 0..CHANGES {
        let mut policy = policies[random.below(policies.len())].clone();
        policy.to = vec![format!("app=app-{}", random.below(APPS)).parse().expect("a selector")];
        samples.change_ms.push(time_ms(|| fleet.insert(policy)));
    }
    // Everybody by scope, and everybody one by one, by an attribute that each has.
    for (selector, times) in [("any", &mut samples.wide_change_ms), ("@type=pod", &mut samples.pod_change_ms)] {
        for number in 0..WIDE_CHANGES {
            let wide = |port: usize| policy("/", "wide", selector, selector, &format!("tcp/{port}"), Action::Allow);
            let (first, second) = (wide(9100 + number), wide(9200 + number));
            let id = first.id.clone();
            times.push(time_ms(|| fleet.insert(first)));
            times.push(time_ms(|| fleet.insert(second)));
            times.push(time_ms(|| fleet.remove(&id)));
        }
    }

    let pairs = pairs(&classes, &mut random);
    for &(client, server, port) in &pairs {
        // Each on its own, the clock's own cost included: what is rare must not hide in a mean.
        samples.decide_us.push(time_ms(|| fleet.decide(client, server, 6, port)) * 1e3);
    }
    for &(client, server, port) in pairs.iter().take(2000) {
        samples.side_us.push(time_ms(|| fleet.side(Side::Ingress, server, client)) * 1e3);
        let ends = (fleet.identity(client).expect("a class"), fleet.identity(server).expect("a class"));
        let (client, server) = (policy::attribute::Peer::Workload(ends.0), policy::attribute::Peer::Workload(ends.1));
        let flow = policy::decide::Flow { client, server, protocol: 6, port };
        samples.uncompiled_us.push(time_ms(|| fleet.rules().decide(&flow)) * 1e3);
    }
}

fn time_ms<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64() * 1e3
}

/// Flows to decide: half of them inside a namespace, where policies match, half of them anywhere.
fn pairs(classes: &[Class], random: &mut Random) -> Vec<(Class, Class, u16)> {
    let ports = [5432, 80, 443, 6379, 22];
    (0..DECISIONS)
        .map(|index| {
            let client = random.below(classes.len());
            let start = client - client % IDENTITIES_PER_NAMESPACE;
            let server = match index % 2 {
                0 => start + random.below(IDENTITIES_PER_NAMESPACE),
                _ => random.below(classes.len()),
            };
            (classes[client], classes[server], ports[random.below(ports.len())])
        })
        .collect()
}

/// A fleet of tenants with namespaces of twenty applications of five replicas, each replica an identity of its own.
fn identities() -> Vec<Arc<Identity>> {
    let mut all = Vec::with_capacity(TENANTS * NAMESPACES_PER_TENANT * IDENTITIES_PER_NAMESPACE);
    for tenant in 0..TENANTS {
        for space in 0..NAMESPACES_PER_TENANT {
            for number in 0..IDENTITIES_PER_NAMESPACE {
                let (app, replica) = (number % APPS, number / APPS);
                let cluster = (space + replica) % CLUSTERS;
                let owned = [
                    ("@namespace", format!("/t{tenant}/c{cluster}/ns{space}")),
                    ("@cluster", format!("eu-{cluster}")),
                    ("@region", format!("eu-{}", cluster % 3)),
                    ("@node", format!("node-{cluster}-{}", (number * 7 + space) % 500)),
                    ("@type", "pod".to_owned()),
                    ("@k8s:namespace", format!("ns{space}")),
                    ("@k8s:serviceaccount", format!("app-{app}")),
                    ("@k8s:owner", format!("deployment/app-{app}")),
                    ("@k8s:pod", format!("app-{app}-{tenant}-{space}-{replica}")),
                    ("app", format!("app-{app}")),
                    ("tier", ["front", "back", "data"][app % 3].to_owned()),
                    ("team", format!("team-{}", app % 7)),
                ];
                let pairs = owned.iter().map(|(key, value)| (*key, value.as_str()));
                all.push(Arc::new(Identity::from_pairs(pairs).expect("an identity")));
            }
        }
    }
    all
}

/// Ten policies for every namespace: most between applications, some with lists, prefixes and other namespaces.
fn policies() -> Vec<Policy> {
    let mut all = Vec::new();
    for tenant in 0..TENANTS {
        for space in 0..NAMESPACES_PER_TENANT {
            for number in 0..POLICIES_PER_NAMESPACE {
                let own = format!("/t{tenant}/c{}/ns{space}", (space + number) % CLUSTERS);
                let name = format!("p{number}");
                let app = |n: usize| format!("app=app-{}", n % APPS);
                let other = format!("@namespace=/t{}/**, tier=front", (tenant + 1) % TENANTS);
                let (from, to, ports, action) = match number {
                    0 => ("tier in (front,back)".to_owned(), "tier=data".to_owned(), "tcp/5432", Action::Allow),
                    1 => ("any".to_owned(), "app=app-0".to_owned(), "udp/53", Action::Allow),
                    2 => (other, "tier=front".to_owned(), "tcp/443", Action::Allow),
                    3 => ("@cluster=eu-*, team=team-1".to_owned(), app(9), "tcp/8000-8100", Action::Allow),
                    4 => ("!tier".to_owned(), "any".to_owned(), "any", Action::Deny),
                    n => (app(n * 3 + space), app(n * 5 + space), "tcp/80", Action::Allow),
                };
                all.push(policy(&own, &format!("{name}-{space}"), &from, &to, ports, action));
            }
        }
    }
    all
}

fn policy(namespace: &str, name: &str, from: &str, to: &str, ports: &str, action: Action) -> Policy {
    Policy {
        id: PolicyId::new(namespace.parse().expect("a path"), name).expect("a name"),
        from: vec![from.parse().expect("a selector")],
        to: vec![to.parse().expect("a selector")],
        ports: vec![ports.parse().expect("ports")],
        action,
        mode: Mode::Enforce,
        reason: None,
    }
}

struct Rows {
    text: String,
    rounds: usize,
}

impl Rows {
    fn row(&mut self, metric: &str, value: f64, unit: &str) {
        let contender = if metric.starts_with("machine_") { "machine" } else { "stolos" };
        let rounds = self.rounds;
        let _ = writeln!(
            self.text,
            r#"{{"bench":"policy","metric":"{metric}","contender":"{contender}","baseline":null,"value":{value:.4},"unit":"{unit}","ratio":null,"ratio_min":null,"ratio_max":null,"rounds":{rounds}}}"#
        );
    }

    /// What the figures were measured on.
    fn machine(&mut self) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: f64 = load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(-1.0);
        self.row("machine_cores", cores as f64, "cores");
        self.row("machine_load_1min", load, "processes");
    }
}

fn percentile(samples: &mut [f64], percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get((samples.len() * percent / 100).min(samples.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(f64::NAN);
    kib / 1024.0
}

/// SplitMix64, so that every run decides the same flows.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
