//! The schema's history: one linear list of steps, each in both dialects under the same number.
//!
//! A step is never changed once it was released. What both dialects make of the list is compared by a test.

use std::time::Duration;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;

use crate::StoreError;
use crate::error::is_lost_race;
use crate::url::StoreUrl;

/// Another process that opens the same new database at the same moment is waited for so often.
const RACES_MAX: u32 = 50;
/// Waits so long for the other one's step.
const RACE_DELAY: Duration = Duration::from_millis(100);

/// A step: number, name, and its text for each engine.
struct Step {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! steps {
    ($($version:literal $name:literal;)*) => {
        &[$(Step {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../migrations/postgres/", $name, ".sql")),
        },)*]
    };
}

const STEPS: &[Step] = steps! {
    1 "0001_documents";
    2 "0002_replicas";
    3 "0003_counted";
    4 "0004_audit";
};

/// The newest version of the schema.
pub const LATEST: i64 = STEPS[STEPS.len() - 1].version;

fn migrator(text: fn(&Step) -> &'static str) -> Migrator {
    let migration = |step: &Step| {
        // The description that sqlx gave to the files of earlier versions: `documents` of `0001_documents.sql`.
        let name = step.name.split_once('_').map_or(step.name, |(_, name)| name);
        Migration::new(step.version, name.into(), MigrationType::Simple, text(step).into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(STEPS.iter().map(migration).collect());
    // Advisory locks are not part of what PostgreSQL-compatible databases offer. Each step is a transaction that
    // includes its own mark, so of two processes one fails and finds it done.
    migrator.set_locking(false);
    migrator
}

/// Brings a SQLite file to a version.
pub(crate) async fn sqlite(pool: &SqlitePool, version: i64) -> Result<(), StoreError> {
    migrator(|step| step.sqlite).run_to(version, pool).await.map_err(StoreError::Migrate)
}

/// Brings a PostgreSQL database to a version, also when others do the same at the same time.
pub(crate) async fn postgres(pool: &PgPool, version: i64) -> Result<(), StoreError> {
    let migrator = migrator(|step| step.postgres);
    let mut races = 0;
    loop {
        match migrator.run_to(version, pool).await {
            Ok(()) => return Ok(()),
            Err(error) if races < RACES_MAX && lost_race(&error) => races += 1,
            Err(error) => return Err(StoreError::Migrate(error)),
        }
        tokio::time::sleep(RACE_DELAY).await;
    }
}

fn lost_race(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => is_lost_race(cause),
        _ => false,
    }
}

/// Brings a database to a version, not necessarily the latest, and leaves it. For whoever must look at earlier ones.
pub async fn bring_to(url: &StoreUrl, version: i64) -> Result<(), StoreError> {
    match url {
        StoreUrl::Sqlite(path) => crate::sqlite::Pools::open(path, version).await?.close().await,
        StoreUrl::Postgres(url) => crate::postgres::Database::open(url.clone(), version).await?.close().await,
    }
    Ok(())
}
