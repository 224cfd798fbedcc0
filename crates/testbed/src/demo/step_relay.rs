//! Step 13: a third party that relays a client's handshake to the real server is refused by the client (rule 1).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use policy::reason::Reason;

use super::lab::PORT;
use super::site::{SETTLE_LIMIT, Site, say};
use super::{Ground, Step};
use crate::attack::relay::Relay;
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
    let (target, caller) = (lab.target.peer()?, lab.caller.peer()?);
    for (at, relay_address) in lab.target_addresses().into_iter().zip(lab.decoy.addresses().both()) {
        let listener = target.listen(at.ip(), PORT)?;
        caller.request(at, LIMIT)??;
        let before = lab.denials(lab.second())?.get(&Reason::PlaceMismatch).copied().unwrap_or(0);
        let lure = SocketAddr::new(relay_address, PORT);
        let relay = Relay::start(lab.decoy.place().netns(), lure, at)?;
        let outcome = caller.connect(lure, LIMIT)?;
        let relayed = relay.relayed();
        ensure!(relayed.forth > 0 && relayed.back > 0, "the relay had nothing to relay: {relayed:?}");
        let failure = outcome.err();
        ensure!(failure.is_some(), "the client fell for the relay");
        wait::until_ok("the mismatch to be counted", SETTLE_LIMIT, || {
            let now = lab.denials(lab.second())?.get(&Reason::PlaceMismatch).copied().unwrap_or(0);
            Ok((now > before).then_some(()))
        })?;
        ensure!(listener.accepted()?.len() == 1, "target accepted the relayed handshake");
        listener.close()?;
        say(&format!(
            "caller dials decoy at {lure}; it relays target's genuine answer; caller refuses: {}",
            failure.map(|f| f.text).unwrap_or_default()
        ));
    }
    Ok(())
}
