//! Ports of a policy: protocol and range, as the server's socket is bound.

use std::fmt;
use std::str::FromStr;

/// IP protocol numbers that policies name.
pub mod protocol {
    /// Every protocol, in ranges of a policy or verdict; never the protocol of a flow.
    pub const ANY: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6; a policy's `icmp` means both.
    pub const ICMPV6: u8 = 58;
}

/// Ports of a policy as one writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// `any`: every protocol and port.
    Any,
    /// `icmp`: echo on IPv4 and IPv6.
    Icmp,
    /// `tcp`, `tcp/80`, `tcp/8000-8100`; first and last, inclusive.
    Tcp(u16, u16),
    /// `udp`, `udp/53`, `udp/5000-5100`.
    Udp(u16, u16),
}

/// A text that is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Neither of the known protocols.
    #[error("`{0}` is no protocol: write tcp, udp, icmp or any")]
    Protocol(String),
    /// Not a number from 1 to 65535, or such a range.
    #[error("`{0}` is no port: write a number from 1 to 65535, or a range as 8000-8100")]
    Number(String),
    /// A range that ends before it begins.
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    /// A port where the protocol has none.
    #[error("`{0}` has no ports")]
    Portless(String),
    /// A number without a protocol.
    #[error("`{0}` lacks its protocol: write tcp/{0} or udp/{0}")]
    Bare(String),
}

/// Ports of one protocol as evaluators see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// IP protocol number; [`protocol::ANY`] for all.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
}

impl PortRange {
    /// Whether a flow's protocol and port are in it.
    pub fn contains(&self, protocol: u8, port: u16) -> bool {
        (self.protocol == protocol::ANY || self.protocol == protocol) && (self.first..=self.last).contains(&port)
    }
}

impl Port {
    /// The ranges it means, one for each IP protocol.
    pub fn ranges(self) -> impl Iterator<Item = PortRange> {
        let range = |protocol, first, last| Some(PortRange { protocol, first, last });
        let (one, two) = match self {
            Port::Any => (range(protocol::ANY, 0, u16::MAX), None),
            Port::Icmp => (range(protocol::ICMP, 0, u16::MAX), range(protocol::ICMPV6, 0, u16::MAX)),
            Port::Tcp(first, last) => (range(protocol::TCP, first, last), None),
            Port::Udp(first, last) => (range(protocol::UDP, first, last), None),
        };
        one.into_iter().chain(two)
    }

    /// The port a policy would name to mean exactly this protocol and port of a flow; `None` for protocols that
    /// policies cannot name.
    pub fn of_flow(protocol: u8, port: u16) -> Option<Port> {
        match protocol {
            protocol::TCP => Some(Port::Tcp(port, port)),
            protocol::UDP => Some(Port::Udp(port, port)),
            protocol::ICMP | protocol::ICMPV6 => Some(Port::Icmp),
            _ => None,
        }
    }
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (name, ports) = match text.split_once('/') {
            Some((name, ports)) => (name, Some(ports)),
            None => (text, None),
        };
        match (name, ports) {
            ("any", None) => Ok(Port::Any),
            ("icmp", None) => Ok(Port::Icmp),
            ("any" | "icmp", Some(_)) => Err(PortError::Portless(name.to_owned())),
            ("tcp", None) => Ok(Port::Tcp(0, u16::MAX)),
            ("udp", None) => Ok(Port::Udp(0, u16::MAX)),
            ("tcp", Some(ports)) => range(ports).map(|(first, last)| Port::Tcp(first, last)),
            ("udp", Some(ports)) => range(ports).map(|(first, last)| Port::Udp(first, last)),
            (name, None) if range(name).is_ok() => Err(PortError::Bare(name.to_owned())),
            (name, _) => Err(PortError::Protocol(name.to_owned())),
        }
    }
}

fn range(text: &str) -> Result<(u16, u16), PortError> {
    let wrong = || PortError::Number(text.to_owned());
    let number = |digits: &str| -> Option<u16> {
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten().filter(|&n| n > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
    if first > last {
        return Err(PortError::Backwards(text.to_owned()));
    }
    Ok((first, last))
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Port::Any => f.write_str("any"),
            Port::Icmp => f.write_str("icmp"),
            Port::Tcp(first, last) => write_ports(f, "tcp", first, last),
            Port::Udp(first, last) => write_ports(f, "udp", first, last),
        }
    }
}

fn write_ports(f: &mut fmt::Formatter<'_>, name: &str, first: u16, last: u16) -> fmt::Result {
    match (first, last) {
        (0, u16::MAX) => f.write_str(name),
        (first, last) if first == last => write!(f, "{name}/{first}"),
        (first, last) => write!(f, "{name}/{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_parse_and_print() {
        for text in ["any", "icmp", "tcp", "udp", "tcp/80", "udp/53", "tcp/8000-8100", "tcp/1-65535"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        assert_eq!("tcp/80-80".parse::<Port>().unwrap().to_string(), "tcp/80");
        for text in
            ["80", "tcp/", "tcp/0", "tcp/65536", "tcp/+1", "tcp/90-80", "tcp/1-2-3", "icmp/1", "any/80", "sctp/1", ""]
        {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        assert_eq!("80".parse::<Port>().unwrap_err().to_string(), "`80` lacks its protocol: write tcp/80 or udp/80");
    }

    #[test]
    fn icmp_means_both_versions() {
        let protocols: Vec<u8> = Port::Icmp.ranges().map(|r| r.protocol).collect();
        assert_eq!(protocols, [1, 58]);
    }
}
