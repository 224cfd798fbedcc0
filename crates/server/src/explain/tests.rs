use serde_json::json;

use super::*;
use crate::fleet::fixture::fleet;

fn ask(fleet: &Fleet, from: &str, to: &str, port: &str) -> Result<ExplainAnswer, ExplainError> {
    explain(fleet, &ExplainRequest { from: from.into(), to: to.into(), port: port.into() })
}

fn with_policy(namespace: &str) -> Fleet {
    let mut fleet = fleet();
    let spec = json!({"from": ["app=web"], "to": ["app=db"], "ports": ["tcp/6379"], "action": "allow"});
    fleet.with("Policy", namespace, "web-to-db", spec);
    fleet
}

#[test]
fn an_allowed_flow_names_the_policy_of_each_side() {
    let answer = ask(&with_policy("/acme"), "web@us-1", "db@us-1", "tcp/6379").unwrap();
    assert_eq!((answer.verdict, answer.would), (Verdict::Allow, Verdict::Allow));
    for side in [answer.egress.unwrap(), answer.ingress.unwrap()] {
        assert_eq!((side.policy.as_deref(), side.reason), (Some("/acme:web-to-db"), None));
    }
    assert_eq!(answer.port_checked_by, "both ends");
    assert_eq!(answer.to.cluster.as_deref(), Some("us-1"));
}

#[test]
fn a_refused_flow_names_what_is_missing_and_the_smallest_rule() {
    let answer = ask(&with_policy("/acme"), "db@us-1", "web@us-1", "tcp/80").unwrap();
    assert_eq!(answer.verdict, Verdict::Deny);
    let side = answer.egress.unwrap();
    assert_eq!((side.policy, side.code.as_deref(), side.mode), (None, Some("P1002"), ApiMode::Enforce));
    let rule = side.smallest_rule.expect("a rule that would allow it");
    assert!(policy::manifest::policy_document(&rule).is_ok(), "{rule}");
    assert!(answer.text.contains("smallest rule"), "{}", answer.text);
}

#[test]
fn observing_sides_refuse_nothing() {
    let mut fleet = fleet();
    let spec = json!({"protection": {"mode": "observe", "default": {"ingress": "deny", "egress": "deny"}}});
    fleet.with("Namespace", "/acme", "eu-1", spec);
    let answer = ask(&fleet, "/acme/eu-1/web@eu-1", "x", "tcp/1").unwrap_err();
    assert!(matches!(answer, ExplainError::Reference(_)));
    let answer = ask(&fleet, "web@n1", "db@n2", "tcp/1").unwrap();
    assert_eq!((answer.verdict, answer.would), (Verdict::Allow, Verdict::Deny));
}

#[test]
fn ambiguous_names_list_the_candidates() {
    let error = ask(&fleet(), "web", "db@us-1", "tcp/1").unwrap_err();
    let ExplainError::Reference(ReferenceError::Ambiguous { candidates, .. }) = error else { panic!("{error}") };
    assert_eq!(candidates.len(), 4);
    assert!(matches!(ask(&fleet(), "web@us-1", "db@us-1", "tcp"), Err(ExplainError::Port(_))));
    assert_eq!(ask(&fleet(), "10.0.0.1", "10.0.0.2", "tcp/1"), Err(ExplainError::NoWorkload));
}

#[test]
fn a_revoked_end_is_refused_whatever_the_policies_say() {
    let mut fleet = with_policy("/acme");
    fleet.with("Revocation", "/", "gone", json!({"target": {"workload": "db@us-1"}}));
    let answer = ask(&fleet, "web@us-1", "db@us-1", "tcp/6379").unwrap();
    assert_eq!((answer.verdict, answer.would), (Verdict::Deny, Verdict::Deny));
    assert_eq!(answer.ingress.unwrap().code.as_deref(), Some("P1005"));
    assert!(answer.text.starts_with("refused: /acme/us-1/db is revoked by Revocation gone"), "{}", answer.text);
}

#[test]
fn an_address_is_what_the_client_finds_there() {
    let mut fleet = with_policy("/acme");
    let service = json!({
        "addresses": [{"address": "192.168.77.22", "port": 16379, "protocol": "tcp", "targetPort": 6379}],
        "members": {"selectors": ["app=db"]},
    });
    fleet.with("Service", "/acme/us-1", "db", service);
    let answer = ask(&fleet, "web@n1", "192.168.77.22", "tcp/16379").unwrap();
    assert_eq!((answer.to.name.as_str(), answer.port.as_str()), ("/acme/us-1/db", "tcp/6379"));
    let node = ask(&fleet, "web@n1", "10.0.0.2", "tcp/1").unwrap_err();
    assert!(matches!(node, ExplainError::Shared { ref candidates, .. } if candidates.len() == 2), "{node}");
    fleet.with("ExternalNetwork", "/acme", "partner", json!({"cidrs": ["203.0.113.0/24"]}));
    let external = ask(&fleet, "web@us-1", "203.0.113.9", "tcp/443").unwrap();
    assert_eq!(external.to.name, "203.0.113.9 (/acme:partner)");
    assert_eq!((external.verdict, external.ingress), (Verdict::Deny, None));
    assert_eq!(external.port_checked_by, "the client's end");
    let incoming = ask(&fleet, "203.0.113.9", "db@us-1", "tcp/6379").unwrap();
    assert_eq!((incoming.verdict, incoming.egress), (Verdict::Deny, None));
}
