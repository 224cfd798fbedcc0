use super::*;

fn acme() -> NamespacePath {
    "/acme/shop".parse().unwrap()
}

fn show(problems: &[Problem], source: &str) -> String {
    let line = |problem: &Problem| {
        let d = problem.clone().locate(None, source);
        let severity = if problem.severity == Severity::Warning { " (warning)" } else { "" };
        let field = problem.field.as_deref().unwrap_or_default();
        format!("{} {}:{} {field}: {}{severity}\n", problem.code.id, d.line, d.column, problem.message)
    };
    problems.iter().map(line).collect()
}

fn read(source: &str) -> (Option<Policy>, String) {
    let (documents, problems) = parse_documents(source);
    assert_eq!(show(&problems, source), "");
    let (policy, problems) = policy(&documents[0].root, source, &acme());
    (policy, show(&problems, source))
}

#[test]
fn a_policy_is_read() {
    let source = "
apiVersion: stolos.dev/v1
kind: Policy
metadata: {name: web-to-db}
spec:
  from: ['app=web, @cluster=eu-*', '@external=office']
  to: [app=db]
  ports: [tcp/5432, tcp/6000-6010, icmp]
  action: allow
  reason: the shop keeps its orders there
";
    let (policy, problems) = read(source);
    assert_eq!(problems, "");
    let policy = policy.unwrap();
    assert_eq!(policy.id.to_string(), "/acme/shop:web-to-db");
    assert_eq!(policy.from[0].to_string(), "app=web, @cluster=eu-*");
    assert_eq!(policy.ports, [Port::Tcp(5432, 5432), Port::Tcp(6000, 6010), Port::Icmp]);
    assert_eq!((policy.action, policy.mode), (Action::Allow, Mode::Enforce));
    let json = parse_documents(source).0[0].root.to_json().to_string();
    assert_eq!(policy_document(&json).unwrap().from, policy.from);
}

#[test]
fn absent_ports_mean_all() {
    let (policy, _) = read("metadata: {name: x}\nspec: {from: [any], to: [any], action: allow, mode: observe}\n");
    let policy = policy.unwrap();
    assert_eq!((policy.ports, policy.mode), (vec![Port::Any], Mode::Observe));
}

#[test]
fn every_problem_of_a_policy_is_reported_at_once() {
    let source = r#"
metadata: {name: Web, namespace: acme}
spec:
  from: ["app==", "a=x, a=y", 7]
  to: []
  ports: [80, tcp/0, "tcp/90-80"]
  action: alow
  encryption: required
  http: []
  schedule: nights
  expires: tomorrow
"#;
    let (policy, problems) = read(source);
    assert_eq!(policy, None);
    insta::assert_snapshot!(problems, @"
    P2011 2:34 metadata.namespace: a namespace path begins with `/`, as in `/acme/prod`
    P2010 2:18 metadata.name: `Web` is no name: use a-z, 0-9, `-` and `.` inside, at most 253 characters
    P2012 7:11 spec.action: `alow` is not one of allow, deny
    P2101 4:16 spec.from[0]: a value for `app` is missing
    P2103 4:25 spec.from[1]: no workload can meet `a=x` and `a=y` at once
    P2005 4:31 spec.from[2]: a selector, as in app=web, is expected here, not a number
    P2201 5:7 spec.to: `to` is empty
    P2202 6:11 spec.ports[0]: `80` lacks its protocol: write tcp/80 or udp/80
    P2202 6:15 spec.ports[1]: `0` is no port: write a number from 1 to 65535, or a range as 8000-8100
    P2202 6:22 spec.ports[2]: the range `90-80` ends before it begins
    P2204 8:3 spec.encryption: `encryption` cannot be enforced by this version
    P2205 9:3 spec.http: `http` cannot be enforced by this version
    P2206 10:3 spec.schedule: `schedule` cannot be enforced by this version
    P2207 11:3 spec.expires: `expires` cannot be enforced by this version
    ");
}

#[test]
fn missing_parts_are_named() {
    insta::assert_snapshot!(read("kind: Policy\n").1, @"
    P2004 1:1 metadata.name: the field `name` is missing
    P2004 1:1 spec: the field `spec` is missing
    ");
    insta::assert_snapshot!(read("metadata: {name: x}\nspec: {ports: []}\n").1, @"
    P2004 2:1 spec.action: the field `action` is missing
    P2004 2:1 spec.from: the field `from` is missing
    P2004 2:1 spec.to: the field `to` is missing
    P2202 2:15 spec.ports: `ports` is empty
    ");
}

#[test]
fn a_policy_must_speak_for_somebody() {
    for (from, to, expect) in [
        ("@namespace=/other", "@namespace=/third/**", "P2208"),
        ("@external=a", "@external=b", "P2208"),
        ("@namespace=/other", "any", ""),
        ("@namespace=/**", "@namespace=/third", ""),
        ("@namespace=/acme", "@namespace=/third", "P2208"),
        ("@namespace=/acme/**", "@namespace=/third", ""),
    ] {
        let source = format!("metadata: {{name: x}}\nspec: {{from: ['{from}'], to: ['{to}'], action: allow}}\n");
        assert_eq!(read(&source).1.split(' ').next().unwrap(), expect, "{from} {to}");
    }
}

#[test]
fn a_deny_says_whom_it_does_not_reach() {
    let source = "metadata: {name: x}\nspec: {from: [app=web], to: ['@namespace=/**'], action: deny}\n";
    let (policy, problems) = read(source);
    assert!(policy.is_some(), "a warning refuses nothing");
    insta::assert_snapshot!(problems, @"P2209 2:15 spec.from[0]: this deny does not reach clients outside /acme/shop (warning)");
}

fn read_protection(source: &str) -> (Option<Protection>, String) {
    let (documents, _) = parse_documents(source);
    let (protection, problems) = protection(&documents[0].root, source);
    (protection, show(&problems, source))
}

#[test]
fn a_posture_is_read() {
    let source = "
spec:
  observeUntil: 2030-01-31T00:00:00Z
  protection:
    mode: enforce
    default: {ingress: deny}
    encryption: off
";
    let (read, problems) = read_protection(source);
    assert_eq!(problems, "");
    let read = read.unwrap();
    assert_eq!((read.mode, read.ingress, read.egress), (Some(Mode::Enforce), Some(Action::Deny), None));
    assert_eq!(read.encryption, Some(Encryption::Off));
    assert!(read.observe_until.is_some());
    assert_eq!(read_protection("spec: {}\n").0, Some(Protection::default()));
}

#[test]
fn every_problem_of_a_posture_is_reported() {
    let source = "
spec:
  observeUntil: tomorrow
  protection:
    mode: enfroce
    default: {ingress: block}
    encryption: strict
    onAgentLoss: open
";
    insta::assert_snapshot!(read_protection(source).1, @"
    P2012 5:11 spec.protection.mode: `enfroce` is not one of observe, enforce
    P2012 6:24 spec.protection.default.ingress: `block` is not one of allow, deny
    P2204 7:5 spec.protection.encryption: `encryption` cannot be enforced by this version
    P2304 8:5 spec.protection.onAgentLoss: `onAgentLoss` cannot be enforced by this version
    P2303 3:17 spec.observeUntil: this is no point in time
    ");
    insta::assert_snapshot!(read_protection("spec: {observeUntil: 2030-01-31T00:00:00Z}\n").1, @"P2302 1:22 spec.observeUntil: `observeUntil` stands in a namespace that does not enforce");
}

#[test]
fn loosening_is_shown_where_it_stands() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let mut tree = PostureTree::new();
    let above = Protection { mode: Some(Mode::Enforce), ingress: Some(Action::Deny), ..Protection::default() };
    tree.set("/acme".parse().unwrap(), above);
    let source = "spec:\n  protection:\n    mode: observe\n    default: {ingress: allow}\n";
    let root = &parse_documents(source).0[0].root;
    let (read, _) = protection(root, source);
    let problems = loosenings(root, &acme(), &read.unwrap(), &tree, now);
    insta::assert_snapshot!(show(&problems, source), @"
    P2301 3:11 spec.protection.mode: `mode: observe` is looser than `enforce` above /acme/shop
    P2301 4:24 spec.protection.default.ingress: `default.ingress: allow` is looser than `deny` above /acme/shop
    ");
}
