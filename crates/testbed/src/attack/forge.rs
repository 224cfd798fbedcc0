//! Ways to change a captured segment. Each is one change; the oracle says what it must meet.

use std::net::{IpAddr, SocketAddr};

use handshake::mac::MacKey;
use handshake::option::{COVERED, EXID, KIND, LENGTH, Message};
use handshake::segment::Segment;
use rand::Rng;
use rand::rngs::StdRng;

use crate::attack::oracle::FAST_OPEN;

/// One way to forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forgery {
    /// As captured.
    Replay,
    /// One bit of the MAC.
    TagBit,
    /// Another initial sequence number of the sender; in an ACK the server's.
    Number,
    /// Other flags.
    Flags,
    /// Another node.
    Node,
    /// A slot that nobody has.
    Slot,
    /// A key generation that nobody has.
    Generation,
    /// A T from the past.
    Past,
    /// A T from the future.
    Future,
    /// A version that does not exist.
    Version,
    /// Another message's type.
    Kind,
    /// The option twice.
    Twice,
    /// The option one byte short.
    Short,
    /// Sealed under a key the forger made up.
    WrongKey,
    /// A SYN with payload.
    Data,
    /// A SYN with the TCP Fast Open option.
    FastOpen,
}

impl Forgery {
    /// Those that fit every message.
    pub const ANY: [Forgery; 14] = [
        Forgery::Replay,
        Forgery::TagBit,
        Forgery::Number,
        Forgery::Flags,
        Forgery::Node,
        Forgery::Slot,
        Forgery::Generation,
        Forgery::Past,
        Forgery::Future,
        Forgery::Version,
        Forgery::Kind,
        Forgery::Twice,
        Forgery::Short,
        Forgery::WrongKey,
    ];

    /// Those that fit a message.
    pub fn of(message: Message) -> Vec<Forgery> {
        let mut all = Self::ANY.to_vec();
        if message == Message::Syn {
            all.extend([Forgery::Data, Forgery::FastOpen]);
        }
        all
    }

    /// Applies it to a segment that carries an option of `message`. Times stay out of reach of the window's edges, so
    /// that the outcome does not depend on the moment.
    pub fn apply(self, segment: &Segment, message: Message, random: &mut StdRng) -> Segment {
        let mut forged = segment.clone();
        let options = &mut forged.options;
        match self {
            Forgery::Replay => {}
            Forgery::TagBit => {
                let bit = random.random_range(0..64);
                rewrite(options, |o| o[COVERED + bit / 8] ^= 1 << (bit % 8));
            }
            Forgery::Number => {
                let other = random.random_range(1..u32::MAX);
                let number = if message == Message::Ack { &mut forged.ack } else { &mut forged.seq };
                *number = number.wrapping_add(other);
            }
            Forgery::Flags => {
                let flip = random.random_range(1..16);
                rewrite(options, |o| o[5] ^= flip);
            }
            Forgery::Node => {
                let node = random.random_range(0x80_0000..0xFF_FFFFu32).to_be_bytes();
                rewrite(options, |o| o[7..10].copy_from_slice(&node[1..]));
            }
            Forgery::Slot => {
                let slot = random.random_range(0x8000..=u16::MAX).to_be_bytes();
                rewrite(options, |o| o[10..12].copy_from_slice(&slot));
            }
            Forgery::Generation => rewrite(options, |o| o[4] ^= 0b0001 << random.random_range(0..2)),
            Forgery::Past => {
                let steps = random.random_range(4..100);
                rewrite(options, |o| o[6] = o[6].wrapping_sub(steps));
            }
            Forgery::Future => {
                let steps = random.random_range(8..100);
                rewrite(options, |o| o[6] = o[6].wrapping_add(steps));
            }
            Forgery::Version => rewrite(options, |o| o[4] ^= random.random_range(1..4) << 6),
            Forgery::Kind => rewrite(options, |o| o[4] ^= random.random_range(1..4) << 4),
            Forgery::Twice => {
                let ours = options[at(options)..][..LENGTH].to_vec();
                *options = [ours.clone(), ours].concat();
            }
            Forgery::Short => {
                let start = at(options);
                options[start + 1] = LENGTH as u8 - 1;
                options[start + LENGTH - 1] = 0;
            }
            Forgery::WrongKey => {
                let key = MacKey::new(random.random());
                rewrite(options, |o| {
                    let tag = key.tag(&o[..COVERED]);
                    o[COVERED..].copy_from_slice(&tag.0);
                });
            }
            Forgery::Data => forged.payload = b"before proof".to_vec(),
            Forgery::FastOpen => {
                let ours = options[at(options)..][..LENGTH].to_vec();
                *options = [&ours[..], &[FAST_OPEN, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]].concat();
            }
        }
        forged
    }
}

/// The segment as if it came from another machine: any of `sources`, any port of `ports`.
pub fn elsewhere(segment: &Segment, sources: &[IpAddr], ports: std::ops::Range<u16>, random: &mut StdRng) -> Segment {
    let source = sources[random.random_range(0..sources.len())];
    Segment { source: SocketAddr::new(source, random.random_range(ports)), ..segment.clone() }
}

/// Puts other twenty bytes in the place of the option.
pub fn replace(segment: &mut Segment, option: [u8; LENGTH]) {
    rewrite(&mut segment.options, |bytes| *bytes = option);
}

fn rewrite(options: &mut [u8], change: impl FnOnce(&mut [u8; LENGTH])) {
    let start = at(options);
    let ours: &mut [u8; LENGTH] =
        (&mut options[start..start + LENGTH]).try_into().expect("BUG: LENGTH bytes are LENGTH bytes");
    change(ours);
}

/// Where our option begins.
fn at(options: &[u8]) -> usize {
    let head = [KIND, LENGTH as u8, (EXID >> 8) as u8, EXID as u8];
    let found = options.windows(LENGTH).position(|window| window[..4] == head);
    found.expect("BUG: only segments that carry the option are forged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use handshake::option::{Fields, Flags, Generation, Tag, find};
    use handshake::segment::{TcpFlags, linux_syn_options};
    use identity::ids::{NodeId, Slot, WorkloadRef};
    use rand::SeedableRng as _;

    fn captured(message: Message) -> Segment {
        let from = WorkloadRef { node: NodeId::new(3).expect("in range"), slot: Slot(4) };
        let (own_generation, peer_generation) = (Generation::default(), Generation::default());
        let fields =
            Fields { message, own_generation, peer_generation, echo: Flags::NONE, flags: Flags::NONE, t8: 7, from };
        let address = |text: &str| text.parse().expect("address");
        let mut segment = Segment::bare(address("10.0.0.1:1"), address("10.0.0.2:2"), 100, 200, TcpFlags::SYN);
        segment.options = linux_syn_options(1460, 1);
        segment.options.extend(fields.sealed(Tag([9; 8])).to_bytes());
        segment
    }

    #[test]
    fn every_forgery_but_a_replay_changes_the_packet_and_fits_it() {
        let mut random = StdRng::seed_from_u64(1);
        for message in [Message::Syn, Message::SynAck, Message::Ack] {
            for forgery in Forgery::of(message) {
                for _ in 0..50 {
                    let forged = forgery.apply(&captured(message), message, &mut random);
                    assert_eq!(forged == captured(message), forgery == Forgery::Replay, "{forgery:?}");
                    forged.to_packet().expect("fits");
                    assert_ne!(find(&forged.options), Ok(None), "{forgery:?} stays labelled");
                }
            }
        }
    }
}
