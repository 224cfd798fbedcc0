//! The store's promises: the same tests on a real SQLite file and on a real PostgreSQL.

#![forbid(unsafe_code)]

mod audit;
mod documents;
mod dump;
mod feed;
mod kill;
mod lease;
mod migration;
mod model;
mod page;
mod postgres;

use std::time::Duration;

use api::object::{API_VERSION, Metadata, Object};
use jiff::Timestamp;
use serde_json::json;
use store::Store;
use store::document::Precondition;
use store::url::StoreUrl;

/// Waits at most so long for what must happen.
const LIMIT: Duration = Duration::from_secs(30);

/// What the store stands on.
#[derive(Clone, Copy, Debug)]
enum Engine {
    Sqlite,
    Postgres,
}

/// An empty database for one test.
struct Place {
    url: String,
    _directory: Option<tempfile::TempDir>,
}

impl Place {
    fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let directory = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", directory.path().join("stolos.db").display());
                Self { url, _directory: Some(directory) }
            }
            Engine::Postgres => {
                let url = pgtest::shared().database(pgtest::Sort::Bytes).unwrap();
                Self { url, _directory: None }
            }
        }
    }

    fn url(&self) -> StoreUrl {
        self.url.parse().unwrap()
    }

    async fn open(&self) -> Store {
        Store::open(&self.url()).await.unwrap()
    }
}

/// Runs tests, which take an [`Engine`], on both.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::Engine::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::Engine::Postgres).await;
            })*
        }
    };
}
use on_both;

fn object(kind: &str, namespace: &str, name: &str, value: u32) -> Object {
    Object {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        metadata: Metadata { namespace: namespace.into(), name: name.into(), ..Metadata::default() },
        spec: json!({ "value": value }),
        status: None,
    }
}

/// An opened store, and what it stands on.
async fn fresh(engine: Engine) -> (Place, Store) {
    let place = Place::new(engine);
    let store = place.open().await;
    (place, store)
}

async fn put(store: &Store, object: &Object) -> Object {
    let mut write = store.begin().await.unwrap();
    let (stored, _) = write.put(object, Precondition::None, Timestamp::UNIX_EPOCH).await.unwrap();
    write.commit().await.unwrap();
    stored
}
