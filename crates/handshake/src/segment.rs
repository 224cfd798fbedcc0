//! TCP segments in IPv4 and IPv6 packets as values: built to the byte, read from hostile bytes.
//!
//! For whatever speaks raw: the RST responder, and the testbed's attackers. Owns no socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP header flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// SYN.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// RST.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// PSH.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// ACK.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// SYN and ACK.
    pub const SYN_ACK: TcpFlags = TcpFlags(0x12);
    /// RST and ACK.
    pub const RST_ACK: TcpFlags = TcpFlags(0x14);

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One TCP segment with the addresses it travels between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes; of the same family.
    pub destination: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window, unscaled.
    pub window: u16,
    /// Option bytes; padded with zeros to a multiple of four when built.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
}

/// Why a segment cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// One address is IPv4, the other IPv6.
    #[error("source and destination are of different families")]
    Families,
    /// More than 40 bytes of options, or more payload than a packet holds.
    #[error("too long for a packet")]
    Length,
}

/// Why bytes are not a TCP segment that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Ends before its headers do, or lengths contradict each other.
    #[error("the packet is cut short or its lengths contradict each other")]
    Length,
    /// Neither IPv4 nor IPv6.
    #[error("IP version {0}")]
    Version(u8),
    /// Not TCP.
    #[error("IP protocol {0}")]
    Protocol(u8),
    /// A fragment.
    #[error("a fragment")]
    Fragment,
}

const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
const OPTIONS_MAX: usize = 40;
const TTL: u8 = 64;

impl Segment {
    /// A segment without options and data.
    pub fn bare(source: SocketAddr, destination: SocketAddr, seq: u32, ack: u32, flags: TcpFlags) -> Self {
        Self { source, destination, seq, ack, flags, window: 0, options: Vec::new(), payload: Vec::new() }
    }

    /// The IP packet, checksums included. IPv4-mapped addresses make an IPv4 packet.
    pub fn to_packet(&self) -> Result<Vec<u8>, BuildError> {
        match (self.source.ip().to_canonical(), self.destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let tcp = self.to_tcp(sum(&source.octets()) + sum(&destination.octets()))?;
                ipv4(source, destination, &tcp)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let tcp = self.to_tcp(sum(&source.octets()) + sum(&destination.octets()))?;
                ipv6(source, destination, &tcp)
            }
            _ => Err(BuildError::Families),
        }
    }

    fn to_tcp(&self, address_sum: u64) -> Result<Vec<u8>, BuildError> {
        let options = self.options.len().next_multiple_of(4);
        if options > OPTIONS_MAX {
            return Err(BuildError::Length);
        }
        let header = TCP_HEADER + options;
        let mut tcp = Vec::with_capacity(header + self.payload.len());
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push((header / 4) as u8 * 16);
        tcp.push(self.flags.0);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&self.options);
        tcp.resize(header, 0);
        tcp.extend(&self.payload);
        let total = sum(&tcp) + address_sum + u64::from(TCP) + tcp.len() as u64;
        tcp[16..18].copy_from_slice(&fold(total).to_be_bytes());
        Ok(tcp)
    }

    /// Reads an IP packet that carries TCP: IPv4 options and IPv6 extension headers are stepped over, bytes after the IP
    /// length are ignored. Checksums are not looked at: captured packets often have none yet.
    pub fn read(packet: &[u8]) -> Result<Self, ReadError> {
        let (source, destination, tcp): (IpAddr, IpAddr, &[u8]) = match packet.first().map(|b| b >> 4) {
            Some(4) => read_ipv4(packet)?,
            Some(6) => read_ipv6(packet)?,
            Some(version) => return Err(ReadError::Version(version)),
            None => return Err(ReadError::Length),
        };
        let fixed: &[u8; TCP_HEADER] = tcp.first_chunk().ok_or(ReadError::Length)?;
        let header = usize::from(fixed[12] >> 4) * 4;
        if header < TCP_HEADER || header > tcp.len() {
            return Err(ReadError::Length);
        }
        Ok(Self {
            source: SocketAddr::new(source, u16::from_be_bytes([fixed[0], fixed[1]])),
            destination: SocketAddr::new(destination, u16::from_be_bytes([fixed[2], fixed[3]])),
            seq: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ack: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            flags: TcpFlags(fixed[13]),
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            options: tcp[TCP_HEADER..header].to_vec(),
            payload: tcp[header..].to_vec(),
        })
    }
}

/// Options of a Linux SYN without ours: MSS, SACK, timestamps, window scale. 20 bytes.
pub fn linux_syn_options(mss: u16, timestamp: u32) -> Vec<u8> {
    let [m1, m0] = mss.to_be_bytes();
    let [t3, t2, t1, t0] = timestamp.to_be_bytes();
    vec![2, 4, m1, m0, 4, 2, 8, 10, t3, t2, t1, t0, 0, 0, 0, 0, 1, 3, 3, 7]
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, tcp: &[u8]) -> Result<Vec<u8>, BuildError> {
    let total = u16::try_from(20 + tcp.len()).map_err(|_| BuildError::Length)?;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, TTL, TCP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let checksum = fold(sum(&packet)).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    packet.extend(tcp);
    Ok(packet)
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, tcp: &[u8]) -> Result<Vec<u8>, BuildError> {
    let length = u16::try_from(tcp.len()).map_err(|_| BuildError::Length)?;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([TCP, TTL]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(tcp);
    Ok(packet)
}

fn read_ipv4(packet: &[u8]) -> Result<(IpAddr, IpAddr, &[u8]), ReadError> {
    let fixed: &[u8; 20] = packet.first_chunk().ok_or(ReadError::Length)?;
    let header = usize::from(fixed[0] & 0x0F) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header < 20 || total < header || total > packet.len() {
        return Err(ReadError::Length);
    }
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3FFF != 0 {
        return Err(ReadError::Fragment);
    }
    if fixed[9] != TCP {
        return Err(ReadError::Protocol(fixed[9]));
    }
    let address = |at: usize| IpAddr::from([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    Ok((address(12), address(16), &packet[header..total]))
}

fn read_ipv6(packet: &[u8]) -> Result<(IpAddr, IpAddr, &[u8]), ReadError> {
    let fixed: &[u8; 40] = packet.first_chunk().ok_or(ReadError::Length)?;
    let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let mut rest = packet[40..].get(..length).ok_or(ReadError::Length)?;
    let mut next = fixed[6];
    while next != TCP {
        let head: &[u8; 4] = rest.first_chunk().ok_or(ReadError::Length)?;
        let length = match next {
            // Hop-by-hop, routing and destination options: units of eight bytes beyond the first. Authentication: of four.
            0 | 43 | 60 => (usize::from(head[1]) + 1) * 8,
            51 => (usize::from(head[1]) + 2) * 4,
            // A packet's only fragment: no offset, none to follow.
            44 if u16::from_be_bytes([head[2], head[3]]) & 0xFFF9 == 0 => 8,
            44 => return Err(ReadError::Fragment),
            other => return Err(ReadError::Protocol(other)),
        };
        next = head[0];
        rest = rest.get(length..).ok_or(ReadError::Length)?;
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        IpAddr::from(octets)
    };
    Ok((address(8), address(24), rest))
}

/// Sum of big-endian 16-bit words, an odd last byte padded.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u64::from(*b))).sum()
}

/// The Internet checksum of a sum.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    proptest! {
        #[test]
        fn read_of_build_is_the_identity(
            seq in any::<u32>(), ack in any::<u32>(), flags in any::<u8>(), window in any::<u16>(), v6 in any::<bool>(),
            options in proptest::collection::vec(any::<u8>(), 0..=10), payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let (source, destination) = if v6 {
                (address("[fd00::1]:1000"), address("[fd00::2]:2000"))
            } else {
                (address("10.0.0.1:1000"), address("10.0.0.2:2000"))
            };
            let options = options.into_iter().flat_map(|b| [b; 4]).collect();
            let segment = Segment { source, destination, seq, ack, flags: TcpFlags(flags), window, options, payload };
            let packet = segment.to_packet().expect("builds");
            prop_assert_eq!(Segment::read(&packet), Ok(segment));
        }

        #[test]
        fn any_bytes_are_read_without_harm(first in prop_oneof![Just(0x45u8), Just(0x4F), Just(0x60), any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Segment::read(&[&[first], &rest[..]].concat());
        }
    }

    #[test]
    fn checksums_are_right() {
        // A SYN captured between two Linux hosts would say the same: the sum over pseudo header and segment is all ones.
        let segment = Segment::bare(address("192.0.2.1:1"), address("192.0.2.2:2"), 7, 0, TcpFlags::SYN);
        let packet = segment.to_packet().expect("builds");
        assert_eq!(fold(sum(&packet[..20])), 0);
        assert_eq!(fold(sum(&packet[12..]) + 6 + 20), 0);
        let segment = Segment::bare(address("[fd00::1]:1"), address("[fd00::2]:2"), 7, 0, TcpFlags::SYN);
        let packet = segment.to_packet().expect("builds");
        assert_eq!(fold(sum(&packet[8..]) + 6 + 20), 0);
    }

    #[test]
    fn extension_headers_and_ip_options_are_stepped_over() {
        let segment = Segment::bare(address("[fd00::1]:1"), address("[fd00::2]:2"), 7, 8, TcpFlags::SYN_ACK);
        let plain = segment.to_packet().expect("builds");
        let mut packet = plain[..40].to_vec();
        packet[5] = 20 + 24;
        packet[6] = 0;
        packet.extend([60, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([43, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(&plain[40..]);
        assert_eq!(Segment::read(&packet), Ok(segment));

        let segment = Segment::bare(address("192.0.2.1:1"), address("192.0.2.2:2"), 7, 8, TcpFlags::ACK);
        let plain = segment.to_packet().expect("builds");
        let mut packet = plain[..20].to_vec();
        packet[0] = 0x46;
        packet[3] = 44;
        packet.extend([1, 1, 1, 0]);
        packet.extend(&plain[20..]);
        assert_eq!(Segment::read(&packet), Ok(segment.clone()));
        packet.extend([0xAA; 9]);
        assert_eq!(Segment::read(&packet), Ok(segment), "bytes after the IP length are no data");
    }

    #[test]
    fn what_is_no_segment_is_named() {
        assert_eq!(Segment::read(&[]), Err(ReadError::Length));
        assert_eq!(Segment::read(&[0x50; 40]), Err(ReadError::Version(5)));
        let good = Segment::bare(address("192.0.2.1:1"), address("192.0.2.2:2"), 7, 8, TcpFlags::ACK)
            .to_packet()
            .expect("builds");
        let check = |at: usize, byte: u8, expect| {
            let mut packet = good.clone();
            packet[at] = byte;
            assert_eq!(Segment::read(&packet), Err(expect));
        };
        check(9, 17, ReadError::Protocol(17));
        check(6, 0x20, ReadError::Fragment);
        check(7, 1, ReadError::Fragment);
        check(3, 100, ReadError::Length);
        check(0, 0x44, ReadError::Length);
        check(32, 0x40, ReadError::Length);
        check(32, 0x60, ReadError::Length);
    }

    #[test]
    fn a_linux_syn_has_room_for_exactly_our_option() {
        assert_eq!(linux_syn_options(1460, 1).len() + crate::option::LENGTH, OPTIONS_MAX);
        let mut segment = Segment::bare(address("192.0.2.1:1"), address("192.0.2.2:2"), 7, 8, TcpFlags::SYN);
        segment.options = vec![1; 41];
        assert_eq!(segment.to_packet(), Err(BuildError::Length));
        segment.options.clear();
        segment.payload = vec![0; 65_536];
        assert_eq!(segment.to_packet(), Err(BuildError::Length));
        segment.payload.clear();
        segment.source = address("[fd00::1]:1");
        assert_eq!(segment.to_packet(), Err(BuildError::Families));
    }
}
