//! What documents say of other documents and of the fleet's addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::kind::external_network::ExternalNetworkSpec;
use api::kind::policy::PolicySpec;
use api::kind::revocation::RevocationSpec;
use api::kind::service::{Protocol, ServiceAddress, ServiceSpec};
use ipnet::IpNet;
use policy::attribute::EXTERNAL_KEY;
use policy::selector::{Pattern, Selector, Test};

use super::*;

/// Most fleet addresses that a warning names.
const NAMED_MAX: usize = 5;

/// Everything that a document refers to and that is not as it says.
pub(super) async fn check(
    write: &mut Transaction,
    manifest: &Manifest<'_>,
    around: &Surroundings,
) -> Result<Vec<Diagnostic>, StoreError> {
    match manifest.kind.name {
        PolicySpec::KIND => external_ends(write, manifest).await,
        ServiceSpec::KIND => claims(write, manifest).await,
        ExternalNetworkSpec::KIND => covered(write, manifest, around).await,
        RevocationSpec::KIND => target(write, manifest).await,
        _ => Ok(Vec::new()),
    }
}

fn typed<S: Spec>(object: &Object) -> Option<S> {
    serde_json::from_value(object.spec.clone()).ok()
}

/// `@external=NAME` names an ExternalNetwork of the policy's namespace or one above.
async fn external_ends(write: &mut Transaction, manifest: &Manifest<'_>) -> Result<Vec<Diagnostic>, StoreError> {
    let mut found = Vec::new();
    let Some(spec) = typed::<PolicySpec>(&manifest.object) else { return Ok(found) };
    let Ok(own) = manifest.object.metadata.namespace.parse::<NamespacePath>() else { return Ok(found) };
    for (key, list) in [("from", &spec.from), ("to", &spec.to)] {
        for (index, text) in list.iter().enumerate() {
            for name in external_names(text) {
                if reachable(write, &own, &name).await? {
                    continue;
                }
                let places: Vec<&str> = own.and_ancestors().collect();
                let message = format!("no ExternalNetwork `{name}` is in {}", places.join(", "));
                let items = manifest.document.root.at(&["spec", key]).map_or(&[][..], |node| node.items());
                let span = items.get(index).map_or(manifest.span(&["spec"]), |node| node.span.clone());
                let problem = Problem::new(code::SELECTOR_EXTERNAL_SCOPE, span, message);
                let problem = problem.field(format!("spec.{key}[{index}]"));
                found.push(
                    manifest.diagnose(problem.help("add the ExternalNetwork to the same apply, or create it first")),
                );
            }
        }
    }
    Ok(found)
}

fn external_names(selector: &str) -> Vec<String> {
    let Ok(parsed) = Selector::parse(selector) else { return Vec::new() };
    let external = parsed.selector.requirements().iter().filter(|r| r.key == EXTERNAL_KEY);
    let patterns = external.flat_map(|r| match &r.test {
        Test::In(patterns) => patterns.as_slice(),
        _ => &[],
    });
    let exact = patterns.filter_map(|pattern| match pattern {
        Pattern::Exact(name) => Some(name.clone()),
        _ => None,
    });
    exact.collect()
}

/// A bare name is looked for from the policy's namespace up; a qualified one (`/namespace:name`) only there.
async fn reachable(write: &mut Transaction, own: &NamespacePath, name: &str) -> Result<bool, StoreError> {
    let places: Vec<(String, String)> = match name.split_once(':') {
        Some((namespace, name)) => vec![(namespace.to_owned(), name.to_owned())],
        None => own.and_ancestors().map(|namespace| (namespace.to_owned(), name.to_owned())).collect(),
    };
    for (namespace, name) in places {
        if write.get(&ObjectKey::new(ExternalNetworkSpec::KIND, &namespace, &name)).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Two Services cannot own one address and port in one realm.
async fn claims(write: &mut Transaction, manifest: &Manifest<'_>) -> Result<Vec<Diagnostic>, StoreError> {
    let mut found = Vec::new();
    let Some(own) = typed::<ServiceSpec>(&manifest.object) else { return Ok(found) };
    for other in of_kind(write, ServiceSpec::KIND).await? {
        if other.key() == manifest.object.key() {
            continue;
        }
        let Some(spec) = typed::<ServiceSpec>(&other) else { continue };
        for (index, address) in own.addresses.iter().enumerate() {
            if !spec.addresses.iter().any(|theirs| collide(address, theirs)) {
                continue;
            }
            let message = format!("{} is claimed by {}", shown(address), other.key());
            let items = manifest.document.root.at(&["spec", "addresses"]).map_or(&[][..], |node| node.items());
            let span = items.get(index).map_or(manifest.span(&["spec"]), |node| node.span.clone());
            let problem =
                Problem::new(api_code::REALM_CONFLICT, span, message).field(format!("spec.addresses[{index}]"));
            found.push(manifest.diagnose(problem.help("use another address or port, or name different `realms`")));
        }
    }
    Ok(found)
}

fn collide(a: &ServiceAddress, b: &ServiceAddress) -> bool {
    let realms = match (&a.realms, &b.realms) {
        (Some(a), Some(b)) => a.iter().any(|realm| b.contains(realm)),
        _ => true,
    };
    let whole = a.port.is_none() && b.port.is_none();
    a.address == b.address && realms && (whole || (a.port.is_some() && a.port == b.port && a.protocol == b.protocol))
}

fn shown(address: &ServiceAddress) -> String {
    let protocol = match address.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match address.port {
        Some(port) => format!("{} {protocol}/{port}", address.address),
        None => address.address.to_string(),
    }
}

/// A network that covers addresses of the fleet is reported: those never match it.
async fn covered(
    write: &mut Transaction,
    manifest: &Manifest<'_>,
    around: &Surroundings,
) -> Result<Vec<Diagnostic>, StoreError> {
    let Some(spec) = typed::<ExternalNetworkSpec>(&manifest.object) else { return Ok(Vec::new()) };
    let fleet = fleet_addresses(write, around).await?;
    let mut found = Vec::new();
    for (index, prefix) in spec.cidrs.iter().enumerate() {
        let hit: Vec<String> = fleet.iter().filter(|a| prefix.contains(*a)).map(|a| a.addr().to_string()).collect();
        if hit.is_empty() {
            continue;
        }
        let more = hit.len().saturating_sub(NAMED_MAX);
        let mut named = hit[..hit.len().min(NAMED_MAX)].join(", ");
        if more > 0 {
            named.push_str(&format!(" and {more} more"));
        }
        let message =
            format!("{prefix} covers addresses of the fleet: {named}; those keep their identity and never match it");
        let items = manifest.document.root.at(&["spec", "cidrs"]).map_or(&[][..], |node| node.items());
        let span = items.get(index).map_or(manifest.span(&["spec"]), |node| node.span.clone());
        let problem = Problem::new(api_code::COVERS_FLEET, span, message).field(format!("spec.cidrs[{index}]"));
        found.push(manifest.diagnose(problem.warning()));
    }
    Ok(found)
}

async fn fleet_addresses(write: &mut Transaction, around: &Surroundings) -> Result<BTreeSet<IpNet>, StoreError> {
    let mut addresses: BTreeSet<IpAddr> =
        around.clusters.values().flat_map(|c| c.nat_addresses.iter().copied()).collect();
    for object in of_kind(write, NodeSpec::KIND).await? {
        let texts = status::<NodeStatus>(&object).map(|status| status.addresses).unwrap_or_default();
        addresses.extend(texts.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
    }
    for object in of_kind(write, WorkloadSpec::KIND).await? {
        let texts = status::<WorkloadStatus>(&object).map(|status| status.addresses).unwrap_or_default();
        addresses.extend(texts.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
    }
    Ok(addresses.into_iter().map(IpNet::from).collect())
}

/// The node or cluster that is revoked should exist: a misspelt revocation protects nobody.
async fn target(write: &mut Transaction, manifest: &Manifest<'_>) -> Result<Vec<Diagnostic>, StoreError> {
    let Some(spec) = typed::<RevocationSpec>(&manifest.object) else { return Ok(Vec::new()) };
    let (key, kind, name) = match (&spec.target.node, &spec.target.cluster) {
        (Some(name), _) => ("node", NodeSpec::KIND, name),
        (_, Some(name)) => ("cluster", ClusterSpec::KIND, name),
        _ => return Ok(Vec::new()),
    };
    if write.get(&ObjectKey::new(kind, "/", name)).await?.is_some() {
        return Ok(Vec::new());
    }
    let message = format!("there is no {key} `{name}` now; the revocation takes effect if one of that name comes");
    let problem = Problem::new(api_code::NOT_FOUND, manifest.span(&["spec", "target", key]), message).warning();
    Ok(vec![manifest.diagnose(problem.field(format!("spec.target.{key}")))])
}
