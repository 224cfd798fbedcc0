//! Step 13: a third party that relays a client's handshake to the real server is refused (rule 1): by the client where the
//! dialled address is not target's home, by the server where the source is the home of another workload.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use policy::reason::Reason;

use super::lab::{LURE, Lab, PORT};
use super::site::{SETTLE_LIMIT, Site, say};
use super::{Ground, Step};
use crate::attack::relay::Relay;
use crate::netns::Netns;
use crate::node::Node;
use crate::wait;

pub(super) const STEP: Step = Step {
    number: 13,
    title: "a relayed handshake: every proof is genuine, the place is wrong, refused",
    on: Ground::Lab,
    run,
};

const LIMIT: Duration = Duration::from_secs(3);

fn run(site: &mut Site) -> Result<()> {
    let lab = site.lab()?;
    for number in 0..2 {
        let at = lab.target_addresses()[number];
        let balancer = SocketAddr::new(lab.intruder.addresses.both()[number], LURE);
        let told = relayed(lab, lab.intruder.place.netns(), balancer, at, (lab.second(), Reason::PlaceMismatch))?;
        say(&format!("a balancer at {balancer} relays target's genuine answer: the client refuses ({told})"));
        let pod = SocketAddr::new(lab.decoy.addresses().both()[number], PORT);
        let told = relayed(lab, lab.decoy.place().netns(), pod, at, (lab.first(), Reason::SourceMismatch))?;
        say(&format!("decoy at {pod} relays caller's genuine call: the server refuses ({told})"));
    }
    Ok(())
}

/// The caller dials `lure`, whose owner relays to target; what the caller was told. Errors: it was let in, anybody accepted
/// anything, or the refusing end did not count its reason.
fn relayed(lab: &Lab, owner: &Netns, lure: SocketAddr, at: SocketAddr, refuses: (&Node, Reason)) -> Result<String> {
    let (target, caller) = (lab.target.peer()?, lab.caller.peer()?);
    let listener = target.listen(at.ip(), PORT)?;
    caller.request(at, LIMIT)??;
    let count = || Ok::<_, anyhow::Error>(lab.denials(refuses.0)?.get(&refuses.1).copied().unwrap_or(0));
    let before = count()?;
    let relay = Relay::start(owner, lure, at)?;
    let failure = caller.connect(lure, LIMIT)?.err().context("the client fell for the relay")?;
    ensure!(failure.is_refused(), "the application is told {failure}, not connection refused");
    wait::until_ok("the mismatch to be counted", SETTLE_LIMIT, || Ok((count()? > before).then_some(())))?;
    let relayed = relay.relayed();
    ensure!(relayed.forth > 0 && relayed.back > 0, "the relay had nothing to relay: {relayed:?}");
    ensure!(listener.accepted()?.len() == 1, "target accepted the relayed handshake");
    listener.close()?;
    Ok(failure.to_string())
}
