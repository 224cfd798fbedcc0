//! Key generations in the store: nodes' X25519 keys and the fleet key, and their rotation by command.

use std::collections::BTreeMap;

use identity::ids::NodeId;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{Store, Transaction};
use zeroize::Zeroizing;

use super::{Registry, RegistryError};
use crate::fleet::FleetKey;
use crate::generations::{Busy, Ring};
use crate::vault::Vault;

const NODE_KEYS: &str = "node-keys";
pub(crate) const FLEET_KEYS: &str = "fleet-keys";
/// Nodes that shall make a new key, once they are connected.
const ROTATIONS: &str = "rotate-node-key";
const RING: &str = "ring";

/// Why a rotation did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The last one is not finished.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It could not be stored.
    #[error("the rotation could not be stored")]
    Registry(#[from] RegistryError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl From<store::StoreError> for RotateError {
    fn from(error: store::StoreError) -> Self {
        Self::Registry(error.into())
    }
}

impl Registry {
    /// Makes the first fleet key if there is none.
    pub(super) async fn ensure_fleet_key(&self) -> Result<(), RegistryError> {
        if self.fleet().fleet_keys.sending().is_some() {
            return Ok(());
        }
        match self.rotate_fleet_key().await {
            Ok(_) => Ok(()),
            Err(RotateError::Registry(error)) => Err(error),
            Err(RotateError::Busy(_) | RotateError::Random) => Ok(()),
        }
    }

    /// Adds a generation of the fleet key. It is sent with once every subscribed node has it. Returns the generation.
    pub async fn rotate_fleet_key(&self) -> Result<u8, RotateError> {
        let mut key = [0; 16];
        OsRng.try_fill_bytes(&mut key).map_err(|_| RotateError::Random)?;
        let mut transaction = self.store.begin().await?;
        let mut ring = self.stored_fleet_ring(&mut transaction).await?;
        let generation = ring.next()?;
        let revision = transaction.revision().await?.0;
        ring.announce(generation, FleetKey(key), revision)?;
        self.put_fleet_ring(&mut transaction, &ring).await?;
        transaction.commit().await?;
        self.touch();
        Ok(generation)
    }

    /// Asks nodes to make a new handshake key; those that are not connected are asked when they are. Returns how many.
    pub async fn rotate_node_keys(&self, nodes: impl IntoIterator<Item = NodeId>) -> Result<usize, RegistryError> {
        let mut transaction = self.store.begin().await?;
        let mut asked = 0;
        for node in nodes {
            transaction.put_record(ROTATIONS, &node.to_string(), b"").await?;
            asked += 1;
        }
        transaction.commit().await?;
        self.changed.send_modify(|_| {});
        Ok(asked)
    }

    /// The generation that a node shall make now, if it was asked to and its last rotation is finished.
    pub async fn rotation_due(&self, node: NodeId) -> Result<Option<u8>, RegistryError> {
        if self.store.record(ROTATIONS, &node.to_string()).await?.is_none() {
            return Ok(None);
        }
        Ok(self.fleet().node_keys.get(&node).and_then(|ring| ring.next().ok()))
    }

    /// A node made a new key, whose signature was verified.
    pub async fn announce_node_key(&self, node: NodeId, generation: u8, key: [u8; 32]) -> Result<(), RotateError> {
        let mut transaction = self.store.begin().await?;
        let mut ring: Ring<[u8; 32]> = get(&mut transaction, NODE_KEYS, &node.to_string()).await?.unwrap_or_default();
        if ring.get(generation) == Some(&key) {
            return Ok(());
        }
        let revision = transaction.revision().await?.0;
        ring.announce(generation, key, revision)?;
        put(&mut transaction, NODE_KEYS, &node.to_string(), &ring).await?;
        transaction.delete_record(ROTATIONS, &node.to_string()).await?;
        transaction.commit().await?;
        self.touch();
        Ok(())
    }

    /// Carries every ring on as far as acknowledgements allow.
    pub(super) async fn settle_keys(&self) -> Result<(), RegistryError> {
        let unsettled = {
            let fleet = self.fleet();
            fleet.fleet_keys.unsettled() || fleet.node_keys.values().any(Ring::unsettled)
        };
        if !unsettled {
            return Ok(());
        }
        let acknowledged = self.acknowledged();
        let mut transaction = self.store.begin().await?;
        let next = transaction.revision().await?.0;
        let mut changed = false;
        let mut ring = self.stored_fleet_ring(&mut transaction).await?;
        let before = ring.clone();
        ring.step(acknowledged, next);
        if ring != before {
            self.put_fleet_ring(&mut transaction, &ring).await?;
            changed = true;
        }
        for (key, value) in transaction.records(NODE_KEYS).await? {
            let before: Ring<[u8; 32]> = decode(NODE_KEYS, &key, &value)?;
            let mut ring = before.clone();
            ring.step(acknowledged, next);
            if ring != before {
                put(&mut transaction, NODE_KEYS, &key, &ring).await?;
                changed = true;
            }
        }
        if changed {
            transaction.commit().await?;
            self.touch();
        }
        Ok(())
    }

    /// Puts the stored keys into the fleet.
    pub(super) async fn refresh_keys(&self) -> Result<(), RegistryError> {
        let rings = load_node_rings(&self.store).await?;
        let ring = load_fleet_ring(&self.store, &self.vault).await?.unwrap_or_default();
        let mut fleet = self.fleet_mut();
        fleet.set_fleet_keys(ring);
        // A node that was deleted meanwhile stays so.
        for (node, ring) in rings.into_iter().filter(|(node, _)| fleet.node(*node).is_some()).collect::<Vec<_>>() {
            fleet.set_node_keys(node, Some(ring));
        }
        Ok(())
    }

    async fn stored_fleet_ring(&self, transaction: &mut Transaction) -> Result<Ring<FleetKey>, RegistryError> {
        let sealed = transaction.record(FLEET_KEYS, RING).await?;
        Ok(sealed.map(|sealed| opened(&self.vault, &sealed)).transpose()?.unwrap_or_default())
    }

    async fn put_fleet_ring(&self, transaction: &mut Transaction, ring: &Ring<FleetKey>) -> Result<(), RegistryError> {
        let unwritable = |e| RegistryError::Record(format!("{FLEET_KEYS}/{RING}"), e);
        let plain = Zeroizing::new(serde_json::to_vec(ring).map_err(unwritable)?);
        Ok(transaction.put_record(FLEET_KEYS, RING, &self.vault.seal(FLEET_KEYS, RING, &plain)?).await?)
    }
}

/// Stores the first key of a node that enrols.
pub(super) async fn put_node_ring(
    transaction: &mut Transaction,
    node: NodeId,
    ring: &Ring<[u8; 32]>,
) -> Result<(), RegistryError> {
    put(transaction, NODE_KEYS, &node.to_string(), ring).await
}

/// Removes what is stored of a deleted node.
pub(super) async fn forget(transaction: &mut Transaction, node: NodeId) -> Result<(), RegistryError> {
    transaction.delete_record(NODE_KEYS, &node.to_string()).await?;
    transaction.delete_record(ROTATIONS, &node.to_string()).await?;
    Ok(())
}

/// Every node's keys, as stored.
pub(super) async fn load_node_rings(store: &Store) -> Result<BTreeMap<NodeId, Ring<[u8; 32]>>, RegistryError> {
    let mut rings = BTreeMap::new();
    for (key, value) in store.records(NODE_KEYS).await? {
        if let Some(node) = key.parse().ok().and_then(NodeId::new) {
            rings.insert(node, decode(NODE_KEYS, &key, &value)?);
        }
    }
    Ok(rings)
}

/// The fleet keys, as stored.
pub(super) async fn load_fleet_ring(store: &Store, vault: &Vault) -> Result<Option<Ring<FleetKey>>, RegistryError> {
    let sealed = store.record(FLEET_KEYS, RING).await?;
    sealed.map(|sealed| opened(vault, &sealed)).transpose()
}

fn opened(vault: &Vault, sealed: &[u8]) -> Result<Ring<FleetKey>, RegistryError> {
    decode(FLEET_KEYS, RING, &vault.open(FLEET_KEYS, RING, sealed)?)
}

/// Reads a record as JSON.
pub(super) async fn get<T: DeserializeOwned>(
    transaction: &mut Transaction,
    space: &str,
    key: &str,
) -> Result<Option<T>, RegistryError> {
    let value = transaction.record(space, key).await?;
    value.map(|value| decode(space, key, &value)).transpose()
}

/// Writes a record as JSON.
pub(super) async fn put<T: Serialize>(
    transaction: &mut Transaction,
    space: &str,
    key: &str,
    value: &T,
) -> Result<(), RegistryError> {
    let bytes = serde_json::to_vec(value).map_err(|e| RegistryError::Record(format!("{space}/{key}"), e))?;
    Ok(transaction.put_record(space, key, &bytes).await?)
}

/// The JSON of a record.
pub(super) fn decode<T: DeserializeOwned>(space: &str, key: &str, value: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(value).map_err(|e| RegistryError::Record(format!("{space}/{key}"), e))
}
