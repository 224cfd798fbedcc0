//! The server's last state as it was sealed: in memory, on disk, and through deltas.
//!
//! Nothing becomes [`Held`] without a seal by the key that this node was enrolled with, over exactly these objects, for this
//! node and revision. Expiry is not a reason to stop enforcing: it is the outage budget, and it is reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::sync::{Delta, Object, SnapshotChunk};
use identity::ids::NodeId;
use identity::seal::{Seal, SealError, digest};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, DiskError};

const FILE: &str = "state";
const FLOOR: &str = "floor.json";
/// Most objects of one state; a server that sends more is broken or is none.
pub const OBJECTS_MAX: usize = 1 << 20;
/// Most bytes of keys and values of one state. ADR-0003 reckons with 50 MB at most.
pub const BYTES_MAX: usize = 128 << 20;

/// Whose seals are believed, and for which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// This node.
    pub node: NodeId,
    /// Ed25519, from the enrolment.
    pub key: [u8; 32],
}

/// A sealed state.
#[derive(Clone, Debug)]
pub struct Held {
    revision: u64,
    /// Shared by all copies of this state.
    objects: Arc<BTreeMap<String, Arc<[u8]>>>,
    seal: Seal,
}

/// Objects that differ from the state before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or different.
    pub put: Vec<(String, Arc<[u8]>)>,
    /// Gone.
    pub removed: Vec<String>,
}

/// Why a state is not believed. What is held stays.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The seal does not fit.
    #[error("the state is not the server's")]
    Seal(#[from] SealError),
    /// The last chunk or a delta came without one.
    #[error("the state has no seal")]
    Unsealed,
    /// Its revision is smaller than one that was held.
    #[error("the state is of revision {offered}, this node had {had} already")]
    Older {
        /// Of the offered state.
        offered: u64,
        /// The greatest held.
        had: u64,
    },
    /// Chunks or deltas do not follow one another.
    #[error("the state's pieces do not fit together: {0}")]
    Sequence(&'static str),
    /// More objects than [`OBJECTS_MAX`], or more bytes than [`BYTES_MAX`].
    #[error("the state has more than {OBJECTS_MAX} objects or {} MiB", BYTES_MAX >> 20)]
    TooLarge,
    /// The file cannot be read.
    #[error("the state on disk is damaged")]
    Damaged,
    /// The disk said no.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The greatest revision that was ever held.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Floor {
    revision: u64,
}

impl Held {
    /// The state on disk; `None` when there is none. Its revision must not be below the floor.
    pub fn load(disk: &Disk, trust: &Trust) -> Result<Option<Self>, StateError> {
        let Some(bytes) = disk.read(FILE)? else { return Ok(None) };
        let floor: Floor = disk.read_json(FLOOR)?.unwrap_or_default();
        let chunk = SnapshotChunk::decode(bytes.as_slice()).map_err(|_| StateError::Damaged)?;
        let objects = chunk.objects.into_iter().map(|object| (object.key, object.value.into())).collect();
        let held = Self::sealed(chunk.revision, objects, chunk.seal, trust)?;
        match held.revision < floor.revision {
            true => Err(StateError::Older { offered: held.revision, had: floor.revision }),
            false => Ok(Some(held)),
        }
    }

    /// The greatest revision that was ever held, from disk.
    pub fn floor(disk: &Disk) -> Result<u64, StateError> {
        Ok(disk.read_json::<Floor>(FLOOR)?.unwrap_or_default().revision)
    }

    /// Puts it on disk, floor first: a crash between the two is healed by the server's snapshot, never by an older state.
    pub fn save(&self, disk: &Disk) -> Result<(), StateError> {
        let object = |(key, value): (&String, &Arc<[u8]>)| Object { key: key.clone(), value: value.to_vec() };
        let seal = api::sync::Seal {
            expires_unix_s: self.seal.expires_unix_s,
            digest: self.seal.digest.to_vec(),
            signature: self.seal.signature.clone(),
        };
        let chunk = SnapshotChunk {
            revision: self.revision,
            index: 0,
            last: true,
            objects: self.objects.iter().map(object).collect(),
            seal: Some(seal),
        };
        disk.write(FILE, &chunk.encode_to_vec())?;
        disk.write_json(FLOOR, &Floor { revision: self.revision })?;
        Ok(())
    }

    fn sealed(
        revision: u64,
        objects: BTreeMap<String, Arc<[u8]>>,
        seal: Option<api::sync::Seal>,
        trust: &Trust,
    ) -> Result<Self, StateError> {
        if objects.len() > OBJECTS_MAX || size(&objects) > BYTES_MAX {
            return Err(StateError::TooLarge);
        }
        let seal = seal.ok_or(StateError::Unsealed)?;
        let seal = Seal::from_parts(seal.expires_unix_s, &seal.digest, &seal.signature)?;
        let digest = digest(objects.iter().map(|(key, value)| (key.as_str(), &value[..])));
        seal.check(&trust.key, trust.node, revision, &digest)?;
        Ok(Self { revision, objects: Arc::new(objects), seal })
    }

    /// Its revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Until when it may be used without a server, unix seconds.
    pub fn expires_unix_s(&self) -> i64 {
        self.seal.expires_unix_s
    }

    /// All objects.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.objects.iter().map(|(key, value)| (key.as_str(), &value[..]))
    }

    /// The state after a delta.
    pub fn after(&self, delta: Delta, trust: &Trust) -> Result<Self, StateError> {
        if delta.from_revision != self.revision || delta.to_revision < delta.from_revision {
            return Err(StateError::Sequence("a delta that does not start where this node is"));
        }
        let mut objects = BTreeMap::clone(&self.objects);
        delta.removed.iter().for_each(|key| drop(objects.remove(key)));
        objects.extend(delta.upserted.into_iter().map(|object| (object.key, object.value.into())));
        Self::sealed(delta.to_revision, objects, delta.seal, trust)
    }

    /// What turns `before` into this.
    pub fn changes_since(&self, before: Option<&Held>) -> Changes {
        let empty = BTreeMap::new();
        let before = before.map_or(&empty, |held| &*held.objects);
        let differs = |(key, value): &(&String, &Arc<[u8]>)| before.get(*key) != Some(*value);
        Changes {
            put: self.objects.iter().filter(differs).map(|(key, value)| (key.clone(), Arc::clone(value))).collect(),
            removed: before.keys().filter(|key| !self.objects.contains_key(*key)).cloned().collect(),
        }
    }
}

/// Puts a snapshot together from its chunks.
#[derive(Debug, Default)]
pub struct Assembly {
    revision: u64,
    next: u32,
    objects: BTreeMap<String, Arc<[u8]>>,
    /// Of keys and values, those of objects that were sent twice included.
    bytes: usize,
}

fn size(objects: &BTreeMap<String, Arc<[u8]>>) -> usize {
    objects.iter().map(|(key, value)| key.len() + value.len()).sum()
}

impl Assembly {
    /// Takes one chunk; the whole state after the last. Chunks of one snapshot come in order, starting with 0.
    pub fn take(&mut self, chunk: SnapshotChunk, trust: &Trust, had: u64) -> Result<Option<Held>, StateError> {
        if chunk.index == 0 {
            *self = Self { revision: chunk.revision, ..Self::default() };
        }
        if (chunk.revision, chunk.index) != (self.revision, self.next) {
            *self = Self::default();
            return Err(StateError::Sequence("a chunk out of order"));
        }
        if chunk.revision < had {
            return Err(StateError::Older { offered: chunk.revision, had });
        }
        self.next += 1;
        self.bytes += chunk.objects.iter().map(|object| object.key.len() + object.value.len()).sum::<usize>();
        self.objects.extend(chunk.objects.into_iter().map(|object| (object.key, object.value.into())));
        if self.objects.len() > OBJECTS_MAX || self.bytes > BYTES_MAX {
            *self = Self::default();
            return Err(StateError::TooLarge);
        }
        if !chunk.last {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Held::sealed(whole.revision, whole.objects, chunk.seal, trust).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::seal::SealKey;

    struct Server {
        key: SealKey,
        trust: Trust,
    }

    impl Server {
        fn new() -> Self {
            let (key, _) = SealKey::generate().expect("a key");
            let trust = Trust { node: NodeId::new(1).expect("in range"), key: key.public() };
            Self { key, trust }
        }

        fn seal(&self, revision: u64, objects: &[(&str, &[u8])]) -> api::sync::Seal {
            let expires = "2030-01-02T00:00:00Z".parse().expect("a time");
            let seal = self.key.seal(self.trust.node, revision, expires, digest(objects.iter().copied()));
            api::sync::Seal {
                expires_unix_s: seal.expires_unix_s,
                digest: seal.digest.to_vec(),
                signature: seal.signature,
            }
        }

        fn chunk(&self, revision: u64, objects: &[(&str, &[u8])]) -> SnapshotChunk {
            let seal = Some(self.seal(revision, objects));
            SnapshotChunk { revision, index: 0, last: true, objects: objects.iter().map(object).collect(), seal }
        }

        fn held(&self, revision: u64, objects: &[(&str, &[u8])]) -> Held {
            let whole = Assembly::default().take(self.chunk(revision, objects), &self.trust, 0);
            whole.expect("sealed").expect("last")
        }
    }

    fn object((key, value): &(&str, &[u8])) -> Object {
        Object { key: (*key).into(), value: value.to_vec() }
    }

    #[test]
    fn a_state_survives_a_restart_and_an_older_one_does_not_replace_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::open(dir.path()).expect("opened");
        let server = Server::new();
        server.held(6, &[("a", b"old")]).save(&disk).expect("saved");
        let old = disk.read(FILE).expect("read").expect("there");
        server.held(7, &[("a", b"1"), ("b", b"2")]).save(&disk).expect("saved");
        let loaded = Held::load(&disk, &server.trust).expect("trusted").expect("there");
        assert_eq!((loaded.revision(), loaded.objects().count()), (7, 2));
        disk.write(FILE, &old).expect("put back");
        assert!(matches!(Held::load(&disk, &server.trust), Err(StateError::Older { offered: 6, had: 7 })));
        let offered = Assembly::default().take(server.chunk(6, &[]), &server.trust, Held::floor(&disk).expect("read"));
        assert!(matches!(offered, Err(StateError::Older { .. })));
    }

    #[test]
    fn a_state_that_somebody_touched_is_not_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::open(dir.path()).expect("opened");
        let server = Server::new();
        server.held(7, &[("policy//a:x", b"deny")]).save(&disk).expect("saved");
        let mut chunk = SnapshotChunk::decode(&*disk.read(FILE).expect("read").expect("there")).expect("decodes");
        chunk.objects[0].value = b"allow".to_vec();
        disk.write(FILE, &chunk.encode_to_vec()).expect("written");
        assert!(matches!(Held::load(&disk, &server.trust), Err(StateError::Seal(SealError::Digest))));
        let other = Trust { node: NodeId::new(2).expect("in range"), ..server.trust };
        let chunk = server.chunk(7, &[]);
        assert!(matches!(Assembly::default().take(chunk, &other, 0), Err(StateError::Seal(SealError::Signature))));
    }

    #[test]
    fn deltas_follow_one_another_and_are_sealed_by_their_result() {
        let server = Server::new();
        let held = server.held(7, &[("a", b"1"), ("b", b"2")]);
        let delta = |from, to, seal| Delta {
            from_revision: from,
            to_revision: to,
            upserted: vec![object(&("c", b"3"))],
            removed: vec!["a".into()],
            seal: Some(seal),
        };
        let result: &[(&str, &[u8])] = &[("b", b"2"), ("c", b"3")];
        let after = held.after(delta(7, 9, server.seal(9, result)), &server.trust).expect("follows");
        let changes = after.changes_since(Some(&held));
        assert_eq!((after.revision(), changes.put.len(), changes.removed.len()), (9, 1, 1));
        assert!(held.after(delta(8, 9, server.seal(9, result)), &server.trust).is_err(), "a gap");
        assert!(held.after(delta(7, 9, server.seal(9, &[("b", b"2")])), &server.trust).is_err(), "another result");
    }

    #[test]
    fn a_snapshot_without_end_is_given_up() {
        let server = Server::new();
        let mut assembly = Assembly::default();
        let value = vec![0; 8 << 20];
        let refused = (0..100).find_map(|index| {
            let object = Object { key: format!("policy//a:{index}"), value: value.clone() };
            let chunk = SnapshotChunk { revision: 3, index, objects: vec![object], ..Default::default() };
            assembly.take(chunk, &server.trust, 0).err().map(|error| (index, error))
        });
        assert!(matches!(refused, Some((15, StateError::TooLarge))), "{refused:?}");
        assert!(assembly.objects.is_empty(), "what came is dropped");
    }

    #[test]
    fn chunks_out_of_order_are_refused() {
        let server = Server::new();
        let mut assembly = Assembly::default();
        let chunk = |index| SnapshotChunk { revision: 3, index, ..Default::default() };
        assert!(assembly.take(chunk(0), &server.trust, 0).expect("first").is_none());
        assert!(matches!(assembly.take(chunk(2), &server.trust, 0), Err(StateError::Sequence(_))));
    }
}
