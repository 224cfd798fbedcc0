//! `stolos dev`: a control plane and an agent for this one machine, gone again on Ctrl-C.
//!
//! The agent enforces below a cgroup of its own, `stolos-dev`, so that nothing else on the machine is touched.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use agent::Agent;
use agent::config::{Config as AgentConfig, Source};
use agent::workload::namespaces::Namespaces;
use api::apply::{ApplyRequest, Source as Document};
use api::local::{Detach, Enforcement, Status};
use api::token::JoinTokenRequest;
use reqwest::Method;
use server::Server as ControlPlane;
use server::config::{Config as ServerConfig, Paths};
use server::init::init;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent_socket::AgentSocket;
use crate::args::{Connection, Dev, Output, ServerInit};
use crate::cmd::agent::run as agent_run;
use crate::cmd::server as server_verbs;
use crate::failure::{C, Failure, Outcome, reason};
use crate::output::Screen;
use crate::process;
use crate::server::Server;

mod release;

/// The tenancy that a newcomer finds.
const FLEET: &str = include_str!("dev/fleet.yaml");
/// What lets `web` reach `db`.
const ALLOW: &str = include_str!("dev/allow.yaml");
/// What makes policies bite.
const ENFORCE: &str = include_str!("dev/enforce.yaml");
/// Name of the cluster in [`FLEET`].
const CLUSTER: &str = "dev";
/// Name of its cgroup.
const CGROUP: &str = "stolos-dev";

pub(crate) fn run(args: Dev) -> Outcome {
    if !args.no_agent && !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            C::ROOT_NEEDED,
            "an agent loads kernel programs, and only root may do that",
            "run `stolos dev` as root, or `stolos dev --no-agent` for the server alone",
        ));
    }
    // Warnings are for operators; here they would tell of dev's own coming and going.
    process::start_log("error")?;
    let temporary = match &args.data {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("stolos-dev-")
                .tempdir()
                .map_err(|error| Failure::unwritable(&std::env::temp_dir(), &error))?,
        ),
    };
    let data = match (&args.data, &temporary) {
        (Some(data), _) => std::path::absolute(data).unwrap_or_else(|_| data.clone()),
        (None, Some(directory)) => directory.path().to_owned(),
        (None, None) => unreachable!("BUG: without --data there is a temporary directory"),
    };
    process::serve(async {
        let stop = process::stop_on_signal()?;
        let plane = Plane::start(&data, args.listen).await?;
        let shown = machine(&plane, &args, &data, &stop).await;
        plane.stop().await;
        shown
    })
}

/// The agent's part: started, shown around, taken away; without one, only the server.
async fn machine(plane: &Plane, args: &Dev, data: &Path, stop: &CancellationToken) -> Outcome {
    let node = match args.no_agent {
        true => None,
        false => Some(Node::start(plane, args, data).await?),
    };
    let invited = invite(plane, node.as_ref(), data);
    if invited.is_ok() {
        stop.cancelled().await;
    }
    if let Some(node) = node {
        node.stop().await?;
    }
    invited
}

/// The control plane.
struct Plane {
    admin: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Plane {
    async fn start(data: &Path, listen: std::net::SocketAddr) -> Result<Self, Failure> {
        let data = data.join("server");
        let paths = Paths::of(&data);
        if !paths.config.exists() {
            let typed = ServerInit {
                data: data.clone(),
                listen,
                names: Vec::new(),
                trust_domain: "dev.local".to_owned(),
                store: None,
                seal_key: None,
            };
            let options = server_verbs::options(&typed)?;
            init(&options).await.map_err(|error| server_verbs::init_failed(&error))?;
        }
        let bound = ControlPlane::bind(ServerConfig::new(&data)).await;
        let bound = bound.map_err(|error| server_verbs::bind_failed(&error, &data))?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.run(stop.clone()));
        let plane = Self { admin: paths.admin, stop, task };
        plane.server()?.apply(&fleet(&own_addresses()), false).await?;
        Ok(plane)
    }

    fn server(&self) -> Result<Server, Failure> {
        Server::configured(&Connection { config: Some(self.admin.clone()), context: None }, &Default::default())
    }

    async fn stop(self) {
        self.stop.cancel();
        // A task that panicked has said so in the log.
        let _ = self.task.await;
    }
}

/// The tenancy, with this machine's addresses as what its agent may declare.
fn fleet(addresses: &BTreeSet<IpAddr>) -> ApplyRequest {
    let ranges: Vec<String> =
        addresses.iter().map(|at| format!("\"{at}/{}\"", if at.is_ipv4() { 32 } else { 128 })).collect();
    let text = FLEET.replace("addressRanges: []", &format!("addressRanges: [{}]", ranges.join(", ")));
    ApplyRequest { sources: vec![Document { name: "fleet.yaml".to_owned(), text }], ..ApplyRequest::default() }
}

/// Addresses of this machine; none where it has none beside loopback.
fn own_addresses() -> BTreeSet<IpAddr> {
    Namespaces::new().map(|namespaces| namespaces.own_addresses()).unwrap_or_default()
}

/// The agent of this machine.
struct Node {
    socket: PathBuf,
    cgroup: PathBuf,
    pin: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    async fn start(plane: &Plane, args: &Dev, data: &Path) -> Result<Self, Failure> {
        // Spent at once, or, where the node is enrolled already, soon over.
        let request = JoinTokenRequest { ttl_s: Some(60), node: None };
        let token = plane.server()?.join_token(CLUSTER, &request).await?.token;
        let token = token.parse().map_err(|error: api::token::TokenError| {
            Failure::new(
                C::ANSWER_STRANGE,
                format!("the server's join token: {error}"),
                "this is a defect; please report it",
            )
        })?;
        let cgroup = args.cgroup_root.clone().map_or_else(agent_run::cgroup_mount, Ok)?.join(CGROUP);
        fs::create_dir_all(&cgroup).map_err(|error| {
            let what = format!("cannot make the cgroup {}: {}", cgroup.display(), reason(&error));
            Failure::new(C::CGROUP_REFUSED, what, "run it as root on a machine with cgroup v2")
        })?;
        let (pin, socket) = (args.bpf_pin.clone(), data.join("agent.sock"));
        let config = AgentConfig {
            data: data.join("agent"),
            cgroup_root: cgroup.clone(),
            bpf_pin: pin.clone(),
            socket: socket.clone(),
            ..AgentConfig::new(Source::Server { join_token: Some(token) })
        };
        let bound = match Agent::bind(config).await {
            Ok(bound) => bound,
            Err(error) => {
                let _ = fs::remove_dir(&cgroup);
                return Err(agent_run::bind_failed(&error));
            }
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.run(stop.clone()));
        let node = Self { socket, cgroup, pin, stop, task };
        // A kept directory remembers that the last time ended with a detach.
        match node.attach().await {
            Ok(()) => Ok(node),
            Err(failure) => {
                node.stop().await?;
                Err(failure)
            }
        }
    }

    async fn attach(&self) -> Outcome {
        let agent = AgentSocket::connectable(&self.socket)?;
        if !agent.get::<Status>(&["status"]).await?.enforcement.attached {
            agent.send::<Enforcement>(Method::POST, &["attach"], &serde_json::json!({})).await?;
        }
        Ok(())
    }

    /// Takes the programs off, ends the agent, and removes what it left. Workloads that still run go on without us.
    async fn stop(self) -> Outcome {
        let detached = match AgentSocket::connectable(&self.socket) {
            Ok(agent) => agent.send::<Enforcement>(Method::POST, &["detach"], &Detach::default()).await.map(|_| ()),
            Err(failure) => Err(failure),
        };
        self.stop.cancel();
        // A task that panicked has said so in the log.
        let _ = self.task.await;
        let _ = fs::remove_dir(&self.pin);
        let released = release::release(&self.cgroup);
        let mut text = String::new();
        if !released.moved.is_empty() {
            text = format!("Still running, without Stolos now: {}\n", released.moved.join(", "));
        }
        if let Some(stays) = released.stays {
            text.push_str(&format!("{stays}\n"));
        }
        // Where standard error is gone there is nobody left to tell.
        let _ = std::io::stderr().write_all(text.as_bytes());
        detached
    }
}

fn invite(plane: &Plane, node: Option<&Node>, data: &Path) -> Outcome {
    for (name, text) in [("allow.yaml", ALLOW), ("enforce.yaml", ENFORCE)] {
        let file = data.join(name);
        fs::write(&file, text).map_err(|error| Failure::unwritable(&file, &error))?;
    }
    let mut screen = Screen::stdout(Output::Table);
    screen.line("Stolos runs on this machine until Ctrl-C. Everything observes: nothing is refused yet.\n")?;
    screen.line("In another shell, as root:")?;
    screen.line(format!("  export STOLOS_CONFIG={}", plane.admin.display()))?;
    let Some(node) = node else {
        return screen.line("  stolos status\n  stolos get namespaces");
    };
    let address = own_addresses().into_iter().next().unwrap_or(Ipv4Addr::LOCALHOST.into());
    let data = data.display();
    screen.line(format!("  export STOLOS_SOCKET={}", node.socket.display()))?;
    screen.line("  stolos run --name db --label app=db -- redis-server --save '' --protected-mode no &")?;
    let every_second = format!("sh -c 'while sleep 1; do redis-cli -h {address} ping; done' >web.log 2>&1 &");
    screen.line(format!("  stolos run --name web --label app=web -- {every_second}"))?;
    screen.line("  stolos flows                          # one row, both identities, what enforcing would say")?;
    screen.line("  stolos explain flow web db:6379       # why, and the smallest rule that would allow it\n")?;
    screen.line("Then let policies bite:")?;
    screen.line(format!("  stolos apply --dry-run -f {data}/enforce.yaml   # what would break"))?;
    screen.line(format!("  stolos apply -f {data}/allow.yaml -f {data}/enforce.yaml"))?;
    screen.line("  tail -f web.log                                         # goes on: web may")?;
    screen.line(format!("  stolos run --name cron -- redis-cli -h {address} ping   # refused: nobody allows cron"))?;
    screen.line("  stolos flows; stolos status; stolos doctor")?;
    screen.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn what_dev_applies_and_offers_is_sound() {
        let sources: Vec<Document> = [("fleet", FLEET), ("allow", ALLOW), ("enforce", ENFORCE)]
            .map(|(name, text)| Document { name: name.to_owned(), text: text.to_owned() })
            .into();
        assert!(manifest::check(&sources).is_ok());
        let addresses = BTreeSet::from(["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]);
        let own = fleet(&addresses).sources;
        assert!(own[0].text.contains(r#"addressRanges: ["192.0.2.7/32", "2001:db8::7/128"]"#), "{}", own[0].text);
        assert!(manifest::check(&own).is_ok());
        let named: Vec<String> = manifest::keys(&sources, None).iter().map(ToString::to_string).collect();
        assert_eq!(named, ["Namespace /dev", "Cluster /:dev", "Policy /dev:web-to-db", "Namespace /dev"]);
    }
}
