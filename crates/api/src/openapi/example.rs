//! One document of each kind that users write, as a newcomer would write it. Fuzzers begin with these.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::object::API_VERSION;

/// The name of every example, and of the object in examples of addresses.
pub(crate) const NAME: &str = "example";

/// A document that a server with nothing in it takes.
pub(super) fn document(kind: &Kind) -> Option<Value> {
    let spec = match kind.name {
        "Namespace" => json!({"protection": {"mode": "observe", "default": {"ingress": "deny", "egress": "allow"}}}),
        "Cluster" => json!({"namespace": "/", "region": "europe", "labelKeys": ["app", "tier"]}),
        "ExternalNetwork" => json!({"cidrs": ["203.0.113.0/24", "2001:db8::/32"]}),
        "Service" => json!({
            "addresses": [{"address": "198.51.100.7", "port": 443, "targetPort": 8443}],
            "members": {"selectors": ["app=web"]},
        }),
        "Policy" => json!({"from": ["app=web"], "to": ["app=db"], "ports": ["tcp/5432"], "action": "allow"}),
        "Revocation" => json!({"target": {"workload": "/shop/web"}, "reason": "key leaked, ticket 4711"}),
        _ => return None,
    };
    let metadata = json!({"name": NAME, "labels": {"team": "web"}});
    Some(json!({"apiVersion": API_VERSION, "kind": kind.name, "metadata": metadata, "spec": spec}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::KINDS;

    #[test]
    fn every_kind_that_users_write_has_an_example() {
        for kind in KINDS {
            assert_eq!(document(kind).is_some(), kind.writable(), "{}", kind.name);
        }
    }
}
