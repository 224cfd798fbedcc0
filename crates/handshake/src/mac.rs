//! SipHash-2-4 and the three MAC inputs, to the byte.
//!
//! Owns what is under a MAC and in which order. Which key is used, and who may say what, is the model's business.

use identity::ids::{Instance, WorkloadRef};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::option::{Fields, Tag};
use crate::time::T;

/// Bytes under a SYN's MAC.
pub const SYN_INPUT: usize = 24;
/// Bytes under a SYN-ACK's or ACK's MAC.
pub const PAIR_INPUT: usize = 56;

/// A 128-bit SipHash key for one direction, or the fleet's. Zeroized when dropped; Debug shows no byte.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MacKey([u8; 16]);

impl MacKey {
    /// A key from its bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the kernel's key map.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The tag of a message: SipHash-2-4's output bytes in the order of the reference implementation.
    pub fn tag(&self, message: &[u8]) -> Tag {
        Tag(siphash24(&self.0, message).to_le_bytes())
    }

    /// Compares in constant time.
    pub fn verifies(&self, message: &[u8], tag: Tag) -> bool {
        siphash24(&self.0, message) ^ u64::from_le_bytes(tag.0) == 0
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// Both initial sequence numbers of a connection, host order: its name under the MACs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isns {
    /// The client's.
    pub client: u32,
    /// The server's.
    pub server: u32,
}

/// The receiver of a SYN-ACK or ACK, and both ends' instances: what the option itself does not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Whom the message is for.
    pub to: WorkloadRef,
    /// U of the sender, from the verifier's own table.
    pub from_instance: Instance,
    /// U of the receiver.
    pub to_instance: Instance,
}

/// What a SYN's MAC covers: `O ‖ ISN_c ‖ T`.
pub fn syn_input(fields: &Fields, isn_client: u32, t: T) -> [u8; SYN_INPUT] {
    let mut input = [0; SYN_INPUT];
    input[0..12].copy_from_slice(&fields.to_covered());
    input[12..16].copy_from_slice(&isn_client.to_be_bytes());
    input[16..24].copy_from_slice(&t.0.to_be_bytes());
    input
}

/// What a SYN-ACK's or ACK's MAC covers: `O ‖ ISN_c ‖ ISN_s ‖ T ‖ node slot 0(3) of the receiver ‖ U_from ‖ U_to ‖ 0(4)`.
pub fn pair_input(fields: &Fields, isns: Isns, t: T, ends: &Ends) -> [u8; PAIR_INPUT] {
    let mut input = [0; PAIR_INPUT];
    input[0..12].copy_from_slice(&fields.to_covered());
    input[12..16].copy_from_slice(&isns.client.to_be_bytes());
    input[16..20].copy_from_slice(&isns.server.to_be_bytes());
    input[20..28].copy_from_slice(&t.0.to_be_bytes());
    input[28..31].copy_from_slice(&ends.to.node.get().to_be_bytes()[1..]);
    input[31..33].copy_from_slice(&ends.to.slot.0.to_be_bytes());
    input[36..44].copy_from_slice(&ends.from_instance.0.to_be_bytes());
    input[44..52].copy_from_slice(&ends.to_instance.0.to_be_bytes());
    input
}

/// SipHash-2-4 (Aumasson, Bernstein 2012) with a 64-bit result.
pub fn siphash24(key: &[u8; 16], message: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(padded)
    };
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let blocks = message.chunks_exact(8);
    let last = word(blocks.remainder()) | (message.len() as u64) << 56;
    for m in blocks.map(word).chain([last]) {
        v[3] ^= m;
        sip_round(&mut v);
        sip_round(&mut v);
        v[0] ^= m;
    }
    v[2] ^= 0xFF;
    for _ in 0..4 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementation's vectors.h: key 00..0f, message 00, 01, …; output bytes for lengths 0..=15 and 63.
    const OFFICIAL: [(usize, [u8; 8]); 17] = [
        (0, [0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72]),
        (1, [0xfd, 0x67, 0xdc, 0x93, 0xc5, 0x39, 0xf8, 0x74]),
        (2, [0x5a, 0x4f, 0xa9, 0xd9, 0x09, 0x80, 0x6c, 0x0d]),
        (3, [0x2d, 0x7e, 0xfb, 0xd7, 0x96, 0x66, 0x67, 0x85]),
        (4, [0xb7, 0x87, 0x71, 0x27, 0xe0, 0x94, 0x27, 0xcf]),
        (5, [0x8d, 0xa6, 0x99, 0xcd, 0x64, 0x55, 0x76, 0x18]),
        (6, [0xce, 0xe3, 0xfe, 0x58, 0x6e, 0x46, 0xc9, 0xcb]),
        (7, [0x37, 0xd1, 0x01, 0x8b, 0xf5, 0x00, 0x02, 0xab]),
        (8, [0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93]),
        (9, [0xb0, 0xe4, 0xa9, 0x0b, 0xdf, 0x82, 0x00, 0x9e]),
        (10, [0xf3, 0xb9, 0xdd, 0x94, 0xc5, 0xbb, 0x5d, 0x7a]),
        (11, [0xa7, 0xad, 0x6b, 0x22, 0x46, 0x2f, 0xb3, 0xf4]),
        (12, [0xfb, 0xe5, 0x0e, 0x86, 0xbc, 0x8f, 0x1e, 0x75]),
        (13, [0x90, 0x3d, 0x84, 0xc0, 0x27, 0x56, 0xea, 0x14]),
        (14, [0xee, 0xf2, 0x7a, 0x8e, 0x90, 0xca, 0x23, 0xf7]),
        (15, [0xe5, 0x45, 0xbe, 0x49, 0x61, 0xca, 0x29, 0xa1]),
        (63, [0x72, 0x45, 0x06, 0xeb, 0x4c, 0x32, 0x8a, 0x95]),
    ];

    #[test]
    fn siphash_gives_the_official_vectors() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        for (length, expect) in OFFICIAL {
            let message: Vec<u8> = (0..length as u8).collect();
            assert_eq!(MacKey::new(key).tag(&message), Tag(expect), "length {length}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", MacKey::new([0x41; 16])), "MacKey(…)");
    }
}
