use super::*;
use proptest::prelude::*;
use serde_json::json;

/// Problems as `code line:column message`, one a line.
fn show(problems: Vec<Problem>, source: &str) -> String {
    let line = |problem: Problem| {
        let d = problem.locate(None, source);
        let help = d.problem.help.map(|h| format!(" ({h})")).unwrap_or_default();
        format!("{} {}:{} {}{help}\n", d.problem.code.id, d.line, d.column, d.problem.message)
    };
    problems.into_iter().map(line).collect()
}

fn json_of(source: &str) -> Vec<serde_json::Value> {
    let (documents, problems) = parse_documents(source);
    assert_eq!(show(problems, source), "", "{source}");
    documents.iter().map(|d| d.root.to_json()).collect()
}

#[test]
fn yaml_and_json_give_the_same_trees() {
    let yaml = "kind: Policy\nspec:\n  from: [app=web, 'a, b']\n  n: 5432\n  t: yes\n  b: true\n  e:\n";
    let expected =
        json!({"kind": "Policy", "spec": {"from": ["app=web", "a, b"], "n": 5432, "t": "yes", "b": true, "e": null}});
    assert_eq!(json_of(yaml), std::slice::from_ref(&expected));
    assert_eq!(json_of(&expected.to_string()), [expected]);
}

#[test]
fn a_file_holds_many_documents_and_empty_ones_are_skipped() {
    let source = "# a comment\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n";
    assert_eq!(json_of(source), [json!({"a": 1}), json!({"b": 2})]);
    assert_eq!(parse_documents(source).0[1].line, 8);
}

#[test]
fn all_problems_of_syntax_are_reported_at_once() {
    let source = "a: 1\na: 2\n---\nb: [1, 2\n---\nc: &x 1\nd: *x\ne: !!str 1\n---\ngood: 1\n";
    let (documents, problems) = parse_documents(source);
    insta::assert_snapshot!(show(problems, source), @"
    P2007 2:1 the key `a` stands here twice (take one of the two out)
    P2001 4:4 this is not YAML: unclosed bracket '['
    P2013 6:7 a value with an anchor (take the `&name` out)
    P2013 7:4 an alias stands here (write the value out)
    P2013 8:10 a value with a tag (take the `!tag` out)
    ");
    assert_eq!(documents.len(), 1, "the sound one is there");
}

#[test]
fn files_without_documents_and_too_deep_or_large_ones_are_refused() {
    for (source, code) in [
        (String::new(), "P2008"),
        ("# nothing\n".to_owned(), "P2008"),
        ("[".repeat(2000), "P2009"),
        (format!("a: {}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)), "P2009"),
        ("x".repeat(FILE_LEN_MAX + 1), "P2009"),
        ("a:\n\tb: 1\n".to_owned(), "P2001"),
    ] {
        let (documents, problems) = parse_documents(&source);
        assert!(documents.is_empty());
        assert_eq!(problems[0].code.id, code, "{:?}", &source[..source.len().min(20)]);
    }
}

#[test]
fn a_place_inside_text_is_found_where_it_was_written() {
    let source = "a: \"app==web\"\nb: 'it''s'\n";
    let (documents, _) = parse_documents(source);
    let root = &documents[0].root;
    assert_eq!(&source[root.get("a").unwrap().place_of(source, 3..5)], "==");
    assert_eq!(&source[root.get("b").unwrap().place_of(source, 0..1)], "'it''s'");
}

#[test]
fn a_document_is_compared_with_its_schema() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["kind", "spec"],
        "properties": {
            "kind": {"type": "string"},
            "spec": {"$ref": "#/$defs/Spec"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "$defs": {
            "Spec": {
                "type": "object", "additionalProperties": false, "required": ["from", "action"],
                "properties": {
                    "from": {"type": "array", "items": {"type": "string"}},
                    "action": {"oneOf": [{"type": "string", "const": "allow"}, {"type": "string", "const": "deny"}]},
                    "mode": {"anyOf": [{"enum": ["observe", "enforce"]}, {"type": "null"}]},
                    "port": {"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
                }
            }
        }
    });
    let source =
        "kind: Policy\nlabels: {version: 1.10, on: true}\nspec:\n  form: [a]\n  action: alow\n  mode:\n  port: 70000\n";
    let (documents, _) = parse_documents(source);
    insta::assert_snapshot!(show(schema::check(&documents[0].root, &schema), source), @"
    P2005 2:19 text is expected here, not a number (write it in quotes)
    P2005 2:29 text is expected here, not `true` (write it in quotes)
    P2002 4:3 there is no field `form` here (did you mean `from`?)
    P2012 5:11 `alow` is not one of allow, deny (did you mean `allow`?)
    P2005 7:9 a whole number from 1 to 65535 is expected here, not a number
    P2004 3:1 the field `from` is missing
    ");
    let good = "kind: Policy\nspec: {from: [], action: deny, mode: observe, port: 80}\n";
    assert_eq!(schema::check(&parse_documents(good).0[0].root, &schema), []);
    let source = "kind: [Policy]\nspec: {from: app=web, action: [], mode: never}\n";
    insta::assert_snapshot!(show(schema::check(&parse_documents(source).0[0].root, &schema), source), @r#"
    P2005 1:7 text is expected here, not a list
    P2005 2:14 a list is expected here, not `app=web` (write a list: ["app=web"])
    P2012 2:31 a list is not one of allow, deny
    P2012 2:41 `never` is not one of observe, enforce
    "#);
}

#[test]
fn suggestions_are_near() {
    assert_eq!(suggest("ingres", ["ingress", "egress"]), Some("ingress"));
    assert_eq!(suggest("xyz", ["ingress", "egress"]), None);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_places_in_bounds(source in "[ab:\\-\\[\\]{},\"'#&*!|>?\n\t ä]{0,40}") {
        let (documents, problems) = parse_documents(&source);
        prop_assert!(!documents.is_empty() || !problems.is_empty());
        for problem in problems {
            prop_assert!(source.get(problem.span.clone()).is_some(), "{:?}", problem);
        }
        fn walk(node: &Node, source: &str) {
            assert!(source.get(node.span.clone()).is_some(), "{node:?}");
            assert!(source.get(node.head.clone()).is_some(), "{node:?}");
            node.items().iter().for_each(|item| walk(item, source));
            node.entries().iter().for_each(|entry| walk(&entry.value, source));
        }
        for document in documents {
            walk(&document.root, &source);
        }
    }

    #[test]
    fn json_comes_back_as_it_was(value in json_value()) {
        let text = serde_json::to_string(&value).unwrap();
        let (documents, problems) = parse_documents(&text);
        prop_assert_eq!(&problems, &[]);
        prop_assert_eq!(documents[0].root.to_json(), value);
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        "[ -~äöü]{0,8}".prop_map(serde_json::Value::from),
    ];
    let inner = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    proptest::collection::btree_map("[a-z]{1,4}", inner, 1..4)
        .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
}
