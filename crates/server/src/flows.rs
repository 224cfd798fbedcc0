//! Flows: what both ends report of each connection, joined into one row.
//!
//! The table is in memory, bounded in rows and age; what changes in it is written to the store before a batch is
//! acknowledged, so that a restart of the server forgets nothing that an agent has forgotten. [`table`] is the pure part.

pub mod proposal;
pub mod table;

use std::sync::{Mutex, MutexGuard, PoisonError};

use api::flow::{FlowList, FlowQuery, FlowRow};
use api::sync as wire;
use identity::ids::NodeId;
use store::Store;
use tokio::sync::watch;

use self::table::{Row, Table};
use crate::registry::{Registry, RegistryError};

/// Records of rows, by number.
const ROWS: &str = "flow";
/// Records of the last stored batch, by node.
const BATCHES: &str = "flow-batch";
/// Rows that a query gets at most.
pub const LIMIT_MAX: u32 = 10_000;
/// Rows that a query gets unless it says.
const LIMIT_DEFAULT: u32 = 1_000;

/// The last batch of a node that was stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Batch {
    process: String,
    sequence: u64,
}

/// See the module. Shared.
#[derive(Debug)]
pub struct Flows {
    store: Store,
    table: Mutex<Table>,
    /// The table's version, for those who follow.
    changed: watch::Sender<u64>,
}

impl Flows {
    /// Reads what was stored.
    pub async fn open(store: Store) -> Result<Self, RegistryError> {
        let mut table = Table::default();
        for (key, value) in store.records(ROWS).await? {
            let row: Row = decode(&key, &value)?;
            table.restore(row);
        }
        for (key, value) in store.records(BATCHES).await? {
            let batch: Batch = decode(&key, &value)?;
            if let Some(node) = key.parse().ok().and_then(NodeId::new) {
                table.restore_batch(node, batch.process, batch.sequence);
            }
        }
        Ok(Self { store, table: Mutex::new(table), changed: watch::Sender::new(0) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch of reports. Returns the number up to which the node's batches are stored; a batch that is stored
    /// already changes nothing.
    pub async fn report(
        &self,
        registry: &Registry,
        node: NodeId,
        process: &str,
        batch: wire::FlowBatch,
    ) -> Result<u64, RegistryError> {
        let now = registry.now();
        let version = {
            let fleet = registry.fleet();
            let mut table = self.table();
            if !table.take(&fleet, node, process, &batch, now) {
                return Ok(table.stored(node, process));
            }
            table.version()
        };
        self.persist().await?;
        self.changed.send_modify(|known| *known = version.max(*known));
        Ok(batch.sequence)
    }

    /// Writes what has changed. The write is begun first, so that rows are stored in the order of their changes.
    async fn persist(&self) -> Result<(), RegistryError> {
        let mut transaction = self.store.begin().await?;
        let due = self.table().due();
        let written = async {
            for row in &due.rows {
                put(&mut transaction, ROWS, &key(row.id()), row).await?;
            }
            for id in &due.forgotten {
                transaction.delete_record(ROWS, &key(*id)).await?;
            }
            for (node, process, sequence) in &due.batches {
                let batch = Batch { process: process.clone(), sequence: *sequence };
                put(&mut transaction, BATCHES, &node.to_string(), &batch).await?;
            }
            transaction.commit().await?;
            Ok(())
        };
        let written: Result<(), RegistryError> = written.await;
        if written.is_err() {
            self.table().still_due(due);
        }
        written
    }

    /// Rows that a query means, oldest first.
    pub fn list(&self, query: &FlowQuery) -> FlowList {
        let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX) as usize;
        let table = self.table();
        FlowList { items: table.newest(query, limit), sampled_out: table.sampled_out() }
    }

    /// Rows that changed after `version`, oldest change first, and the version up to which they are complete.
    pub fn changed_since(&self, query: &FlowQuery, version: u64, limit: usize) -> (Vec<FlowRow>, u64) {
        self.table().changed_since(query, version, limit)
    }

    /// The version of the table; rows that change later have a greater one.
    pub fn version(&self) -> u64 {
        self.table().version()
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Looks at every row, the newest first. The table is locked meanwhile.
    pub fn with_rows<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Row>) -> T) -> T {
        look(&mut self.table().rows().rev())
    }
}

/// Numbers sort as text.
fn key(id: u64) -> String {
    format!("{id:020}")
}

async fn put<T: serde::Serialize>(
    transaction: &mut store::Transaction,
    space: &str,
    key: &str,
    value: &T,
) -> Result<(), RegistryError> {
    let bytes = serde_json::to_vec(value).map_err(|e| RegistryError::Record(format!("{space}/{key}"), e))?;
    Ok(transaction.put_record(space, key, &bytes).await?)
}

fn decode<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(value).map_err(|e| RegistryError::Record(key.to_owned(), e))
}
