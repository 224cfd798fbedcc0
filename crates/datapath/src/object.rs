//! The compiled kernel programs, embedded, and how they become a loaded object.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapHandle, Object, ObjectBuilder, OpenObject};

use crate::capacity::Capacity;
use crate::feature::Feature;

/// ELF files are read in place, so they must be aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static CORE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/stolos.bpf.o")));
static SWEEP: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sweep.bpf.o")));
static REPAIR: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/repair.bpf.o")));

const FEATURES_SECTION: &str = ".rodata.features";

/// Why the kernel programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The embedded object could not be read: a broken build.
    #[error("the embedded kernel programs cannot be read")]
    Open(#[source] libbpf_rs::Error),
    /// A map that is pinned already has another layout.
    #[error("the pinned map {path} has another layout; detach the older version first")]
    Layout {
        /// The pinned map.
        path: PathBuf,
        /// Why.
        #[source]
        source: libbpf_rs::Error,
    },
    /// A map's size could not be set.
    #[error("the size of map {map} cannot be set")]
    Size {
        /// The map.
        map: String,
        /// Why.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The kernel refused the programs.
    #[error("the kernel refused the programs (root, BTF and Linux 5.15 or newer are needed)")]
    Kernel(#[source] libbpf_rs::Error),
}

fn open(bytes: &'static [u8]) -> Result<OpenObject, LoadError> {
    ObjectBuilder::default().open_memory(bytes).map_err(LoadError::Open)
}

/// The core object, opened but not loaded.
#[cfg(test)]
pub(crate) fn core_object() -> Result<OpenObject, LoadError> {
    open(&CORE.0)
}

/// Where a map is pinned.
pub(crate) fn map_path(maps: &Path, name: &str) -> PathBuf {
    maps.join(name)
}

/// Maps that stay pinned: all but libbpf's own (read-only data) and the templates of inner maps.
pub(crate) fn is_pinned(name: &str) -> bool {
    !name.contains('.') && !name.ends_with("_empty")
}

/// Loads the core programs: pinned maps are taken over as they are, others are made with these sizes.
pub(crate) fn load_core(maps: &Path, capacity: &Capacity, features: &BTreeSet<Feature>) -> Result<Object, LoadError> {
    let mut object = open(&CORE.0)?;
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if name == FEATURES_SECTION
            && let Some(bytes) = map.initial_value_mut()
        {
            bytes[0] = features.contains(&Feature::ErrnoFromConnect).into();
        }
        let path = map_path(maps, &name);
        if is_pinned(&name) && path.exists() {
            map.reuse_pinned_map(&path).map_err(|source| LoadError::Layout { path, source })?;
            continue;
        }
        if let Some((_, size)) = capacity.of_maps().iter().find(|(of, _)| *of == name) {
            map.set_max_entries(*size).map_err(|source| LoadError::Size { map: name, source })?;
        }
    }
    object.load().map_err(LoadError::Kernel)
}

/// Loads the programs of an optional feature on the maps that are pinned already. The error says why the kernel has it not.
pub(crate) fn load_optional(feature: Feature, maps: &Path) -> Result<Object, LoadError> {
    let bytes = match feature {
        Feature::SocketDestroy => &SWEEP.0,
        Feature::ListenerRepair => &REPAIR.0,
        Feature::ErrnoFromConnect => panic!("BUG: this feature has no object"),
    };
    let mut object = open(bytes)?;
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if is_pinned(&name) {
            let path = map_path(maps, &name);
            map.reuse_pinned_map(&path).map_err(|source| LoadError::Layout { path, source })?;
        }
    }
    object.load().map_err(LoadError::Kernel)
}

/// A handle of a map of the object, independent of the object's life.
pub(crate) fn handle(object: &Object, name: &str) -> Result<MapHandle, LoadError> {
    let map = object.maps().find(|map| map.name() == name).unwrap_or_else(|| panic!("BUG: no map {name}"));
    MapHandle::try_from(&map).map_err(LoadError::Kernel)
}
