//! Why a flow is allowed or refused: the question of an operator, answered from the fleet as it is.
//!
//! Pure. Names and addresses are resolved here; what the rules say is [`policy::explain`]'s.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::explain::{ExplainAnswer, ExplainRequest, ExplainedEnd, ExplainedSide};
use api::flow::Verdict;
use api::kind::namespace::Mode as ApiMode;
use policy::attribute::Peer;
use policy::decide::Flow;
use policy::explain::{Explanation, explain as explain_rules};
use policy::namespace::ExternalId;
use policy::policy::{Action, Mode, Side};
use policy::port::{Port, protocol};
use policy::reason::Reason;

use crate::fleet::reference::ReferenceError;
use crate::fleet::{Fleet, WorkloadEntry};
use crate::place::claims::Owner;
use crate::place::{self, ServiceEntry};

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// An end is not known, or is several workloads.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The port is no single port.
    #[error("`{0}` is no single port: write tcp/5432, udp/53 or icmp")]
    Port(String),
    /// An address stands for several workloads.
    #[error("{address} is {what}, which is several workloads: name one of {}", .candidates.join(", "))]
    Shared {
        /// The address.
        address: IpAddr,
        /// What is there.
        what: String,
        /// Who may answer there.
        candidates: Vec<String>,
    },
    /// An address of a fleet's node or Service at which nothing runs.
    #[error("{address} is {what}, and no workload is there")]
    Nobody {
        /// The address.
        address: IpAddr,
        /// What is there.
        what: String,
    },
    /// Neither end is a workload.
    #[error("neither end is a workload of the fleet")]
    NoWorkload,
}

/// An end of the flow, as it was resolved.
enum End<'a> {
    Workload(&'a WorkloadEntry),
    External(IpAddr, BTreeSet<ExternalId>),
}

impl End<'_> {
    fn peer(&self) -> Peer<'_> {
        match self {
            Self::Workload(workload) => Peer::Workload(&workload.identity),
            Self::External(_, networks) => Peer::External(networks),
        }
    }

    fn shown(&self) -> ExplainedEnd {
        match self {
            Self::Workload(workload) => ExplainedEnd {
                name: workload.path(),
                uid: Some(workload.uid.clone()),
                node: Some(workload.node().to_owned()),
                cluster: Some(workload.cluster().to_owned()),
            },
            Self::External(address, networks) => {
                let names: Vec<String> = networks.iter().map(ExternalId::to_string).collect();
                let name = match names.is_empty() {
                    true => address.to_string(),
                    false => format!("{address} ({})", names.join(", ")),
                };
                ExplainedEnd { name, ..ExplainedEnd::default() }
            }
        }
    }
}

/// Answers a question.
pub fn explain(fleet: &Fleet, request: &ExplainRequest) -> Result<ExplainAnswer, ExplainError> {
    let (protocol, number) = single_port(&request.port)?;
    let (from, to) = (address(&request.from), address(&request.to));
    let (client, server) = match (from, to) {
        (Some(_), Some(_)) => return Err(ExplainError::NoWorkload),
        (Some(client), None) => {
            let server = fleet.resolve(&request.to)?;
            (at_address(fleet, server, client, protocol, number)?, End::Workload(server))
        }
        (None, Some(server)) => {
            let client = fleet.resolve(&request.from)?;
            (End::Workload(client), at_address(fleet, client, server, protocol, number)?)
        }
        (None, None) => (End::Workload(fleet.resolve(&request.from)?), End::Workload(fleet.resolve(&request.to)?)),
    };
    let real = to.and_then(|dialled| target_port(fleet, &client, dialled, protocol, number)).unwrap_or(number);
    let flow = Flow { client: client.peer(), server: server.peer(), protocol, port: real };
    let explanation = explain_rules(fleet.rules(), &flow);
    Ok(answer(fleet, &client, &server, port_text(protocol, real), &explanation))
}

fn answer(fleet: &Fleet, client: &End<'_>, server: &End<'_>, port: String, explanation: &Explanation) -> ExplainAnswer {
    let revoked = [client, server].into_iter().find_map(|end| match end {
        End::Workload(workload) => fleet.revocation_of(workload).map(|(name, _)| (workload.path(), name)),
        End::External(..) => None,
    });
    let checked = port_checked_by(fleet, client, server);
    let mut text = explanation.text();
    if let Some((who, name)) = &revoked {
        text =
            format!("refused: {who} is revoked by Revocation {name} ({}); without it:\n{text}", Reason::Revoked.code());
    }
    text.push_str(&format!("\nthe port is checked by {checked}"));
    let verdict = |allowed: bool| if allowed && revoked.is_none() { Verdict::Allow } else { Verdict::Deny };
    let side = |side| explained_side(explanation, side, revoked.is_some());
    ExplainAnswer {
        from: client.shown(),
        to: server.shown(),
        port,
        verdict: verdict(explanation.decision.allowed),
        would: verdict(explanation.decision.would_allow),
        egress: side(Side::Egress),
        ingress: side(Side::Ingress),
        port_checked_by: checked.to_owned(),
        revision: fleet.revision(),
        behind: Vec::new(),
        text,
    }
}

fn explained_side(explanation: &Explanation, side: Side, revoked: bool) -> Option<ExplainedSide> {
    let explained = explanation.side(side)?;
    let outcome = &explained.word.outcome;
    let reason = if revoked { Some(Reason::Revoked) } else { explained.reason };
    let denied = revoked || outcome.action == Action::Deny;
    let suggested = explanation.suggestions.iter().find(|s| s.sides.contains(&side));
    Some(ExplainedSide {
        namespace: explained.namespace.to_string(),
        mode: match explained.word.mode {
            Mode::Observe => ApiMode::Observe,
            Mode::Enforce => ApiMode::Enforce,
        },
        would: if denied { Verdict::Deny } else { Verdict::Allow },
        policy: outcome.by.as_ref().map(ToString::to_string),
        reason: reason.map(|reason| reason.label().to_owned()),
        code: reason.map(|reason| reason.code().to_owned()),
        missing: explained.nearest.iter().map(ToString::to_string).collect(),
        smallest_rule: suggested.map(|suggestion| suggestion.yaml()),
    })
}

/// Which end knows the real port. Source: DESIGN "Evaluation", ports.
fn port_checked_by(fleet: &Fleet, client: &End<'_>, server: &End<'_>) -> &'static str {
    match (client, server) {
        (End::Workload(_), End::External(..)) => "the client's end",
        (End::Workload(client), End::Workload(server))
            if fleet.realm_of(client.at.node) == fleet.realm_of(server.at.node) =>
        {
            "both ends"
        }
        _ => "the server's end, which knows the port that the socket is bound to",
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Who is at an address, as a workload of the fleet sees it from its realm.
fn at_address<'a>(
    fleet: &'a Fleet,
    seen_by: &WorkloadEntry,
    address: IpAddr,
    protocol: u8,
    port: u16,
) -> Result<End<'a>, ExplainError> {
    let realm = fleet.realm_of(seen_by.at.node).unwrap_or_default();
    if let Some(service) = service_at(fleet, realm, address, protocol, port) {
        let identities = fleet.workloads().map(|workload| (workload.at, &*workload.identity));
        let (members, _) = place::members(service, identities, &fleet.declared());
        let found: Vec<&WorkloadEntry> = members.workloads.iter().filter_map(|at| fleet.workload(*at)).collect();
        return one_of(fleet, address, format!("Service {}:{}", service.namespace, service.name), &found);
    }
    match fleet.claims.holder(realm, address) {
        Some(Owner::Workload(at)) => {
            let found: Vec<&WorkloadEntry> = fleet.workload(at).into_iter().collect();
            one_of(fleet, address, "a workload's address".to_owned(), &found)
        }
        Some(Owner::Node(node)) => {
            let found: Vec<&WorkloadEntry> = fleet.workloads().filter(|workload| workload.at.node == node).collect();
            let name = fleet.node(node).map_or("?", |node| node.name.as_str());
            one_of(fleet, address, format!("node {name}"), &found)
        }
        None => Ok(End::External(address, fleet.networks_of(realm, address))),
    }
}

fn one_of<'a>(
    fleet: &Fleet,
    address: IpAddr,
    what: String,
    found: &[&'a WorkloadEntry],
) -> Result<End<'a>, ExplainError> {
    match found {
        [one] => Ok(End::Workload(one)),
        [] => Err(ExplainError::Nobody { address, what }),
        _ => {
            let candidates = found.iter().take(10).map(|workload| fleet.unambiguous(workload)).collect();
            Err(ExplainError::Shared { address, what, candidates })
        }
    }
}

/// The Service that owns an address and port in a realm; a whole address comes after a single port.
fn service_at<'a>(fleet: &'a Fleet, realm: &str, address: IpAddr, protocol: u8, port: u16) -> Option<&'a ServiceEntry> {
    let owns = |service: &ServiceEntry, wanted: Option<u16>| {
        service.spec.addresses.iter().any(|own| {
            let here = own.realms.as_ref().is_none_or(|realms| realms.iter().any(|r| r == realm));
            let transport = wanted.is_none() || number_of(own.protocol) == protocol;
            here && transport && own.address.to_canonical() == address && own.port == wanted
        })
    };
    let find = |wanted| fleet.services.values().find(|service| owns(service, wanted));
    find(Some(port)).or_else(|| find(None))
}

/// The real port behind a Service's port.
fn target_port(fleet: &Fleet, client: &End<'_>, address: IpAddr, protocol: u8, port: u16) -> Option<u16> {
    let End::Workload(client) = client else { return None };
    let realm = fleet.realm_of(client.at.node).unwrap_or_default();
    let service = service_at(fleet, realm, address, protocol, port)?;
    let own = |own: &&api::kind::service::ServiceAddress| {
        own.address.to_canonical() == address && own.port == Some(port) && number_of(own.protocol) == protocol
    };
    service.spec.addresses.iter().find(own)?.target_port
}

fn number_of(transport: api::kind::service::Protocol) -> u8 {
    match transport {
        api::kind::service::Protocol::Tcp => protocol::TCP,
        api::kind::service::Protocol::Udp => protocol::UDP,
    }
}

fn single_port(text: &str) -> Result<(u8, u16), ExplainError> {
    match text.parse::<Port>() {
        Ok(Port::Tcp(first, last)) if first == last => Ok((protocol::TCP, first)),
        Ok(Port::Udp(first, last)) if first == last => Ok((protocol::UDP, first)),
        Ok(Port::Icmp) => Ok((protocol::ICMP, 0)),
        _ => Err(ExplainError::Port(text.chars().take(100).collect())),
    }
}

fn port_text(protocol: u8, port: u16) -> String {
    match protocol {
        protocol::TCP => format!("tcp/{port}"),
        protocol::UDP => format!("udp/{port}"),
        _ => "icmp".to_owned(),
    }
}

#[cfg(test)]
mod tests;
