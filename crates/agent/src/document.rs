//! A policy's JSON document, as the server sends it, as the evaluator wants it.
//!
//! Strict: a field that this version does not know could restrict the policy, so it is refused rather than ignored.

use policy::namespace::{NamespacePath, PolicyId};
use policy::policy::{Action, Mode, Policy};
use policy::port::Port;
use policy::selector::Selector;
use serde::Deserialize;

#[derive(Deserialize)]
struct Document {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    from: Vec<String>,
    to: Vec<String>,
    ports: Option<Vec<String>>,
    action: Action,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    reason: Option<String>,
}

/// Reads a policy. Errors: one sentence for the server's operator.
pub(crate) fn policy(json: &[u8]) -> Result<Policy, String> {
    let document: Document = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let spec = document.spec;
    let namespace = NamespacePath::new(&document.metadata.namespace).map_err(|error| error.to_string())?;
    let id = PolicyId::new(namespace, &document.metadata.name).map_err(|error| error.to_string())?;
    let ports = match &spec.ports {
        None => vec![Port::Any],
        Some(ports) => {
            ports.iter().map(|port| port.parse::<Port>()).collect::<Result<_, _>>().map_err(|e| e.to_string())?
        }
    };
    let (from, to) = (selectors(&spec.from)?, selectors(&spec.to)?);
    if from.is_empty() || to.is_empty() || ports.is_empty() {
        return Err("from, to and ports must not be empty".to_owned());
    }
    let mode = spec.mode.unwrap_or(Mode::Enforce);
    Ok(Policy { id, from, to, ports, action: spec.action, mode, reason: spec.reason })
}

fn selectors(texts: &[String]) -> Result<Vec<Selector>, String> {
    let parse = |text: &String| Selector::parse(text).map(|parsed| parsed.selector).map_err(|error| error.to_string());
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_a_policy() {
        let json =
            br#"{"apiVersion":"stolos.dev/v1","kind":"Policy","metadata":{"namespace":"/acme","name":"web-to-db"},
            "spec":{"from":["app=web"],"to":["app=db"],"ports":["tcp/5432"],"action":"allow"}}"#;
        let policy = policy(json).expect("reads");
        assert_eq!(policy.id.to_string(), "/acme:web-to-db");
        assert!(policy.covers(6, 5432) && !policy.covers(6, 5433));
    }

    #[test]
    fn a_field_of_a_later_version_is_refused() {
        let json = br#"{"metadata":{"namespace":"/acme","name":"x"},
            "spec":{"from":["any"],"to":["any"],"action":"allow","onlyOnSundays":true}}"#;
        assert!(policy(json).expect_err("must not be ignored").contains("onlyOnSundays"));
    }
}
