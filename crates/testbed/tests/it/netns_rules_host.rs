//! A protected host (`--protect-host`), with real server and agents: what the agent itself needs still works, and nobody
//! else of the host gets more than policy says.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::demo::site::{Running, SETTLE_LIMIT, Site, WorkloadSpec, socket};
use testbed::peer::Peer;
use testbed::process::Program;
use testbed::run::Run;
use testbed::world::World;
use testbed::{programs, wait};

use crate::guarded::LIMIT;

const NODES: [&str; 2] = ["eu-1-n1", "eu-1-n2"];
const PORT: u16 = 5432;
const SSH: u16 = 2222;
const EPERM: i32 = 1;
/// Out of [`TRIES`] the quickest refusal on a loaded machine; the first retransmission of a SYN comes after a second.
const FAST: Duration = Duration::from_millis(200);
const TRIES: usize = 5;

const DOCUMENTS: &str = "\
apiVersion: stolos.dev/v1
kind: Namespace
metadata: {namespace: /, name: acme}
spec: {protection: {mode: enforce, default: {ingress: deny, egress: deny}}}
---
apiVersion: stolos.dev/v1
kind: Cluster
metadata: {name: eu-1}
spec: {namespace: /acme, region: europe, addressRanges: [10.0.0.0/24, 'fd00:a::/64']}
---
apiVersion: stolos.dev/v1
kind: Policy
metadata: {namespace: /acme, name: web-to-db}
spec: {from: [app=web], to: [app=db], ports: [tcp/5432], action: allow}
";
const HOSTS: &str = "\
apiVersion: stolos.dev/v1
kind: Policy
metadata: {namespace: /acme, name: ssh}
spec: {from: ['@type=host'], to: ['@type=host'], ports: [tcp/2222], action: allow}
";

fn stolos() -> std::path::PathBuf {
    Path::new(env!("CARGO_BIN_EXE_testbed-peer")).with_file_name("stolos")
}

fn start(site: &mut Site, name: &str, node: &str) -> Result<Running> {
    let label = format!("app={name}");
    let spec = WorkloadSpec { name, node, pod_host: None, labels: &[&label], command: programs::idle(), wait: None };
    site.start_workload(&spec)
}

/// Refusals of a node for a reason, out of its agent's metrics.
fn refused(site: &Site, node: &str, reason: &str) -> Result<u64> {
    let node = site.node(node)?;
    let curl = Program::new("curl").args(["-sS", "--fail", "--unix-socket"]).arg(socket(node));
    let metrics = node.host().output(curl.arg("http://agent/metrics"), LIMIT)?;
    let reason = format!("reason=\"{reason}\"");
    let lines = metrics.lines().filter(|l| l.starts_with("stolos_agent_refused_total{") && l.contains(&reason));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64)
}

/// The agent of every node is killed and comes back with its host protected.
fn restart_protected(site: &mut Site) -> Result<()> {
    for node in NODES {
        site.agent_process(node)?.kill();
        // Neighbours are found anew: that always passes.
        let flush = Program::new("ip").args(["neigh", "flush", "all"]);
        site.node(node)?.host().output(flush, LIMIT)?;
        site.start_agent_with(node, &["--protect-host"])?;
    }
    site.wait_until_rolled_out()
}

/// The quickest of some refusals; each is ECONNREFUSED.
fn quickest_refusal(client: &Peer, to: SocketAddr) -> Result<Duration> {
    let mut quickest = Duration::MAX;
    for _ in 0..TRIES {
        let failure = client.connect(to, LIMIT)?.err().with_context(|| format!("{to} let it in"))?;
        ensure!(failure.is_refused(), "{to}: {failure}");
        quickest = quickest.min(failure.took);
    }
    Ok(quickest)
}

#[test]
fn a_protected_host_still_answers_refusals_stays_in_sync_and_opens_nothing_else() -> Result<()> {
    let run = Run::start("host-protected")?;
    let mut site = Site::over(World::one_cluster(&run, 2)?, &run, stolos())?;
    site.start(DOCUMENTS)?;
    let (web, cron) = (start(&mut site, "web", NODES[0])?.peer()?, start(&mut site, "cron", NODES[0])?.peer()?);
    let db = start(&mut site, "db", NODES[1])?;
    let serving = db.peer()?;
    let at = db.addresses.both().map(|address| SocketAddr::new(address, PORT));
    let listeners = at.iter().map(|at| serving.listen(at.ip(), PORT)).collect::<Result<Vec<_>>>()?;
    // The first restart makes it protected; after the second the agent has all it needs from a host that is already.
    for round in ["protected", "restarted"] {
        restart_protected(&mut site)?;
        for at in at {
            wait::until_ok("an allowed connection", SETTLE_LIMIT, || Ok(web.request(at, LIMIT)?.ok()))?;
            let took = quickest_refusal(&cron, at)?;
            ensure!(took < FAST, "{round}: {at} refused only after {took:?}");
        }
    }
    ensure!(listeners.iter().all(|listener| listener.accepted().is_ok_and(|all| !all.is_empty())));
    let host = site.node(NODES[0])?.host().clone();
    // Of the host, nobody but ping opens raw sockets, root or not.
    let before = refused(&site, NODES[0], "raw-socket")?;
    let raw = "socket(my $s, AF_INET, SOCK_RAW, 255) or exit $!+0;";
    let raw = host.finished(Program::new("perl").args(["-MSocket=:all", "-e", raw]), LIMIT)?;
    assert_eq!(raw.status.code(), Some(EPERM), "{}", raw.stderr);
    wait::until_succeeds("the refusal to be counted", SETTLE_LIMIT, || {
        let counted = refused(&site, NODES[0], "raw-socket")?;
        ensure!(counted == before + 1, "{before}, then {counted}");
        Ok(())
    })?;
    listeners_of_the_host(&site)?;
    drop(site);
    run.finish()
}

/// ssh's like: inside the host and over loopback it passes; from another node as policy says.
fn listeners_of_the_host(site: &Site) -> Result<()> {
    let [own, other] = [site.node(NODES[0])?, site.node(NODES[1])?];
    let (inside, outside) = (Peer::start(own.host())?, Peer::start(other.host())?);
    let _listening = inside.listen("0.0.0.0".parse()?, SSH)?;
    inside.request(SocketAddr::new("127.0.0.1".parse()?, SSH), LIMIT)??;
    let to = SocketAddr::new(own.addresses().v4.into(), SSH);
    let took = quickest_refusal(&outside, to)?;
    ensure!(took < FAST, "refused only after {took:?}");
    site.apply(HOSTS)?;
    site.wait_until_rolled_out()?;
    wait::until_ok("what policy allows to the host", SETTLE_LIMIT, || Ok(outside.request(to, LIMIT)?.ok()))?;
    Ok(())
}
