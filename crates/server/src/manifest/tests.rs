use super::*;

/// `code field line:column` of every diagnostic.
fn problems(text: &str) -> Vec<String> {
    let sources = [Source { name: "f.yaml".into(), text: text.into() }];
    let (_, diagnostics) = read(&sources, &NamespacePath::root());
    let place = |d: &Diagnostic| format!("{}:{}", d.line.unwrap_or(0), d.column.unwrap_or(0));
    diagnostics.iter().map(|d| format!("{} {} {}", d.code, d.field.clone().unwrap_or_default(), place(d))).collect()
}

fn document(kind: &str, rest: &str) -> String {
    format!("apiVersion: stolos.dev/v1\nkind: {kind}\n{rest}\n")
}

fn objects(text: &str) -> Vec<Object> {
    let sources = [Source { name: "f.yaml".into(), text: text.into() }];
    let (found, diagnostics) = read(&sources, &"/acme".parse().unwrap());
    assert_eq!(diagnostics, []);
    found.into_iter().map(|m| m.object).collect()
}

#[test]
fn a_good_file_has_no_problems_and_keeps_its_order() {
    let text = [
        document("Policy", "metadata: {name: p}\nspec: {from: [app=web], to: [app=db], ports: [tcp/5432], action: allow}"),
        document("Namespace", "metadata: {namespace: /, name: acme}\nspec: {}"),
        document("Cluster", "metadata: {name: eu-1}\nspec: {namespace: /acme, addressRanges: [10.0.0.0/24], labelKeys: [app, 'team/*']}"),
        document("Service", "metadata: {name: db}\nspec: {addresses: [{address: 10.0.0.9, port: 1, targetPort: 2}], members: {selectors: [app=db]}, claimed: [udp/53]}"),
        document("Revocation", "metadata: {name: r}\nspec: {target: {workload: web@eu-1}}"),
        document("ExternalNetwork", "metadata: {name: n}\nspec: {cidrs: [203.0.113.0/24]}"),
    ]
    .join("---\n");
    let keys: Vec<String> = objects(&text).iter().map(|o| o.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Policy /acme:p",
            "Namespace /acme",
            "Cluster /:eu-1",
            "Service /acme:db",
            "Revocation /:r",
            "ExternalNetwork /acme:n"
        ]
    );
}

#[test]
fn everything_wrong_in_a_file_is_reported_at_once_with_its_place() {
    let text = [
        document("Polcy", "metadata: {name: p}\nspec: {}"),
        document("Policy", "metadata: {name: p}\nspec: {from: ['x in y'], to: [], port: [], action: permit}"),
        document("Workload", "metadata: {name: w}\nspec: {}"),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nspec: {}\n".to_owned(),
    ]
    .join("---\n");
    let found = problems(&text);
    for expected in [
        "P2003 kind 2:7",
        "P2002 spec.port 9:34",
        "P2201 spec.to 9:30",
        "P2012 spec.action 9:52",
        "A3004 kind 12:7",
        "P2006 apiVersion 16:13",
    ] {
        assert!(found.contains(&expected.to_owned()), "{expected} is not in {found:#?}");
    }
    assert!(found.iter().any(|p| p.starts_with("P2101 spec.from[0] 9:")), "{found:#?}");
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn fields_that_nothing_honours_are_refused() {
    let policy = "metadata: {name: p}\nspec: {from: [any], to: [any], action: allow, schedule: '* *', expires: x, encryption: required, http: []}";
    assert_eq!(problems(&document("Policy", policy)).len(), 4);
    let network =
        document("ExternalNetwork", "metadata: {name: n}\nspec: {cidrs: [192.0.2.0/24], dnsNames: [a.example]}");
    assert_eq!(problems(&network), ["A3011 spec.dnsNames 4:31"]);
    let namespace =
        document("Namespace", "metadata: {name: n}\nspec: {protection: {encryption: strict, onAgentLoss: open}}");
    assert_eq!(problems(&namespace).len(), 2);
}

#[test]
fn places_and_names_are_checked() {
    let spec = "spec: {}";
    assert_eq!(
        problems(&document("Namespace", &format!("metadata: {{name: /acme/x}}\n{spec}"))),
        ["P2010 metadata.name 3:18"]
    );
    assert_eq!(
        problems(&document("Namespace", &format!("metadata: {{name: A}}\n{spec}"))),
        ["P2010 metadata.name 3:18"]
    );
    let cluster = "metadata: {namespace: /a, name: c}\nspec: {namespace: /a}";
    assert_eq!(problems(&document("Cluster", cluster)), ["P2011 metadata.namespace 3:23"]);
    assert_eq!(problems(&document("Namespace", "spec: {}")), ["P2004 metadata 1:1"]);
    assert!(objects(&document("Namespace", "metadata: {name: /}\nspec: {}"))[0].key().path() == "/");
}

#[test]
fn services_clusters_and_revocations_are_checked() {
    let service = |spec: &str| problems(&document("Service", &format!("metadata: {{name: s}}\nspec: {{{spec}}}")));
    let members = "members: {selectors: [app=db]}";
    assert_eq!(service(&format!("addresses: [], {members}")).len(), 1);
    assert_eq!(service(&format!("addresses: [{{address: 0.0.0.0}}], {members}")).len(), 1);
    assert_eq!(service(&format!("addresses: [{{address: '::ffff:10.0.0.1'}}], {members}")).len(), 1);
    assert_eq!(service(&format!("addresses: [{{address: 10.0.0.1, targetPort: 5}}], {members}")).len(), 1);
    assert_eq!(service(&format!("addresses: [{{address: 10.0.0.1, port: 0}}], {members}")).len(), 1);
    assert_eq!(service(&format!("addresses: [{{address: 10.0.0.1}}, {{address: 10.0.0.1}}], {members}")).len(), 1);
    assert_eq!(service("addresses: [{address: 10.0.0.1}], members: {}").len(), 1);
    assert_eq!(service("addresses: [{address: 10.0.0.1}], members: {selectors: ['@external=x']}").len(), 1);
    assert_eq!(service(&format!("addresses: [{{address: 10.0.0.1}}], {members}, claimed: [tcp/53]")).len(), 1);
    let cluster = |spec: &str| problems(&document("Cluster", &format!("metadata: {{name: c}}\nspec: {{{spec}}}")));
    assert_eq!(cluster("namespace: acme").len(), 1);
    assert_eq!(cluster("namespace: /acme, addressRanges: [10.0.0.1/24]").len(), 1);
    assert_eq!(cluster("namespace: /acme, allowedNamespaces: [/shop]").len(), 1);
    assert_eq!(cluster("namespace: /acme, allowedNamespaces: [shop, 'x/**', '**']").len(), 0);
    assert_eq!(cluster("namespace: /acme, labelKeys: ['@node']").len(), 1);
    let revocation =
        |spec: &str| problems(&document("Revocation", &format!("metadata: {{name: r}}\nspec: {{{spec}}}")));
    assert_eq!(revocation("target: {}").len(), 1);
    assert_eq!(revocation("target: {node: a, cluster: b}").len(), 1);
    assert_eq!(revocation("target: {spiffe: 'https://x'}").len(), 1);
    assert_eq!(revocation("target: {node: a}, expires: tomorrow").len(), 1);
}

#[test]
fn what_the_system_says_is_not_taken_from_the_author() {
    let text = document(
        "Namespace",
        "metadata: {name: a, uid: 0190b2a6-0000-7000-8000-000000000000, revision: 5, created: '2030-01-01T00:00:00Z'}\nspec: {}\nstatus: {mode: enforce, ingress: deny, egress: deny, encryption: off, onAgentLoss: hold}",
    );
    let object = objects(&text.replace("encryption: off", "encryption: 'off'")).remove(0);
    assert_eq!((object.status, object.metadata.created), (None, None));
    assert_eq!(object.metadata.revision.map(|r| r.0), Some(5));
}
