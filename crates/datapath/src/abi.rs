//! What the kernel programs and the loader share, to the byte: the twin of `bpf/abi.h`.
//!
//! Only layouts and numbers; what they mean stands in the header. A test compares every field with the compiled object's BTF.

use std::mem::size_of;
use std::net::IpAddr;

/// Values that may be handed to the kernel and read back as bytes.
///
/// # Safety
/// `#[repr(C)]`, no padding bytes, and every bit pattern is valid.
pub(crate) unsafe trait Plain: Copy + Default {
    /// The value's bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: `Plain` promises a type without padding; the slice covers exactly the value and borrows it.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// The value of as many bytes; `None` when the length differs.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, every bit pattern is valid (`Plain`), and the read needs no alignment.
        Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

macro_rules! plain {
    ($($(#[$meta:meta])* $name:ident = $size:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub(crate) struct $name { $(pub(crate) $field: $type,)* }
            // SAFETY: repr(C), integers and arrays only; the assertion below shows that the fields fill the whole size.
            unsafe impl Plain for $name {}
            const _: () = assert!(size_of::<$name>() == $size);
            const _: () = assert!(0 $(+ size_of::<$type>())* == $size, "no padding");
        )*

        /// Every struct's fields with their offsets and sizes, for the comparison with BTF.
        #[cfg(test)]
        pub(crate) fn layouts() -> Vec<(&'static str, usize, Vec<(&'static str, usize)>)> {
            vec![$((
                stringify!($name),
                size_of::<$name>(),
                vec![$((stringify!($field), std::mem::offset_of!($name, $field)),)*],
            ),)*]
        }
    };
}

/// An address: 16 bytes, IPv4 as ::ffff:a.b.c.d.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Addr(pub(crate) [u8; 16]);

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        IpAddr::from(address.0).to_canonical()
    }
}

plain! {
    Key = 16 { k0: [u8; 8], k1: [u8; 8], }
    Config = 128 {
        live: u64, clock_offset_ns: i64, secret: [u64; 2], fleet: [Key; 4], node: u32, host: u32,
        fleet_valid: u8, fleet_generation: u8, own_generation: u8, marked: u8, end_older: u8, pad: [u8; 3],
        answered_ns: u64, port_places: u64,
    }
    Local = 24 { instance: u64, class: [u32; 2], generation: u16, slot: u16, flags: u32, }
    Peer = 24 { instance: u64, class: [u32; 2], flags: u32, pad: u32, }
    Pair = 32 { tx: Key, rx: Key, }
    NodeKeys = 520 { own_generation: u8, peer_generation: u8, valid: u16, pad: u32, pairs: [Pair; 16], }
    PlaceKey = 24 { addr: Addr, port: u16, proto: u8, pad: u8, pad2: u32, }
    Place = 24 { r#ref: u64, class: [u32; 2], real_port: u16, kind: u8, claimed_udp: u8, pad: u32, }
    MemberKey = 16 { r#ref: u64, service: u32, pad: u32, }
    Verdict = 8 { rule: u32, flags: u8, reason: u8, pad: u16, }
    VerdictKey = 12 { local: u32, peer: u32, direction: u32, }
    VerdictSet = 16 { otherwise: Verdict, ports: u32, pad: u32, }
    PortRange = 16 { first: u16, last: u16, proto: u8, pad: [u8; 3], verdict: Verdict, }
    PortSet = 520 { count: u32, pad: u32, ranges: [PortRange; RANGES_MAX], }
    NetworkKey = 20 { prefix_len: u32, addr: [u8; 16], }
    Network = 8 { class: u32, flags: u32, }
    DenialKey = 24 {
        peer: u64, rule: u32, stamp: u32, port: u16, proto: u8, direction: u8, reason: u8, would: u8, proof: u8, pad: u8,
    }
    SockState = 104 {
        live: u64, stamp_live: u64, peer: u64, peer_instance: u64, verified: u64, asked_ns: u64,
        stamp: u32, peer_class: u32, client_isn: u32, server_isn: u32, rule: u32, port: u16, role: u8, proof: u8,
        reason: u8, would_allow: u8, told: u8, flags: u8, peer_flags: u8, option_t: u8, option_made: u8, opened: u8,
        option: [u8; 20], generations: u8, pad: [u8; 3],
    }
    Swept = 72 {
        peer: u64, cookie: u64, remote: Addr, local: Addr, stamp: u32, rule: u32, remote_port: u16, local_port: u16,
        reason: u8, proof: u8, direction: u8, destroyed: u8, device: u32, pad: u32,
    }
    Listener = 24 { local: Addr, stamp: u32, port: u16, labels: u8, repaired: u8, }
    Event = 112 {
        boot_ns: u64, netns: u64, peer: u64, bytes_in: u64, bytes_out: u64, remote: Addr, local: Addr,
        client_isn: u32, server_isn: u32, stamp: u32, class: u32, rule: u32,
        remote_port: u16, local_port: u16, port: u16,
        kind: u8, flags: u8, reason: u8, direction: u8, proof: u8, proto: u8, verdict: u8, generations: u8, pad: u16, pad2: u32,
    }
}

// SAFETY: an integer has no padding and every bit pattern is valid.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// Of a peer that a bank does not know (rule 11). No state uses it as a class.
pub(crate) const CLASS_NONE: u32 = 0x7FFF_FFFF;
pub(crate) const RANGES_MAX: usize = 32;
pub(crate) const REASONS: usize = 64;
pub(crate) const STAGES: usize = 32;

pub(crate) const LOCAL_VALID: u32 = 1;
pub(crate) const LOCAL_ENFORCE: u32 = 2;
pub(crate) const LOCAL_REVOKED: u32 = 4;
pub(crate) const LOCAL_HOST: u32 = 8;
pub(crate) const LOCAL_PLACED: u32 = 16;
pub(crate) const PEER_REVOKED: u32 = 1;
pub(crate) const VERDICT_ALLOW: u8 = 1;
pub(crate) const VERDICT_WOULD_ALLOW: u8 = 2;
pub(crate) const PLACE_NODE: u8 = 1;
pub(crate) const PLACE_WORKLOAD: u8 = 2;
pub(crate) const PLACE_SERVICE: u8 = 3;
pub(crate) const PLACE_DECLARED: u8 = 4;
pub(crate) const CLAIMED_UDP: u32 = 0x8000_0000;
pub(crate) const NETWORK_CLASS: u32 = 1;
pub(crate) const NETWORK_FLEET: u32 = 2;
pub(crate) const NETWORK_SCOPE: u32 = 4;
pub(crate) const PROOF_PROVED: u8 = 1;
pub(crate) const PROOF_CLAIMED: u8 = 2;
pub(crate) const PROOF_EXTERNAL: u8 = 3;
pub(crate) const PROOF_OLDER: u8 = 4;
pub(crate) const PROOF_HOME: u8 = 5;
pub(crate) const EVENT_OPEN: u8 = 1;
pub(crate) const EVENT_CLOSE: u8 = 2;
pub(crate) const EVENT_REFUSED: u8 = 3;
pub(crate) const EVENT_UNKNOWN: u8 = 4;
pub(crate) const EVENT_WOULD: u8 = 1;
pub(crate) const EVENT_RESET: u8 = 2;
pub(crate) const EVENT_EARLY: u8 = 4;
pub(crate) const EVENT_CUT: u8 = 8;
pub(crate) const ROLE_EXEMPT: u8 = 6;
pub(crate) const WALK_REPAIRED: u8 = 1;
pub(crate) const WALK_REPAIRS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// The C names of the structs, by the Rust ones.
    const NAMES: [(&str, &str); 21] = [
        ("Key", "key128"),
        ("Config", "config"),
        ("Local", "local"),
        ("Peer", "peer"),
        ("Pair", "pair"),
        ("NodeKeys", "node_keys"),
        ("PlaceKey", "place_key"),
        ("Place", "place"),
        ("MemberKey", "member_key"),
        ("Verdict", "verdict"),
        ("VerdictKey", "verdict_key"),
        ("VerdictSet", "verdict_set"),
        ("PortRange", "port_range"),
        ("PortSet", "port_set"),
        ("NetworkKey", "network_key"),
        ("Network", "network"),
        ("DenialKey", "denial_key"),
        ("SockState", "sock_state"),
        ("Swept", "swept"),
        ("Listener", "listener"),
        ("Event", "event"),
    ];

    #[test]
    fn layouts_equal_those_of_the_compiled_object() {
        use libbpf_rs::HasSize;
        use libbpf_rs::btf::{Btf, types::MemberAttr, types::Struct};

        let core = Btf::from_path(concat!(env!("OUT_DIR"), "/stolos.bpf.o")).expect("the object has BTF");
        let sweep = Btf::from_path(concat!(env!("OUT_DIR"), "/sweep.bpf.o")).expect("the object has BTF");
        for (rust, size, fields) in layouts() {
            let c = NAMES.iter().find(|(name, _)| *name == rust).unwrap_or_else(|| panic!("{rust} has no C name")).1;
            let of_c: Struct<'_> = core
                .type_by_name(c)
                .or_else(|| sweep.type_by_name(c))
                .unwrap_or_else(|| panic!("no struct {c} in BTF"));
            assert_eq!(of_c.size(), size, "{rust}");
            let members: Vec<(String, usize)> = of_c
                .iter()
                .map(|member| {
                    let MemberAttr::Normal { offset } = member.attr else { panic!("{c} has a bit field") };
                    (member.name.expect("named").to_string_lossy().into_owned(), offset as usize / 8)
                })
                .collect();
            let fields: Vec<_> =
                fields.iter().map(|(name, offset)| (name.trim_start_matches("r#").to_owned(), *offset)).collect();
            assert_eq!(members, fields, "{rust} and struct {c}");
        }
    }

    fn defines() -> std::collections::BTreeMap<&'static str, u64> {
        include_str!("../bpf/abi.h")
            .lines()
            .filter_map(|line| {
                let mut words = line.strip_prefix("#define ")?.split_whitespace();
                let (name, value) = (words.next()?, words.next()?.trim_end_matches('U'));
                let value = match value.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(hex, 16).ok()?,
                    None => value.parse().ok()?,
                };
                Some((name, value))
            })
            .collect()
    }

    #[test]
    fn reasons_and_stages_have_the_same_numbers_in_c() {
        use crate::count::Stage;
        use policy::reason::Reason;

        let defines = defines();
        let of = |prefix: char| defines.iter().filter(move |(name, _)| name.starts_with(&format!("{prefix}_"))).count();
        let c_name = |prefix: char, debug: String| {
            let mut name = prefix.to_string();
            for letter in debug.chars() {
                if letter.is_uppercase() {
                    name.push('_');
                }
                name.extend(letter.to_uppercase());
            }
            name.replace("SYN_ACK", "SYNACK")
        };
        for reason in Reason::ALL {
            let name = c_name('R', format!("{reason:?}"));
            assert_eq!(defines.get(name.as_str()), Some(&(*reason as u64)), "{name}");
        }
        assert_eq!(of('R'), Reason::ALL.len());
        for stage in Stage::ALL {
            let name = c_name('S', format!("{stage:?}"));
            assert_eq!(defines.get(name.as_str()), Some(&(*stage as u64)), "{name}");
        }
        assert_eq!(of('S'), Stage::ALL.len() + 1, "all stages, and S_STAGES");
        assert_eq!(defines["S_STAGES"], STAGES as u64);
        assert_eq!(defines["REASONS"], REASONS as u64);
        assert_eq!(defines["CLASS_NONE"], u64::from(CLASS_NONE));
        assert_eq!(defines["RANGES_MAX"], RANGES_MAX as u64);
        assert_eq!(defines["OPTION_EXID"], u64::from(handshake::option::EXID));
    }
}
