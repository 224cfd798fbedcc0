//! ExternalNetwork: prefixes.

use api::kind::external_network::CIDRS_MAX;

use super::*;

pub(super) fn check(spot: &mut Spotter<'_, '_>) {
    spot.length(&["cidrs"], 1, CIDRS_MAX);
    spot.not_honoured("dnsNames", "is not resolved by this version");
    for (node, field) in spot.items(&["cidrs"]) {
        spot.prefix(node, &field);
    }
}
