//! `stolos get --watch`: what there is, then each change as it comes.

use std::io::Write;

use api::kind::Kind;
use api::object::Object;
use api::watch::WatchEvent;

use super::columns;
use crate::args::Output;
use crate::cmd::find::called;
use crate::failure::Outcome;
use crate::output::Screen;
use crate::server::Server;

/// Shows objects and their changes until the reader has gone away. A stream that the server ends (a restart, a deploy) is taken
/// up where it broke off.
pub(super) async fn follow<W: Write>(
    screen: &mut Screen<W>,
    server: &Server,
    kind: &Kind,
    name: Option<&str>,
    labels: Option<&str>,
) -> Outcome {
    let mut headed = false;
    loop {
        let list = server.list(kind, labels).await?;
        let mut revision = list.revision;
        for object in list.items.into_iter().filter(|object| name.is_none_or(|name| called(object, name))) {
            show(screen, kind, &WatchEvent::Put { object: Box::new(object) }, &mut headed)?;
        }
        'resumed: loop {
            let mut changes = server.watch(kind, labels, revision).await?;
            while let Some(event) = changes.next().await? {
                match &event {
                    WatchEvent::StartOver => break 'resumed,
                    WatchEvent::Bookmark { revision: reached } => revision = *reached,
                    WatchEvent::Put { object } if name.is_some_and(|name| !called(object, name)) => {}
                    WatchEvent::Delete { key, .. } if name.is_some_and(|name| !called(&bare(key), name)) => {}
                    _ => show(screen, kind, &event, &mut headed)?,
                }
            }
        }
    }
}

/// An object of which nothing is known but its name.
fn bare(key: &api::object::ObjectKey) -> Object {
    Object {
        api_version: api::object::API_VERSION.to_owned(),
        kind: key.kind.clone(),
        metadata: api::object::Metadata {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ..api::object::Metadata::default()
        },
        spec: serde_json::Value::Null,
        status: None,
    }
}

fn show<W: Write>(screen: &mut Screen<W>, kind: &Kind, event: &WatchEvent, headed: &mut bool) -> Outcome {
    if !screen.is_text() {
        return screen.item(event);
    }
    match event {
        WatchEvent::Put { object } => {
            let table = columns::table(kind, std::slice::from_ref(&**object), screen.form() == Output::Wide);
            if std::mem::replace(headed, true) { screen.rows(&table)? } else { screen.table(&table)? }
        }
        WatchEvent::Delete { key, .. } => screen.line(format!("{key} deleted"))?,
        WatchEvent::Bookmark { .. } | WatchEvent::StartOver => {}
    }
    screen.flush()
}
