//! The demo's workloads: real programs, each started by `stolos run`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::site::{DB_PORT, SETTLE_LIMIT, Site, WEB_PORT, WorkloadSpec, say};
use crate::node::Node;
use crate::process::Program;
use crate::{programs, wait};

/// Host number of the resolver's address in eu-1.
const RESOLVER_HOST: u8 = 53;
/// A name that the resolver answers, and what it answers.
const NAME: &str = "shop.demo.local";
/// The answer: where web is.
pub(super) const NAME_IS: &str = "10.0.0.11";

/// Starts all of them and waits until they serve.
pub(super) fn start(site: &mut Site) -> Result<()> {
    let nginx = programs::nginx(&site.node("eu-1-n1")?.dir().join("web"), WEB_PORT)?;
    let web_at_home = SocketAddr::new(site.node("eu-1-n1")?.addresses().v4.into(), WEB_PORT);
    let [db, _] = site.db_dialled();
    let start =
        |name, node, pod_host, labels, command| WorkloadSpec { name, node, pod_host, labels, command, wait: None };
    let dnsmasq = programs::dnsmasq(NAME, NAME_IS.parse()?);
    // web, cron and, in the other cluster, db have the same address; each node has one pod with an address of its own.
    for spec in [
        start("db", "us-1-n1", None, &["app=db"][..], programs::redis(DB_PORT)),
        start("web", "eu-1-n1", None, &["app=web", "tier=front"], nginx),
        start("cron", "eu-1-n1", None, &["app=cron"], programs::curl_loop(&format!("http://{db}/"))),
        start("load", "eu-1-n2", None, &["app=load"], programs::curl_loop(&format!("http://{web_at_home}/"))),
        start("standby", "us-1-n2", None, &["app=standby"], programs::idle()),
        start("api", "eu-1-n1", Some(101), &["app=api"], programs::idle()),
        start("resolver", "eu-1-n2", Some(RESOLVER_HOST), &["app=resolver"], dnsmasq),
        start("report", "us-1-n1", Some(101), &["app=report"], programs::idle()),
        start("audit", "us-1-n2", Some(102), &["app=audit"], programs::idle()),
    ] {
        site.start_workload(&spec)?;
    }
    say("web (nginx), cron (curl), load (curl) and resolver (dnsmasq) run in eu-1, db (redis) in us-1");
    let (web, db, resolver) = (site.workload("web")?, site.workload("db")?, site.workload("resolver")?);
    wait_listening(site.node(&web.node)?, WEB_PORT)?;
    wait_listening(site.node(&db.node)?, DB_PORT)?;
    resolver.process.wait_for_log("started", SETTLE_LIMIT)
}

/// Waits until something listens on a TCP port in the node's namespace, without connecting to it.
fn wait_listening(node: &Node, port: u16) -> Result<()> {
    let filter = format!("sport = :{port}");
    wait::until_ok(&format!("a listener on port {port} of {}", node.name()), SETTLE_LIMIT, || {
        let listed = node.netns().output("ss", &["-Hltn", &filter])?;
        Ok((!listed.trim().is_empty()).then_some(()))
    })
}

/// A question to the resolver, asked once.
pub(super) fn dig(server: IpAddr) -> Program {
    Program::of(programs::dig(server, NAME))
}
