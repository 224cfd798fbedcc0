//! Writes maps: in place with a way back, or fresh ones for a bank.

use std::collections::BTreeMap;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use crate::abi::Plain;

/// A map refused a write. Nothing of the state it belongs to is live.
#[derive(Debug, thiserror::Error)]
#[error("map {map} (capacity {capacity}) refused an entry")]
pub struct WriteError {
    /// The map.
    pub map: String,
    /// Its capacity in entries.
    pub capacity: u32,
    /// The kernel's answer.
    #[source]
    pub source: libbpf_rs::Error,
}

fn refused(map: &MapHandle) -> impl Fn(libbpf_rs::Error) -> WriteError + '_ {
    |source| WriteError { map: map.name().to_string_lossy().into_owned(), capacity: map.max_entries(), source }
}

/// Every entry of a map. Keys or values of another size are left out: they are not of this version.
pub(crate) fn read_all<K: Plain + Ord, V: Plain>(map: &MapHandle) -> BTreeMap<K, V> {
    map.keys()
        .filter_map(|key| {
            let value = map.lookup(&key, MapFlags::ANY).ok().flatten()?;
            Some((K::read(&key)?, V::read(&value)?))
        })
        .collect()
}

/// What an in-place change did and how to take it back.
#[derive(Default)]
pub(crate) struct Undo<'m>(Vec<Box<dyn FnOnce() + 'm>>);

impl Undo<'_> {
    /// Takes everything back, the last write first. Failures leave additions behind, which later states overwrite or remove.
    pub(crate) fn run(self) {
        self.0.into_iter().rev().for_each(|step| step());
    }
}

/// Adds and replaces what `new` has and `old` has not; removals come later (`remove_absent`).
pub(crate) fn upsert<'m, K: Plain + Ord + 'm, V: Plain + PartialEq + 'm>(
    map: &'m MapHandle,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    undo: &mut Undo<'m>,
) -> Result<(), WriteError> {
    for (&key, value) in new {
        let before = old.get(&key).copied();
        if before == Some(*value) {
            continue;
        }
        map.update(key.bytes(), value.bytes(), MapFlags::ANY).map_err(refused(map))?;
        undo.0.push(Box::new(move || {
            let _ = match before {
                Some(before) => map.update(key.bytes(), before.bytes(), MapFlags::ANY),
                None => map.delete(key.bytes()),
            };
        }));
    }
    Ok(())
}

/// Removes what `old` has and `new` has not. An entry that is gone already is fine.
pub(crate) fn remove_absent<K: Plain + Ord, V: Plain>(map: &MapHandle, old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) {
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        let _ = map.delete(key.bytes());
    }
}

/// A fresh inner map with these entries, put into `outer` at `bank`.
pub(crate) fn fill_bank<'e, K: Plain + 'e, V: Plain + 'e>(
    outer: &MapHandle,
    bank: u32,
    shape: Shape,
    entries: impl ExactSizeIterator<Item = (&'e K, &'e V)>,
) -> Result<(), WriteError> {
    let count = entries.len() as u32;
    let options = libbpf_sys::bpf_map_create_opts {
        sz: std::mem::size_of::<libbpf_sys::bpf_map_create_opts>() as _,
        map_flags: shape.flags,
        ..Default::default()
    };
    let (key_size, value_size) = (std::mem::size_of::<K>() as u32, std::mem::size_of::<V>() as u32);
    let inner = MapHandle::create(shape.kind, Some(shape.name), key_size, value_size, count.max(1), &options)
        .map_err(refused(outer))?;
    if shape.kind == MapType::LpmTrie {
        for (key, value) in entries {
            inner.update(key.bytes(), value.bytes(), MapFlags::ANY).map_err(refused(&inner))?;
        }
    } else if count > 0 {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            keys.extend_from_slice(key.bytes());
            values.extend_from_slice(value.bytes());
        }
        inner.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY).map_err(refused(&inner))?;
    }
    use std::os::fd::{AsFd, AsRawFd};
    let fd = inner.as_fd().as_raw_fd() as u32;
    outer.update(bank.bytes(), fd.bytes(), MapFlags::ANY).map_err(refused(outer))
}

/// The template of an inner map; kind, sizes and flags must equal those in `bpf/maps.h`.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) kind: MapType,
    pub(crate) flags: u32,
}

impl Shape {
    pub(crate) const VERDICTS: Shape =
        Shape { name: "verdicts_bank", kind: MapType::Hash, flags: libbpf_sys::BPF_F_NO_PREALLOC };
    pub(crate) const PORTS: Shape =
        Shape { name: "ports_bank", kind: MapType::Array, flags: libbpf_sys::BPF_F_INNER_MAP };
    pub(crate) const NETWORKS: Shape =
        Shape { name: "networks_bank", kind: MapType::LpmTrie, flags: libbpf_sys::BPF_F_NO_PREALLOC };
}
