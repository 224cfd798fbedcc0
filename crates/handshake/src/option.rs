//! The identity option: 20 bytes of TCP option space in SYN, SYN-ACK and ACK.
//!
//! Owns the bytes and nothing else: no keys, no verdicts. Everything here reads hostile bytes.

use identity::ids::{NodeId, Slot, WorkloadRef};

/// TCP option kind 253, shared by experiments (RFC 6994).
pub const KIND: u8 = 253;
/// Length of the whole option: exactly what a Linux SYN with timestamps leaves free.
pub const LENGTH: usize = 20;
/// Bytes of the option that the MAC covers: all before the MAC itself.
pub const COVERED: usize = 12;
/// The experiment id that tells our options from other experiments': "ST".
pub const EXID: u16 = 0x5354;
/// The version this code speaks. 0 is never sent, so that a zeroed option is never ours.
pub const VERSION: u8 = 1;

/// Which of the three messages an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Message {
    /// The client's claim under the fleet key.
    Syn = 1,
    /// The server's proof under the pair key.
    SynAck = 2,
    /// The client's proof under the pair key.
    Ack = 3,
}

/// A key's generation, 0..=3: two bits on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u8);

impl Generation {
    /// How many generations exist.
    pub const COUNT: usize = 4;

    /// `None` for values over 3.
    pub const fn new(value: u8) -> Option<Self> {
        if value < Self::COUNT as u8 { Some(Self(value)) } else { None }
    }

    const fn low_bits(value: u8) -> Self {
        Self(value & 0b11)
    }

    /// The number as it stands on the wire.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The one after it, 3 being followed by 0.
    pub const fn next(self) -> Self {
        Self::low_bits(self.0 + 1)
    }
}

/// What a side says about TLS on this connection: four bits. They count only once echoed under the pair key (rule 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// The side could speak TLS here.
    pub const CAN_TLS: Flags = Flags(0b1000);
    /// The side prefers TLS here.
    pub const WANTS_TLS: Flags = Flags(0b0100);
    /// The side refuses the connection without TLS.
    pub const DEMANDS_TLS: Flags = Flags(0b0010);
    /// Sent as 0; echoed as received.
    pub const RESERVED: Flags = Flags(0b0001);

    /// The low four bits of `value`.
    pub const fn low_bits(value: u8) -> Self {
        Self(value & 0x0F)
    }

    /// The four bits.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Both sides' bits together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// SipHash-2-4's eight output bytes, in the order of its reference implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub [u8; 8]);

/// The fields before the MAC: what a side says.
///
/// Source: docs/wire.md section 1. In a SYN `peer_generation` is the fleet key's generation and `echo` is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Which message.
    pub message: Message,
    /// The generation of the sender's own node key.
    pub own_generation: Generation,
    /// The generation of the receiver's node key; in a SYN that of the fleet key.
    pub peer_generation: Generation,
    /// The other side's flags as received; none in a SYN.
    pub echo: Flags,
    /// The sender's flags.
    pub flags: Flags,
    /// The low eight bits of T.
    pub t8: u8,
    /// Who speaks.
    pub from: WorkloadRef,
}

impl Fields {
    /// The twelve bytes that the MAC covers, as they stand on the wire.
    pub fn to_covered(&self) -> [u8; COVERED] {
        let node = self.from.node.get().to_be_bytes();
        let slot = self.from.slot.0.to_be_bytes();
        let exid = EXID.to_be_bytes();
        let kinds =
            VERSION << 6 | (self.message as u8) << 4 | self.own_generation.get() << 2 | self.peer_generation.get();
        [
            KIND,
            LENGTH as u8,
            exid[0],
            exid[1],
            kinds,
            self.echo.get() << 4 | self.flags.get(),
            self.t8,
            node[1],
            node[2],
            node[3],
            slot[0],
            slot[1],
        ]
    }

    /// The whole option with its tag.
    pub fn sealed(self, tag: Tag) -> IdentityOption {
        IdentityOption { fields: self, tag }
    }
}

/// A well-formed option. Well-formed is not verified: nothing in it is true yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityOption {
    /// What the sender says.
    pub fields: Fields,
    /// The MAC over it.
    pub tag: Tag,
}

/// Why bytes that carry our kind and experiment id are not an option of ours (rule 7: labelled and bad).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not [`LENGTH`] bytes.
    #[error("the option is {0} bytes long, not 20")]
    Length(usize),
    /// Another kind or experiment id.
    #[error("not an identity option")]
    Foreign,
    /// A version this code does not speak.
    #[error("unknown version {0}")]
    Version(u8),
    /// Type 0.
    #[error("unknown message type 0")]
    Message,
    /// Node 0 is nobody.
    #[error("node 0 is never assigned")]
    Node,
    /// A SYN echoes nothing.
    #[error("a SYN with echoed flags")]
    EchoInSyn,
    /// Two options of ours in one segment.
    #[error("the option stands twice in one segment")]
    Repeated,
    /// The option list itself runs over its end.
    #[error("the TCP option list is malformed")]
    List,
}

impl IdentityOption {
    /// Reads one option, kind and length bytes included.
    ///
    /// Errors: [`OptionError::Foreign`] when it is some other experiment's; everything else is ours and bad.
    pub fn parse(bytes: &[u8]) -> Result<Self, OptionError> {
        if bytes.len() < 4 || bytes[0] != KIND || bytes[2..4] != EXID.to_be_bytes() {
            return Err(OptionError::Foreign);
        }
        let Ok(b): Result<&[u8; LENGTH], _> = bytes.try_into() else { return Err(OptionError::Length(bytes.len())) };
        if b[1] as usize != LENGTH {
            return Err(OptionError::Length(b[1] as usize));
        }
        let version = b[4] >> 6;
        if version != VERSION {
            return Err(OptionError::Version(version));
        }
        let message = match b[4] >> 4 & 0b11 {
            1 => Message::Syn,
            2 => Message::SynAck,
            3 => Message::Ack,
            _ => return Err(OptionError::Message),
        };
        let node = NodeId::new(u32::from_be_bytes([0, b[7], b[8], b[9]])).ok_or(OptionError::Node)?;
        let echo = Flags::low_bits(b[5] >> 4);
        if message == Message::Syn && echo != Flags::NONE {
            return Err(OptionError::EchoInSyn);
        }
        let fields = Fields {
            message,
            own_generation: Generation::low_bits(b[4] >> 2),
            peer_generation: Generation::low_bits(b[4]),
            echo,
            flags: Flags::low_bits(b[5]),
            t8: b[6],
            from: WorkloadRef { node, slot: Slot(u16::from_be_bytes([b[10], b[11]])) },
        };
        Ok(fields.sealed(Tag([b[12], b[13], b[14], b[15], b[16], b[17], b[18], b[19]])))
    }

    /// The twenty bytes.
    pub fn to_bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..COVERED].copy_from_slice(&self.fields.to_covered());
        bytes[COVERED..].copy_from_slice(&self.tag.0);
        bytes
    }
}

/// Finds our option in a TCP header's option bytes (those after the first 20, at most 40).
///
/// `Ok(None)`: the segment is unlabelled. Other experiments under kind 253 are stepped over.
///
/// Errors: [`OptionError::List`] when an option's length is 0, 1 or runs over the end; [`OptionError::Repeated`] when ours
/// stands twice; otherwise those of [`IdentityOption::parse`]. Each means: drop the segment.
pub fn find(options: &[u8]) -> Result<Option<IdentityOption>, OptionError> {
    let mut found = None;
    let mut rest = options;
    while let Some((&kind, after)) = rest.split_first() {
        match kind {
            0 => break,
            1 => rest = after,
            _ => {
                let length = *after.first().ok_or(OptionError::List)? as usize;
                if length < 2 || length > rest.len() {
                    return Err(OptionError::List);
                }
                let (option, tail) = rest.split_at(length);
                rest = tail;
                match IdentityOption::parse(option) {
                    Err(OptionError::Foreign) => {}
                    Err(error) => return Err(error),
                    Ok(_) if found.is_some() => return Err(OptionError::Repeated),
                    Ok(ours) => found = Some(ours),
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_fields() -> impl Strategy<Value = Fields> {
        let message = prop_oneof![Just(Message::Syn), Just(Message::SynAck), Just(Message::Ack)];
        (message, 0u8..4, 0u8..4, 0u8..16, 0u8..16, any::<u8>(), 1u32..=NodeId::MAX, any::<u16>()).prop_map(
            |(message, own, peer, echo, flags, t8, node, slot)| Fields {
                message,
                own_generation: Generation::low_bits(own),
                peer_generation: Generation::low_bits(peer),
                echo: if message == Message::Syn { Flags::NONE } else { Flags(echo) },
                flags: Flags(flags),
                t8,
                from: WorkloadRef { node: NodeId::new(node).expect("in range"), slot: Slot(slot) },
            },
        )
    }

    fn example() -> IdentityOption {
        let from = WorkloadRef { node: NodeId::new(0x01_0203).expect("in range"), slot: Slot(0x0405) };
        Fields {
            message: Message::SynAck,
            own_generation: Generation(2),
            peer_generation: Generation(1),
            echo: Flags::CAN_TLS,
            flags: Flags::WANTS_TLS,
            t8: 0x7F,
            from,
        }
        .sealed(Tag([1, 2, 3, 4, 5, 6, 7, 8]))
    }

    proptest! {
        #[test]
        fn parse_of_print_is_the_identity(fields in any_fields(), tag in any::<[u8; 8]>()) {
            let option = fields.sealed(Tag(tag));
            prop_assert_eq!(IdentityOption::parse(&option.to_bytes()), Ok(option));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = find(&bytes);
            if let Ok(option) = IdentityOption::parse(&bytes) {
                prop_assert_eq!(&option.to_bytes()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn every_field_stands_where_the_page_says() {
        assert_eq!(
            example().to_bytes(),
            [253, 20, 0x53, 0x54, 0b01_10_10_01, 0x84, 0x7F, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6, 7, 8]
        );
    }

    #[test]
    fn malformed_options_are_named() {
        let check = |change: &dyn Fn(&mut [u8; LENGTH]), expect| {
            let mut bytes = example().to_bytes();
            change(&mut bytes);
            assert_eq!(IdentityOption::parse(&bytes), Err(expect));
        };
        check(&|b| b[1] = 19, OptionError::Length(19));
        check(&|b| b[0] = 254, OptionError::Foreign);
        check(&|b| b[3] = 0, OptionError::Foreign);
        check(&|b| b[4] &= 0x3F, OptionError::Version(0));
        check(&|b| b[4] |= 0xC0, OptionError::Version(3));
        check(&|b| b[4] &= 0xCF, OptionError::Message);
        check(&|b| b[7..10].fill(0), OptionError::Node);
        check(&|b| b[4] = b[4] & 0xCF | 0x10, OptionError::EchoInSyn);
        assert_eq!(IdentityOption::parse(&example().to_bytes()[..19]), Err(OptionError::Length(19)));
    }

    #[test]
    fn the_option_is_found_among_others() {
        let ours = example().to_bytes();
        let list = [&[2, 4, 5, 0xB4, 1, 1, 253, 6, 0xAA, 0xBB, 0, 0][..], &ours[..], &[0, 9, 9][..]].concat();
        assert_eq!(find(&list), Ok(Some(example())));
        assert_eq!(find(&[2, 4, 5, 0xB4]), Ok(None));
        assert_eq!(find(&[&ours[..], &ours[..]].concat()), Err(OptionError::Repeated));
        assert_eq!(find(&[1, 2]), Err(OptionError::List));
        assert_eq!(find(&[8, 1, 0]), Err(OptionError::List));
        assert_eq!(find(&ours[..19]), Err(OptionError::List));
        assert_eq!(find(&[253, 4, 0x53, 0x54]), Err(OptionError::Length(4)));
        assert_eq!(find(&[253, 2, 0, 0x54]), Ok(None), "a bare kind 253 is some other experiment's");
    }
}
