//! Service: addresses and members.

use std::collections::BTreeSet;

use api::kind::service::{ADDRESSES_MAX, MEMBERS_MAX};
use policy::port::Port;

use super::*;

pub(super) fn check(spot: &mut Spotter<'_, '_>) {
    spot.length(&["addresses"], 1, ADDRESSES_MAX);
    addresses(spot);
    members(spot);
    for (node, field) in spot.items(&["claimed"]) {
        let text = node.text().unwrap_or_default();
        if !matches!(text.parse::<Port>(), Ok(Port::Udp(first, last)) if first == last) {
            let message = format!("`{text}` is no single UDP port");
            spot.error_with_help(code::BAD_PORT, node, &field, message, "write it as in udp/53");
        }
    }
}

fn addresses(spot: &mut Spotter<'_, '_>) {
    let mut seen = BTreeSet::new();
    for (node, field) in spot.items(&["addresses"]) {
        let Some(address) = node.get("address").and_then(|a| spot.address(a, &format!("{field}.address"))) else {
            continue;
        };
        if let (Some(target), None) = (node.get("targetPort"), node.get("port")) {
            let message = "`targetPort` stands without `port`: a whole address has no single port behind it".to_owned();
            spot.error_with_help(code::MISSING_FIELD, target, &format!("{field}.targetPort"), message, "add `port`");
        }
        let part = |key: &str| node.get(key).map(|value| value.to_json().to_string()).unwrap_or_default();
        let protocol = node.get("protocol").and_then(Node::text).unwrap_or("tcp").to_owned();
        if !seen.insert((address, part("port"), protocol, part("realms"))) {
            spot.error(code::DUPLICATE_KEY, node, &field, "this address and port stand in the list twice");
        }
        realms(spot, node, &field);
    }
}

fn realms(spot: &mut Spotter<'_, '_>, node: &Node, field: &str) {
    let Some(list) = node.get("realms") else { return };
    if list.items().is_empty() {
        let message = "`realms` is empty: the address would mean nothing anywhere".to_owned();
        spot.error_with_help(api_code::RANGE, list, &format!("{field}.realms"), message, "leave it out for all realms");
    }
    for (index, realm) in list.items().iter().enumerate() {
        if realm.text().is_some_and(|text| check_name(text).is_err()) {
            let message = "a realm is named like a cluster: a-z, 0-9, `-` and `.` inside";
            spot.error(code::BAD_NAME, realm, &format!("{field}.realms[{index}]"), message);
        }
    }
}

fn members(spot: &mut Spotter<'_, '_>) {
    let selectors = spot.items(&["members", "selectors"]);
    let endpoints = spot.items(&["members", "endpoints"]);
    if let (Some(node), true) = (spot.at(&["members"]), selectors.is_empty() && endpoints.is_empty()) {
        let message = "nobody stands behind the addresses".to_owned();
        spot.error_with_help(api_code::RANGE, node, "spec.members", message, "name `selectors` or `endpoints`");
    }
    if let (Some(node), true) = (spot.at(&["members"]), selectors.len() + endpoints.len() > MEMBERS_MAX) {
        let message = format!("at most {MEMBERS_MAX} selectors and endpoints are taken");
        spot.error(code::TOO_MANY, node, "spec.members", message);
    }
    for (node, field) in selectors {
        if spot.selector(node, &field).is_some_and(|selector| selector.is_external()) {
            let message = "a member is a workload; external ends are members by address".to_owned();
            spot.error_with_help(code::SELECTOR_EXTERNAL_SCOPE, node, &field, message, "use `endpoints`");
        }
    }
    for (node, field) in endpoints {
        if let Some(address) = node.get("address") {
            spot.address(address, &format!("{field}.address"));
        }
    }
}
