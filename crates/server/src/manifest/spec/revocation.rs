//! Revocation: exactly one target.

use identity::spiffe_id::SpiffeId;

use super::*;

/// Longest workload reference.
const REFERENCE_LEN_MAX: usize = 1024;

pub(super) fn check(spot: &mut Spotter<'_, '_>) {
    if let Some(node) = spot.at(&["expires"])
        && node.text().is_some_and(|text| text.parse::<jiff::Timestamp>().is_err())
    {
        let message = "this is no point in time".to_owned();
        spot.error_with_help(code::BAD_TIME, node, "spec.expires", message, "write it as in 2030-01-31T00:00:00Z");
    }
    let Some(target) = spot.at(&["target"]) else { return };
    let named: Vec<&str> =
        ["workload", "node", "cluster", "spiffe"].into_iter().filter(|key| target.get(key).is_some()).collect();
    let [key] = named[..] else {
        let message = format!("exactly one target is taken, not {}", named.len());
        let help = "name one of workload, node, cluster, spiffe; write a Revocation for each";
        return spot.error_with_help(api_code::RANGE, target, "spec.target", message, help);
    };
    let Some((node, text)) = target.get(key).and_then(|node| Some((node, node.text()?))) else { return };
    let field = format!("spec.target.{key}");
    match key {
        "spiffe" => {
            if let Err(error) = text.parse::<SpiffeId>() {
                spot.error(code::WRONG_TYPE, node, &field, error.to_string());
            }
        }
        "workload" if text.trim().is_empty() || text.len() > REFERENCE_LEN_MAX => {
            let message = "name the workload: name, name@cluster, name@node, /namespace/name or its uid";
            spot.error(api_code::RANGE, node, &field, message);
        }
        "node" | "cluster" if check_name(text).is_err() => {
            spot.error(code::BAD_NAME, node, &field, format!("`{text}` is no name of a {key}"));
        }
        _ => {}
    }
}
