//! `stolos export` and `import`: a subtree as files, and back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use api::apply::{ApplyRequest, Prune};
use api::kind::{KINDS, NAMESPACE, Scope};
use api::object::Object;

use crate::args::{Export, Import, Output};
use crate::cmd::{apply, diff};
use crate::failure::{C, Failure, Outcome};
use crate::manifest;
use crate::output::Screen;
use crate::process;
use crate::server::Server;

pub(crate) fn run(args: Export) -> Outcome {
    let server = Server::configured(&args.connection, &args.scope)?;
    let root = server.namespace().unwrap_or("/").to_owned();
    let objects = process::ask(collect(&server, &root))?;
    let Some(directory) = &args.out else {
        let text: String = objects.iter().map(document).collect();
        return Ok(io::stdout().write_all(text.as_bytes())?);
    };
    let files = files(&objects);
    write(directory, &files)?;
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    Screen::stdout(Output::Table).line(format!(
        "Wrote {} of {root} to {} in {}.",
        count(objects.len(), "object"),
        count(files.len(), "file"),
        directory.display()
    ))
}

pub(crate) fn import(args: Import) -> Outcome {
    let sources = manifest::read(&args.files)?;
    manifest::check(&sources)?;
    let server = Server::configured(&args.connection, &args.scope)?;
    let namespace = server.namespace().map(str::to_owned);
    let prune = match (&namespace, args.exact) {
        (_, false) => None,
        (Some(namespace), true) => Some(Prune { namespace: Some(namespace.clone()), owner: None }),
        (None, true) => {
            return Err(Failure::usage(
                C::USAGE,
                "--exact deletes what the files do not hold, and no namespace says where",
                "name the subtree: -n /acme",
            ));
        }
    };
    let request = ApplyRequest { sources, namespace, prune, owner: None };
    let response = process::ask(server.apply(&request, args.dry_run))?;
    manifest::report(&response.diagnostics);
    Screen::stdout(args.format.output).answer(&response, apply::show)
}

/// Everything that people write in a namespace and below it, in the order in which it can be created.
async fn collect(server: &Server, root: &str) -> Result<Vec<Object>, Failure> {
    let mut all = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.writable()) {
        if kind.scope == Scope::Fleet && root != "/" {
            continue;
        }
        let mut items = server.list_in(kind, root).await?;
        if kind.name == NAMESPACE && root != "/" {
            // The list has what lives in the namespace; the namespace itself lives in its parent.
            items.extend(server.object(&api::object::ObjectKey::of_namespace(root)).await?);
        }
        items.sort_by_key(|object| object.key().path());
        all.extend(items);
    }
    Ok(all)
}

fn document(object: &Object) -> String {
    format!("---\n{}", diff::authored(object))
}

/// A file for each namespace: `acme_shop.yaml`; names have no `_`, so no two namespaces share one.
fn files(objects: &[Object]) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for object in objects {
        let name = match object.key().path().trim_matches('/') {
            "" => "root.yaml".to_owned(),
            path => format!("_{}.yaml", path.replace('/', "_")),
        };
        files.entry(name).or_default().push_str(&document(object));
    }
    files
}

fn write(directory: &Path, files: &BTreeMap<String, String>) -> Outcome {
    let unwritable = |error: io::Error| Failure::unwritable(directory, &error);
    fs::create_dir_all(directory).map_err(unwritable)?;
    if fs::read_dir(directory).map_err(unwritable)?.next().is_some() {
        return Err(Failure::new(
            C::DIRECTORY_UNFIT,
            format!("{} is not empty", directory.display()),
            "choose another directory: old files beside new ones would be imported with them",
        ));
    }
    for (name, text) in files {
        let file = directory.join(name);
        fs::write(&file, text).map_err(|error| Failure::unwritable(&file, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::object::ObjectKey;

    use super::*;

    fn object(key: ObjectKey) -> Object {
        serde_json::from_value(serde_json::json!({"apiVersion": "stolos.dev/v1", "kind": key.kind, "spec": {},
            "metadata": {"namespace": key.namespace, "name": key.name, "revision": 3}}))
        .unwrap()
    }

    #[test]
    fn each_namespace_has_a_file_and_no_system_fields() {
        let objects = [
            object(ObjectKey::of_namespace("/acme")),
            object(ObjectKey::new("Policy", "/acme", "x")),
            object(ObjectKey::new("Policy", "/", "root")),
            object(ObjectKey::new("Policy", "/acme/shop", "y")),
        ];
        let files = files(&objects);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["_acme.yaml", "_acme_shop.yaml", "root.yaml"]);
        assert_eq!(files["_acme.yaml"].matches("---\n").count(), 2);
        assert!(!files["_acme.yaml"].contains("revision"));
    }

    #[test]
    fn a_directory_with_something_in_it_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let files = BTreeMap::from([("a.yaml".to_owned(), "x".to_owned())]);
        write(directory.path(), &files).unwrap();
        assert!(write(directory.path(), &files).unwrap_err().to_string().contains("is not empty"));
    }
}
