//! `stolos delete`: one object, or everything that manifests name.

use std::collections::BTreeSet;

use api::kind::{KINDS, Kind, Scope, Verb};
use api::object::ObjectKey;

use crate::args::{Delete, Output};
use crate::cmd::kind_named;
use crate::failure::{C, Failure, Outcome};
use crate::manifest;
use crate::output::Screen;
use crate::process;
use crate::server::Server;

pub(crate) fn run(args: Delete) -> Outcome {
    // What was typed is looked at before anything that a server's configuration may lack.
    let sources = manifest::read(&args.filename)?;
    manifest::check(&sources)?;
    let kind = args.kind.as_deref().map(deletable).transpose()?;
    let server = Server::configured(&args.connection, &args.scope)?;
    let namespace = server.namespace();
    let keys = match (kind, &args.name) {
        (Some(kind), Some(name)) => vec![key(kind, name, namespace)],
        _ => ordered(manifest::keys(&sources, namespace)),
    };
    let mut screen = Screen::stdout(Output::Table);
    process::ask(async {
        for key in &keys {
            server.delete(key).await?;
            screen.line(format!("{key} deleted"))?;
        }
        Ok(())
    })
}

/// The kind that a word names, if its objects are deleted by hand.
fn deletable(word: &str) -> Result<&'static Kind, Failure> {
    let kind = kind_named(word)?;
    if kind.verbs.contains(&Verb::Delete) {
        return Ok(kind);
    }
    Err(Failure::usage(
        C::KIND_UNKNOWN,
        format!("a {} is reported by agents and not deleted by hand", kind.name),
        format!("`stolos revoke {} NAME` cuts it off", kind.name.to_lowercase()),
    ))
}

/// The key that was typed. A namespace is named by its path, or by its last part below `-n`.
pub(crate) fn key(kind: &Kind, name: &str, namespace: Option<&str>) -> ObjectKey {
    match (kind.name, kind.scope) {
        ("Namespace", _) if name.starts_with('/') => ObjectKey::of_namespace(name),
        (_, Scope::Fleet) => ObjectKey::new(kind.name, "/", name),
        (_, Scope::Namespace) => ObjectKey::new(kind.name, namespace.unwrap_or("/"), name),
    }
}

/// Each once, and what stands in others after them: the reverse of the order of creation.
fn ordered(keys: Vec<ObjectKey>) -> Vec<ObjectKey> {
    let rank = |key: &ObjectKey| KINDS.iter().position(|kind| kind.name == key.kind);
    let mut seen = BTreeSet::new();
    let mut keys: Vec<ObjectKey> = keys.into_iter().filter(|key| seen.insert(key.clone())).collect();
    keys.sort_by_key(|key| std::cmp::Reverse((rank(key), key.path().len())));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_go_last_and_children_before_parents() {
        let keys = ordered(vec![
            ObjectKey::of_namespace("/acme"),
            ObjectKey::new("Policy", "/acme", "a"),
            ObjectKey::of_namespace("/acme/prod"),
            ObjectKey::new("Policy", "/acme", "a"),
        ]);
        let named: Vec<String> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["Policy /acme:a", "Namespace /acme/prod", "Namespace /acme"]);
    }

    #[test]
    fn what_was_typed_becomes_a_key() {
        let key = |word: &str, name: &str, namespace| key(deletable(word).unwrap(), name, namespace);
        assert_eq!(key("ns", "/acme/prod", None).path(), "/acme/prod");
        assert_eq!(key("ns", "prod", Some("/acme")).path(), "/acme/prod");
        assert_eq!(key("policies", "a", Some("/acme")).to_string(), "Policy /acme:a");
        assert_eq!(key("rev", "r", Some("/acme")).to_string(), "Revocation /:r");
        assert_eq!(key("node", "n1", None).to_string(), "Node /:n1");
        assert!(deletable("wl").unwrap_err().to_string().contains("stolos revoke workload NAME"));
    }
}
