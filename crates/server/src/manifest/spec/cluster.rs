//! Cluster: where it is and what its nodes may assert.

use policy::attribute::check_user_key;

use super::*;

/// Most entries of each list.
const ENTRIES_MAX: usize = 1024;

pub(super) fn check(spot: &mut Spotter<'_, '_>) {
    for key in ["addressRanges", "natAddresses", "allowedNamespaces", "labelKeys"] {
        spot.length(&[key], 0, ENTRIES_MAX);
    }
    if let Some(node) = spot.at(&["namespace"])
        && let Some(Err(error)) = node.text().map(NamespacePath::new)
    {
        spot.error(code::BAD_NAMESPACE, node, "spec.namespace", error.to_string());
    }
    for key in ["region", "realm"] {
        if let Some(node) = spot.at(&[key])
            && node.text().is_some_and(|text| check_name(text).is_err())
        {
            let message = format!("a {key} is a word of a-z, 0-9, `-` and `.` inside");
            spot.error(code::BAD_NAME, node, &format!("spec.{key}"), message);
        }
    }
    for (node, field) in spot.items(&["addressRanges"]) {
        spot.prefix(node, &field);
    }
    for (node, field) in spot.items(&["natAddresses"]) {
        spot.address(node, &field);
    }
    for (node, field) in spot.items(&["allowedNamespaces"]) {
        allowed_namespace(spot, node, &field);
    }
    for (node, field) in spot.items(&["labelKeys"]) {
        let Some(text) = node.text() else { continue };
        let stem = text.strip_suffix('*').unwrap_or(text);
        // A prefix may end where a key could not; whatever follows makes it whole.
        let checked = if stem.len() < text.len() { format!("{stem}x") } else { text.to_owned() };
        if let Err(error) = check_user_key(&checked) {
            spot.error(code::BAD_NAME, node, &field, error.to_string());
        }
    }
}

/// `shop`, `shop/**` or `**`, below the cluster's namespace.
fn allowed_namespace(spot: &mut Spotter<'_, '_>, node: &Node, field: &str) {
    let Some(text) = node.text() else { return };
    if text.starts_with('/') {
        let help = format!("write {}", text.trim_start_matches('/'));
        let message = format!("`{text}` is absolute; these are relative to the cluster's namespace");
        return spot.error_with_help(code::BAD_NAMESPACE, node, field, message, help);
    }
    let stem = text.strip_suffix("/**").unwrap_or(if text == "**" { "" } else { text });
    if let Err(error) = NamespacePath::root().join(stem) {
        spot.error(code::BAD_NAMESPACE, node, field, error.to_string());
    }
}
