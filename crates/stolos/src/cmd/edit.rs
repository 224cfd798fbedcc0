//! `stolos edit`: an object in the operator's editor, and back.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use api::apply::{ApplyRequest, Source};
use api::kind::Kind;
use api::object::Object;

use crate::args::{Edit, Output};
use crate::cmd::{apply, find, kind_named};
use crate::failure::{C, Failure, Outcome};
use crate::manifest;
use crate::output::{Screen, yaml};
use crate::process;
use crate::server::Server;

pub(crate) fn run(args: Edit) -> Outcome {
    let kind = writable(&args.kind)?;
    let server = Server::configured(&args.connection, &args.scope)?;
    let object = process::ask(find::one(&server, kind, &args.name))?;
    let before = text(&object);
    let unwritable = |error| Failure::unwritable(&env::temp_dir(), &error);
    let mut file = tempfile::Builder::new().prefix("stolos-edit-").suffix(".yaml").tempfile().map_err(unwritable)?;
    file.write_all(before.as_bytes()).map_err(unwritable)?;
    open(file.path())?;
    let after = fs::read_to_string(file.path()).map_err(|error| Failure::unreadable(file.path(), &error))?;
    let mut screen = Screen::stdout(Output::Table);
    if after.trim().is_empty() || after == before {
        return screen.line(format!("{} unchanged", object.key()));
    }
    let stored = store(&server, file.path(), after);
    match stored {
        Ok(response) => screen.answer(&response, apply::show),
        Err(failure) => {
            // Nothing that was typed is lost.
            let (_, kept) = file.keep().map_err(|error| unwritable(error.error))?;
            let _ = writeln!(std::io::stderr(), "{failure}");
            Err(Failure::Reported(format!(
                "what you wrote is kept: mend it, then `stolos apply -f {}`",
                kept.display()
            )))
        }
    }
}

fn store(server: &Server, file: &Path, text: String) -> Result<api::apply::ApplyResponse, Failure> {
    let sources = vec![Source { name: file.display().to_string(), text }];
    manifest::check(&sources)?;
    let request = ApplyRequest { sources, ..ApplyRequest::default() };
    process::ask(server.apply(&request, false))
}

fn writable(word: &str) -> Result<&'static Kind, Failure> {
    let kind = kind_named(word)?;
    match kind.writable() {
        true => Ok(kind),
        false => Err(Failure::usage(
            C::KIND_UNKNOWN,
            format!("a {} is reported by agents and not edited", kind.name),
            format!("`stolos describe {} NAME` shows it", kind.name.to_lowercase()),
        )),
    }
}

/// What is edited: all but what the system gives, with the revision, so that nobody's later write is lost.
fn text(object: &Object) -> String {
    let mut object = object.clone();
    object.status = None;
    object.metadata.created = None;
    object.metadata.updated = None;
    format!(
        "# {}. Save and leave to store it; leave it as it is, or empty it, to change nothing.\n\
         # metadata.revision guards against overwriting what somebody else stores meanwhile.\n{}",
        object.key(),
        yaml(&object)
    )
}

/// Runs the editor on a file and waits. It may be a command with arguments, so a shell takes it apart.
fn open(file: &Path) -> Outcome {
    let named = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(
            C::EDITOR_FAILED,
            format!("the editor `{editor}` ended with {status}; nothing was stored"),
            "name another one with VISUAL or EDITOR",
        )),
        Err(error) => Err(Failure::new(
            C::EDITOR_FAILED,
            format!("the editor `{editor}` cannot be started: {}", crate::failure::reason(&error)),
            "name another one with VISUAL or EDITOR",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_edited_has_the_revision_and_no_status() {
        let object: Object = serde_json::from_value(serde_json::json!({
            "apiVersion": "stolos.dev/v1", "kind": "Policy", "spec": {"action": "allow"}, "status": {"x": 1},
            "metadata": {"namespace": "/acme", "name": "x", "revision": 7, "created": "2030-01-01T00:00:00Z"}
        }))
        .unwrap();
        let text = text(&object);
        assert!(text.contains("revision: 7") && text.contains("action: allow"), "{text}");
        assert!(!text.contains("status") && !text.contains("created"), "{text}");
    }

    #[test]
    fn reported_kinds_are_not_edited() {
        assert!(writable("wl").unwrap_err().to_string().contains("stolos describe workload NAME"));
        assert_eq!(writable("policies").unwrap().name, "Policy");
    }
}
