//! The schema: the same in both dialects, and the same however a database came to it.

use std::collections::BTreeSet;

use api::object::{ObjectKey, Revision};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection};
use store::Store;
use store::migrate;

use crate::{Engine, LIMIT, Place, object, put};

crate::on_both! {
    every_earlier_version_becomes_what_a_fresh_one_is
    opening_again_changes_nothing
}

/// What a column or a key is, in words that both engines share.
type Schema = BTreeSet<String>;

async fn schema(place: &Place) -> Schema {
    match place.url.strip_prefix("sqlite:") {
        Some(path) => sqlite_schema(path).await,
        None => postgres_schema(&place.url).await,
    }
}

async fn sqlite_schema(path: &str) -> Schema {
    let mut db = SqliteConnection::connect(path).await.unwrap();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\' \
                  AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut schema = Schema::new();
    for table in db.fetch_all(tables).await.unwrap() {
        let table: String = table.get(0);
        let mut key = Vec::new();
        for column in db.fetch_all(AssertSqlSafe(format!("PRAGMA table_info({table})"))).await.unwrap() {
            let (name, kind): (String, String) = (column.get(1), column.get(2));
            let at: i64 = column.get(5);
            // SQLite does not call the columns of a primary key NOT NULL unless told so.
            let null = if column.get::<i64, _>(3) == 0 && at == 0 { "NULL" } else { "NOT NULL" };
            schema.insert(format!("{table}.{name} {kind} {null}"));
            key.extend((at > 0).then_some((at, name)));
        }
        key.sort();
        let key: Vec<String> = key.into_iter().map(|(_, name)| name).collect();
        schema.insert(format!("{table} UNIQUE {}", key.join(", ")));
        for index in db.fetch_all(AssertSqlSafe(format!("PRAGMA index_list({table})"))).await.unwrap() {
            let (name, unique): (String, i64) = (index.get(1), index.get(2));
            let columns = db.fetch_all(AssertSqlSafe(format!("PRAGMA index_info({name})"))).await.unwrap();
            let columns: Vec<String> = columns.iter().map(|column| column.get(2)).collect();
            schema.insert(format!("{table} {} {}", if unique == 1 { "UNIQUE" } else { "INDEX" }, columns.join(", ")));
        }
    }
    schema
}

async fn postgres_schema(url: &str) -> Schema {
    let mut db = PgConnection::connect(url).await.unwrap();
    let columns = "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text \
                   FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%'";
    let mut schema = Schema::new();
    for column in db.fetch_all(columns).await.unwrap() {
        let kind = match column.get::<&str, _>(2) {
            "bigint" => "INTEGER",
            "text" => "TEXT",
            "bytea" => "BLOB",
            other => panic!("a column of type {other}"),
        };
        let null = if column.get::<&str, _>(3) == "YES" { "NULL" } else { "NOT NULL" };
        schema.insert(format!("{}.{} {kind} {null}", column.get::<&str, _>(0), column.get::<&str, _>(1)));
    }
    let indexes = "SELECT t.relname::text, i.indisunique, \
                          array_to_string(ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, true) \
                              FROM generate_series(1, i.indnkeyatts) n), ', ') \
                   FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace s ON s.oid = t.relnamespace \
                   WHERE s.nspname = 'public' AND t.relname NOT LIKE '\\_%'";
    for index in db.fetch_all(indexes).await.unwrap() {
        let unique = if index.get::<bool, _>(1) { "UNIQUE" } else { "INDEX" };
        schema.insert(format!("{} {unique} {}", index.get::<&str, _>(0), index.get::<&str, _>(2)));
    }
    schema
}

#[tokio::test]
async fn both_dialects_make_the_same_schema_at_every_version() {
    for version in 1..=migrate::LATEST {
        let (sqlite, postgres) = (Place::new(Engine::Sqlite), Place::new(Engine::Postgres));
        migrate::bring_to(&sqlite.url(), version).await.unwrap();
        migrate::bring_to(&postgres.url(), version).await.unwrap();
        let (sqlite, postgres) = (schema(&sqlite).await, schema(&postgres).await);
        assert_eq!(sqlite, postgres, "at version {version}");
        assert!(sqlite.contains("documents UNIQUE kind, namespace, name"), "{sqlite:#?}");
    }
}

async fn every_earlier_version_becomes_what_a_fresh_one_is(engine: Engine) {
    let fresh = Place::new(engine);
    fresh.open().await.close().await;
    let fresh = schema(&fresh).await;
    for version in 1..migrate::LATEST {
        let place = Place::new(engine);
        migrate::bring_to(&place.url(), version).await.unwrap();
        fill(&place, version).await;
        let store = place.open().await;
        assert_eq!(schema(&place).await, fresh, "from version {version}");
        // What was there is there; what comes follows it.
        let kept = store.get(&ObjectKey::new("Policy", "/a", "old")).await.unwrap().expect("kept");
        assert_eq!(kept.metadata.revision, Some(Revision(3)));
        assert_eq!(put(&store, &object("Policy", "/a", "new", 1)).await.metadata.revision, Some(Revision(4)));
        let mut watch = store.watch(Revision(1));
        for revision in [3, 4] {
            let commit = tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap();
            assert_eq!(commit.revision, Revision(revision));
        }
    }
}

/// A document at revision 3 in a database of an earlier version, and the two changes that made it.
async fn fill(place: &Place, version: i64) {
    assert!(version <= 3, "say here how a database of version {version} is filled");
    let mut old = object("Policy", "/a", "old", 1);
    old.metadata.revision = Some(Revision(3));
    let body = serde_json::to_string(&old).unwrap();
    let statements = [
        // Since version 3 the writer keeps count of its changes itself.
        match version {
            ..=2 => "UPDATE head SET revision = 3 WHERE id = 1".to_owned(),
            _ => "UPDATE head SET revision = 3, sequence = 2 WHERE id = 1".to_owned(),
        },
        format!("INSERT INTO documents VALUES ('Policy', '/a', 'old', 'uid', 3, '{body}')"),
        format!(
            "INSERT INTO changes VALUES (1, 1, 'Policy', '/a', 'old', '{body}'), (2, 3, 'Policy', '/a', 'old', '{body}')"
        ),
    ];
    match place.url.strip_prefix("sqlite:") {
        Some(path) => {
            let mut db = SqliteConnection::connect(path).await.unwrap();
            for statement in statements {
                db.execute(AssertSqlSafe(statement)).await.unwrap();
            }
        }
        None => {
            let mut db = PgConnection::connect(&place.url).await.unwrap();
            for statement in statements {
                db.execute(AssertSqlSafe(statement)).await.unwrap();
            }
        }
    }
}

async fn opening_again_changes_nothing(engine: Engine) {
    let place = Place::new(engine);
    let store = place.open().await;
    let before = (schema(&place).await, put(&store, &object("Policy", "/a", "x", 1)).await);
    store.close().await;
    let store = place.open().await;
    assert_eq!((schema(&place).await, store.get(&before.1.key()).await.unwrap().expect("kept")), before);
}

/// Replicas that start together on an empty database.
#[tokio::test]
async fn processes_that_migrate_at_once_all_succeed() {
    let place = Place::new(Engine::Postgres);
    let opened: Vec<_> = (0..6)
        .map(|_| {
            let url = place.url();
            tokio::spawn(async move { Store::open(&url).await })
        })
        .collect();
    for store in opened {
        store.await.unwrap().unwrap();
    }
}
