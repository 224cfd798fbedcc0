//! Step 9: a plain client is external; only an ExternalNetwork rule lets it in. Who strips its own option stays who it is.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::site::{SETTLE_LIMIT, Site, WEB_PORT, say};
use super::{Ground, Step};
use crate::peer::Peer;
use crate::wait;

pub(super) const STEP: Step = Step {
    number: 9,
    title: "outsiders: a plain client is external, and nobody becomes one by stripping",
    on: Ground::Fleet,
    run,
};

/// Dialled at the gateway of eu-1 for web.
const WEB_DIALLED: u16 = 18_080;
const TRY: Duration = Duration::from_millis(800);
/// Drops the identity option from every packet that leaves the namespace.
const STRIP: &str = "table inet strip { chain out {\n type filter hook postrouting priority 0;\n\
     tcp option 253 exists reset tcp option 253\n }\n }\n";

fn partner(addresses: &str) -> String {
    format!(
        "apiVersion: stolos.dev/v1\nkind: ExternalNetwork\nmetadata: {{namespace: /acme, name: partner}}\n\
         spec: {{cidrs: [{addresses}]}}\n---\n\
         apiVersion: stolos.dev/v1\nkind: Policy\nmetadata: {{namespace: /acme, name: partner-to-web}}\n\
         spec: {{from: ['@external=partner'], to: [app=web], ports: [tcp/{WEB_PORT}], action: allow}}\n"
    )
}

fn run(site: &mut Site) -> Result<()> {
    site.enforce()?;
    let outsider = site.world.outsider("partner", 100)?;
    let web = site.workload("web")?.addresses;
    let eu = &site.world.clusters[0];
    eu.gateway.forward("tcp", WEB_DIALLED, web, WEB_PORT)?;
    let dialled = eu.gateway.outside().both().map(|address| SocketAddr::new(address, WEB_DIALLED));
    let client = Peer::start(&outsider.place)?;
    for to in dialled {
        ensure!(!connects(&client, to)?, "a plain client reaches web at {to} without any rule");
    }
    say("a machine without an agent asks for web: refused");
    let [v4, v6] = outsider.addresses.both();
    site.apply(&partner(&format!("{v4}/32, \"{v6}/128\"")))?;
    for to in dialled {
        wait::until_ok("the outsider to be let in", SETTLE_LIMIT, || Ok(connects(&client, to)?.then_some(())))?;
    }
    say("an ExternalNetwork and a rule for it: let in, IPv4 and IPv6");
    stripping_helps_nobody(site)?;
    site.cli(&["delete", "policy", "partner-to-web", "-n", "/acme"])?;
    site.cli(&["delete", "externalnetwork", "partner", "-n", "/acme"])?;
    site.wait_until_rolled_out()
}

/// `api` may reach web as itself. Without its option it is nobody, even where a rule admits its whole network.
fn stripping_helps_nobody(site: &mut Site) -> Result<()> {
    let web = site.workload("web")?.addresses;
    let api = site.workload("api")?;
    let client = api.peer()?;
    let to = SocketAddr::new(web.v4.into(), WEB_PORT);
    ensure!(connects(&client, to)?, "api reaches web as itself");
    site.apply(&partner("10.0.0.0/24, \"fd00:a::/64\", 192.168.77.0/24, \"fd00:77::/64\""))?;
    site.wait_until_rolled_out()?;
    api.place.netns().nft(STRIP)?;
    for address in web.both() {
        let to = SocketAddr::new(address, WEB_PORT);
        ensure!(!connects(&client, to)?, "api strips its option and reaches web at {to} as an external end");
    }
    api.place.netns().nft("delete table inet strip\n")?;
    wait::until_ok("api to be let in again", SETTLE_LIMIT, || Ok(connects(&client, to)?.then_some(())))?;
    say(
        "api, with its option stripped on the way, is refused although a rule names its network: fleet addresses are never external",
    );
    Ok(())
}

/// Whether an HTTP request gets a reply.
fn connects(client: &Peer, to: SocketAddr) -> Result<bool> {
    match client.connect(to, TRY)? {
        Ok(connection) => {
            let open = connection.http_get(TRY)?.is_ok();
            connection.close()?;
            Ok(open)
        }
        Err(_) => Ok(false),
    }
}
