use proptest::prelude::*;

use super::*;
use crate::rules::tests::properties::{a_posture, an_end, apply, changes};
use crate::rules::tests::{End, World};

/// Lines of a world, then `client -> server port`.
fn text(fixture: &str) -> String {
    let mut world = World::default();
    let lines: Vec<&str> = fixture.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let (query, lines) = lines.split_last().unwrap();
    lines.iter().for_each(|line| world.line(line));
    world.flow(query, |rules, flow| explain(rules, flow).text())
}

#[test]
fn a_refusal_names_what_was_missing_and_the_smallest_rule() {
    insta::assert_snapshot!(text("
        posture / enforce ingress=deny egress=deny
        workload cron /shop app=cron
        workload db /shop app=db
        policy /shop:web-to-db allow | app=web | app=db | tcp/5432
        cron -> db tcp/5432
    "), @"
    refused
    client's side (/shop, enforce): no policy allows it, the default denies it (P1002)
      nearest: /shop:web-to-db: the client does not meet app=web, it has app=cron
    server's side (/shop, enforce): no policy allows it, the default denies it (P1002)
      nearest: /shop:web-to-db: the client does not meet app=web, it has app=cron
    the smallest rule that would allow it:
    apiVersion: stolos.dev/v1
    kind: Policy
    metadata:
      namespace: /shop
      name: cron-to-db
    spec:
      from:
      - app=cron
      to:
      - app=db
      ports:
      - tcp/5432
      action: allow
    ");
}

#[test]
fn an_allowed_flow_names_its_policy() {
    insta::assert_snapshot!(text("
        posture / enforce ingress=deny egress=allow
        workload web /shop app=web
        workload db /shop app=db
        policy /shop:web-to-db allow | app=web | app=db | tcp/5432
        web -> db tcp/5432
    "), @"
    allowed
    client's side (/shop, enforce): /shop:web-to-db allows it
    server's side (/shop, enforce): /shop:web-to-db allows it
    ");
}

#[test]
fn across_tenants_each_side_gets_its_rule() {
    insta::assert_snapshot!(text("
        posture / enforce ingress=deny egress=deny
        workload web /shop app=web
        workload api /pay app=api tier=front
        policy /pay:in allow | @namespace=/other | app=api | tcp/80
        web -> api tcp/443
    "), @r#"
    refused
    client's side (/shop, enforce): no policy allows it, the default denies it (P1002)
    server's side (/pay, enforce): no policy allows it, the default denies it (P1002)
      nearest: /pay:in: the client does not meet @namespace=/other, it has @namespace=/shop; the port is not among tcp/80
    the smallest rules that would allow it, all 2 together:
    apiVersion: stolos.dev/v1
    kind: Policy
    metadata:
      namespace: /shop
      name: web-to-api
    spec:
      from:
      - app=web
      to:
      - "@namespace=/pay, app=api"
      ports:
      - tcp/443
      action: allow
    ---
    apiVersion: stolos.dev/v1
    kind: Policy
    metadata:
      namespace: /pay
      name: web-to-api
    spec:
      from:
      - "@namespace=/shop, app=web"
      to:
      - app=api
      ports:
      - tcp/443
      action: allow
    "#);
}

#[test]
fn a_deny_is_named_and_no_rule_is_suggested_against_it() {
    insta::assert_snapshot!(text("
        posture / observe ingress=deny egress=allow
        workload web /acme/shop app=web
        workload db /acme/shop app=db
        policy /acme:no deny | app=web | app=db | any
        policy /acme/shop:neither deny | any | app=db | any
        policy /acme/shop:yes allow | any | any | any
        web -> db tcp/5432
    "), @"
    allowed, because a side only observes; enforcing would refuse it
    client's side (/acme/shop, observe): /acme:no denies it (P1001)
      /acme/shop:neither denies it, too
    server's side (/acme/shop, observe): /acme:no denies it (P1001)
      /acme/shop:neither denies it, too
    ");
}

#[test]
fn an_external_end_needs_a_network_first() {
    insta::assert_snapshot!(text("
        posture / enforce ingress=deny egress=deny
        workload web /shop app=web
        external nobody /other:office
        nobody -> web tcp/443
    "), @"
    refused
    server's side (/shop, enforce): no policy allows it, the default denies it (P1007)
    no ExternalNetwork in reach covers the external end: declare one for its address
    ");
    insta::assert_snapshot!(text("
        posture / enforce ingress=deny egress=deny
        workload web /shop @linux:unit=nginx.service
        external office /:office
        office -> web tcp/443
    "), @r#"
    refused
    server's side (/shop, enforce): no policy allows it, the default denies it (P1007)
    the smallest rule that would allow it:
    apiVersion: stolos.dev/v1
    kind: Policy
    metadata:
      namespace: /shop
      name: office-to-nginx-service
    spec:
      from:
      - "@external=office"
      to:
      - "@linux:unit=nginx.service"
      ports:
      - tcp/443
      action: allow
    "#);
}

#[test]
fn an_observing_policy_is_near() {
    insta::assert_snapshot!(text("
        posture / enforce ingress=deny egress=allow
        workload web /shop app=web
        workload db /shop/data app=db
        policy /shop:try allow observe | app=web | app=db | tcp/5432
        web -> db tcp/5432
    "), @r#"
    refused
    client's side (/shop, enforce): no policy speaks about it, the default allows it; /shop:try would allow it, but only observes
    server's side (/shop/data, enforce): no policy allows it, the default denies it (P1002); /shop:try would allow it, but only observes
      nearest: /shop:try: the policy only observes
    the smallest rule that would allow it:
    apiVersion: stolos.dev/v1
    kind: Policy
    metadata:
      namespace: /shop
      name: web-to-db
    spec:
      from:
      - app=web
      to:
      - "@namespace=/shop/data, app=db"
      ports:
      - tcp/5432
      action: allow
    "#);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_suggested_rules_allow_the_flow_unless_a_deny_is_named(
        changes in changes(),
        postures in proptest::collection::vec(a_posture(), 1..4),
        client in an_end(),
        server in an_end(),
        port in proptest::sample::select(vec![(6_u8, 80_u16), (17, 53), (1, 0), (132, 9)]),
    ) {
        let mut rules = RuleSet::new();
        apply(&changes, &mut rules);
        for (path, posture) in postures {
            rules.set_posture(path, Some(posture));
        }
        let flow = Flow { client: client.peer(), server: server.peer(), protocol: port.0, port: port.1 };
        let explanation = explain(&rules, &flow);
        prop_assert_eq!(explanation.suggestions.is_empty() && !explanation.needs_network,
            explanation.sides.iter().all(|s| s.word.outcome.action == Action::Allow || s.word.outcome.by.is_some()));
        let denied = explanation.sides.iter().any(|side| !side.denies.is_empty());
        for side in &explanation.sides {
            let decides = side.word.outcome.by.clone().filter(|_| side.word.outcome.action == Action::Deny);
            prop_assert_eq!(decides.as_ref(), side.denies.first());
        }
        for suggestion in &explanation.suggestions {
            let yaml = suggestion.yaml();
            let read = crate::manifest::policy_document(&yaml);
            prop_assert_eq!(read.as_ref(), Ok(&suggestion.policy), "{}", yaml);
            prop_assert!(rules.insert(suggestion.policy.clone()).is_none(), "over another policy");
        }
        let ours = matches!(client, End::Workload(_)) || matches!(server, End::Workload(_));
        if ours && !explanation.needs_network {
            prop_assert_eq!(rules.decide(&flow).would_allow, !denied);
        }
    }
}
