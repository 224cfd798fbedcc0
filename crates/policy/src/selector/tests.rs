use super::*;
use crate::namespace::NamespacePath;

fn own() -> NamespacePath {
    "/acme/shop".parse().unwrap()
}

fn identity(text: &str) -> Identity {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    Identity::from_pairs(pairs).unwrap()
}

/// `selector | identity | yes or no`, as a policy of /acme/shop sees it.
#[test]
fn selectors_match_workloads() {
    let table = "
        any                             | @namespace=/acme/shop                  | yes
        any                             | @namespace=/acme/shop/eu               | yes
        any                             | @namespace=/acme                       | no
        any                             | @namespace=/acme/shopping              | no
        app=web                         | @namespace=/acme/shop app=web          | yes
        app=web                         | @namespace=/other app=web              | no
        app=web                         | @namespace=/acme/shop app=webx         | no
        app=web, tier in (a,b)          | @namespace=/acme/shop app=web tier=b   | yes
        app=web, tier in (a,b)          | @namespace=/acme/shop app=web          | no
        app=we*                         | @namespace=/acme/shop app=web          | yes
        app=*                           | @namespace=/acme/shop app=web          | yes
        app=*                           | @namespace=/acme/shop                  | no
        app                             | @namespace=/acme/shop app=web          | yes
        !legacy                         | @namespace=/acme/shop                  | yes
        !legacy                         | @namespace=/acme/shop legacy=yes       | no
        !legacy                         | @namespace=/other                      | no
        app!=web                        | @namespace=/acme/shop                  | yes
        app!=web                        | @namespace=/acme/shop app=web          | no
        app!=we*                        | @namespace=/acme/shop app=web          | no
        app notin (web,db)              | @namespace=/acme/shop app=db           | no
        app notin (web,db)              | @namespace=/acme/shop app=x            | yes
        @cluster=eu-*                   | @namespace=/acme/shop @cluster=eu-1    | yes
        @namespace=/other               | @namespace=/other                      | yes
        @namespace=/other               | @namespace=/other/below                | no
        @namespace=/other/**            | @namespace=/other/below                | yes
        @namespace=/other/**            | @namespace=/otherwise                  | no
        @namespace=/**                  | @namespace=/otherwise                  | yes
        @namespace in (/x,/y/**)        | @namespace=/y/z                        | yes
        @namespace!=/acme/shop/eu       | @namespace=/other                      | no
        @namespace!=/acme/shop/eu       | @namespace=/acme/shop/us               | yes
        @namespace!=/acme/shop/eu/**    | @namespace=/acme/shop/eu/x             | no
        @namespace                      | @namespace=/other                      | no
        @external=stripe                | @namespace=/acme/shop                  | no
        !@external                      | @namespace=/acme/shop                  | no
    ";
    for line in table.lines().filter(|l| !l.trim().is_empty()) {
        let [selector, who, expect] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{line}") };
        let selector: Selector = selector.parse().unwrap();
        let got = selector.matches(&own(), &Peer::Workload(&identity(who)));
        assert_eq!(got, expect == "yes", "{line}");
    }
}

/// `selector | networks that cover the address | yes or no`, as a policy of /acme/shop sees it.
#[test]
fn external_ends_match_only_by_name_in_reach() {
    let table = "
        @external=stripe         | /acme:stripe             | yes
        @external=stripe         | /acme/shop:stripe        | yes
        @external=stripe         | /:stripe                 | yes
        @external=stripe         | /acme/shop/eu:stripe     | no
        @external=stripe         | /other:stripe            | no
        @external=/acme:stripe   | /acme:stripe             | yes
        @external=/acme:stripe   | /:stripe                 | no
        @external in (a,b)       | /acme:x /acme:b          | yes
        @external=aws-*          | /:aws-eu                 | yes
        @external                | /:x                      | yes
        @external                |                          | no
        @external!=stripe        | /acme:x                  | no
        !@external               | /acme:x                  | no
        !app                     | /acme:x                  | no
        app!=web                 | /acme:x                  | no
        any                      | /acme:x                  | no
        @namespace=/**           | /acme:x                  | no
        @external=stripe, !app   | /acme:stripe             | no
    ";
    for line in table.lines().filter(|l| !l.trim().is_empty()) {
        let [selector, ids, expect] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{line}") };
        let networks = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let selector: Selector = selector.parse().unwrap();
        assert_eq!(selector.matches(&own(), &Peer::External(&networks)), expect == "yes", "{line}");
    }
}

#[test]
fn printing_is_canonical_and_parses_back() {
    for (text, printed) in [
        ("app=web", "app=web"),
        (" app == web ,tier in(a , b)", "app=web, tier in (a,b)"),
        ("any", "any"),
        ("any=x", "any=x"),
        ("in in (in)", "in=in"),
        (r#"a="x, y", b='it''"#, ""),
        (r#"a="x, y", b="q\"\\""#, r#"a="x, y", b="q\"\\""#),
        (r#"a="", b="*", c="pre "*"#, r#"a="", b="*", c="pre "*"#),
        ("a=*", "a=*"),
        ("@namespace=/**", "@namespace=/**"),
        ("@namespace in (/a,/b/**)", "@namespace in (/a,/b/**)"),
        ("app.kubernetes.io/name!=x, !legacy, key", "app.kubernetes.io/name!=x, !legacy, key"),
        (
            "@k8s:owner=deployment/web, @k8s:image=r.io/a@sha256:1",
            "@k8s:owner=deployment/web, @k8s:image=r.io/a@sha256:1",
        ),
    ] {
        if printed.is_empty() {
            assert!(text.parse::<Selector>().is_err(), "{text}");
            continue;
        }
        let selector: Selector = text.parse().unwrap();
        assert_eq!(selector.to_string(), printed);
        assert_eq!(printed.parse::<Selector>().unwrap(), selector);
    }
}

/// All problems of a text: `code@start..end`.
fn problems(text: &str) -> String {
    let problems = match Selector::parse(text) {
        Ok(parsed) => parsed.problems(&own()),
        Err(SelectorError(problems)) => problems,
    };
    let shown: Vec<String> = problems.iter().map(|p| format!("{}@{:?}", p.code.id, p.span)).collect();
    shown.join(" ")
}

#[test]
fn every_problem_has_a_code_and_a_place() {
    for (text, expect) in [
        ("", "P2101@0..0"),
        ("a,", "P2101@2..2"),
        ("*", "P2101@0..1"),
        ("a=", "P2101@2..2"),
        ("a=b c", "P2101@4..5"),
        ("a=x*y", "P2101@2..4"),
        ("a='x", "P2101@2..4"),
        ("a in b", "P2101@5..5"),
        ("a in (b", "P2101@5..7"),
        ("a in ()", "P2102@5..7"),
        ("!a=b", "P2101@0..2"),
        ("a=x=y, b in (), @clutser=eu", "P2101@3..5 P2102@12..14 P2107@16..24"),
        ("any, a=b", "P2109@0..3"),
        ("a=x, a=y", "P2103@5..8"),
        ("a=x, !a", "P2103@5..7"),
        ("a, !a", "P2103@3..5"),
        ("a=x, a!=x", "P2103@5..9"),
        ("a=xy, a!=x*", "P2103@6..11"),
        ("a!=*, a", "P2103@6..7"),
        ("a in (x,y), a in (y,z)", ""),
        ("a=x*, a=xy", ""),
        ("a!=x, !a", ""),
        ("@namespace=/a, @namespace=/b/**", "P2103@15..31"),
        ("@namespace=/b/**, @namespace=/b/c", ""),
        ("@namespace!=/acme/**", "P2103@0..20"),
        ("@namespace=acme", "P2106@11..15"),
        ("@namespace=/a*", "P2106@11..14"),
        ("@namespace=/a**", "P2106@11..15"),
        ("@external=x, app=y", "P2104@0..11"),
        ("@external=x, @external=y", "P2104@13..24"),
        ("@external!=x", "P2110@0..12"),
        ("@external=/other:x", "P2105@0..18"),
        ("@external=/acme:x", ""),
        ("@external=Stripe", "P2010@10..16"),
    ] {
        assert_eq!(problems(text), expect, "{text}");
    }
}

#[test]
fn limits_are_named() {
    let many = vec!["a"; REQUIREMENTS_MAX + 1].join(",");
    assert!(problems(&many).starts_with("P2111"));
    let values = format!("a in ({})", vec!["a"; VALUES_MAX + 1].join(","));
    assert!(problems(&values).starts_with("P2111"));
    assert!(problems(&"a".repeat(SELECTOR_LEN_MAX + 1)).starts_with("P2111"));
}

#[test]
fn unknown_system_keys_get_a_suggestion() {
    let Err(SelectorError(problems)) = Selector::parse("@clutser=eu") else { panic!("parsed") };
    assert_eq!(problems[0].help.as_deref(), Some("did you mean `@cluster`?"));
}
