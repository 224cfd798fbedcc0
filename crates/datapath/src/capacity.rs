//! How much the maps hold. Sizes are fixed when the maps are made; a takeover keeps the sizes it finds.

/// Sizes of the maps that a state fills, in entries. A state that does not fit is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Workloads of this node, at most 65,535.
    pub locals: u32,
    /// cgroup directories of those.
    pub cgroups: u32,
    /// Workloads that may be met.
    pub peers: u32,
    /// Nodes with keys.
    pub nodes: u32,
    /// Addresses with and without port.
    pub places: u32,
    /// Members of Services.
    pub members: u32,
    /// Cells of the denial counters.
    pub denials: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            locals: 4096,
            cgroups: 16_384,
            peers: 262_144,
            nodes: 16_384,
            places: 262_144,
            members: 262_144,
            denials: 16_384,
        }
    }
}

/// One map as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// The map's name.
    pub name: &'static str,
    /// Entries it can hold.
    pub capacity: u32,
    /// Entries it holds; `None` where counting makes no sense (rings, caches, arrays).
    pub used: Option<u32>,
    /// Bytes per entry, key and value.
    pub entry_bytes: u32,
}

impl Capacity {
    /// The maps whose size is chosen here.
    pub(crate) fn of_maps(&self) -> [(&'static str, u32); 7] {
        [
            ("locals", self.locals),
            ("workloads", self.cgroups),
            ("peers", self.peers),
            ("nodes", self.nodes),
            ("places", self.places),
            ("members", self.members),
            ("denials", self.denials),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use libbpf_rs::{AsRawLibbpf as _, libbpf_sys};

    use super::*;
    use crate::object::core_object;

    /// One map as the loader would make it.
    struct Made {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        /// Entries take memory only while they are in use.
        lazily: bool,
    }

    /// Every map of the object, with the default sizes.
    fn made() -> BTreeMap<String, Made> {
        let object = core_object().expect("the object opens");
        let sizes = Capacity::default().of_maps();
        object
            .maps()
            .filter(|map| !map.name().to_string_lossy().contains('.'))
            .map(|map| {
                let name = map.name().to_string_lossy().into_owned();
                let raw = map.as_libbpf_object().as_ptr();
                // SAFETY: a map of an object that lives through this closure; the calls only read.
                let (kind, key, value, declared, flags) = unsafe {
                    (
                        libbpf_sys::bpf_map__type(raw),
                        libbpf_sys::bpf_map__key_size(raw),
                        libbpf_sys::bpf_map__value_size(raw),
                        libbpf_sys::bpf_map__max_entries(raw),
                        libbpf_sys::bpf_map__map_flags(raw),
                    )
                };
                let entries = sizes.iter().find(|(of, _)| *of == name).map_or(declared, |(_, size)| *size);
                (name, Made { kind, key, value, entries, lazily: flags & libbpf_sys::BPF_F_NO_PREALLOC != 0 })
            })
            .collect()
    }

    /// Bytes that a map takes: always, and with every entry in use. Kernel 6.18, 64 bits; per-processor maps for one processor.
    fn bytes(map: &Made) -> Option<(u64, u64)> {
        let round = |size: u32| u64::from(size).next_multiple_of(8);
        let entries = u64::from(map.entries);
        // An element's head is 48 bytes, a bucket 16.
        let (buckets, element) =
            (u64::from(map.entries.next_power_of_two()) * 16, 48 + round(map.key) + round(map.value));
        match map.kind {
            libbpf_sys::BPF_MAP_TYPE_ARRAY | libbpf_sys::BPF_MAP_TYPE_PERCPU_ARRAY => {
                Some((entries * round(map.value), entries * round(map.value)))
            }
            libbpf_sys::BPF_MAP_TYPE_HASH | libbpf_sys::BPF_MAP_TYPE_LRU_HASH => {
                Some((buckets + if map.lazily { 0 } else { entries * element }, buckets + entries * element))
            }
            libbpf_sys::BPF_MAP_TYPE_RINGBUF => Some((entries, entries)),
            _ => None,
        }
    }

    fn size(bytes: u64) -> String {
        match bytes {
            0..1024 => format!("{bytes} B"),
            1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
            _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        }
    }

    fn row(name: &str, map: &Made) -> String {
        let entries =
            if map.kind == libbpf_sys::BPF_MAP_TYPE_RINGBUF { "-".to_owned() } else { map.entries.to_string() };
        let (always, full) = match bytes(map) {
            Some((always, full)) => (size(always), size(full)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        format!("| `{name}` | {} | {} | {entries} | {always} | {full} |", map.key, map.value)
    }

    #[test]
    fn the_page_of_capacities_lists_every_map_as_it_is_made() {
        let page = include_str!("../../../docs/capacity.md");
        let made = made();
        for (name, map) in &made {
            let row = row(name, map);
            assert!(page.contains(&row), "docs/capacity.md lacks\n{row}");
        }
        let listed: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let known: Vec<&str> = listed.iter().copied().filter(|name| made.contains_key(*name)).collect();
        assert_eq!(listed, known, "docs/capacity.md lists a map that does not exist");
    }
}
