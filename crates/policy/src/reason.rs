//! The closed enumeration of why a packet, connection or flow was refused.
//!
//! One list for the kernel datapath (as a byte), the flow records, the metrics and `explain`.
//! `datapath` asserts at compile time that `bpf/abi.h` says the same.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $code:literal, $label:literal;)*) => {
        /// Why something was refused. The byte is the kernel ABI, the code is stable for users.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name = $value,)* }

        impl Reason {
            /// Every reason, in the order of its byte.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The reason for a byte of the kernel; `None` for bytes no version of ours writes.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$name),)* _ => None }
            }

            /// The stable code users see, explained by `stolos explain code`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The closed label for metrics and flow records (kebab-case).
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// A policy with action deny matched.
    PolicyDeny = 1, "P1001", "policy-deny";
    /// No policy allowed it and the side's default is deny.
    DefaultDeny = 2, "P1002", "default-deny";
    /// The other end's side refused it (its policies are not ours to show).
    PeerSideDeny = 3, "P1003", "peer-side-deny";
    /// The policy asks for encryption or HTTP rules and no enforcer here can give it yet.
    DepthUnavailable = 4, "P1004", "depth-unavailable";
    /// The workload, its node or cluster is revoked.
    Revoked = 5, "P1005", "revoked";
    /// The workload is known to its agent only; the server has not placed it yet.
    Pending = 6, "P1006", "pending";
    /// A plain peer that no ExternalNetwork rule allows.
    ExternalDeny = 7, "P1007", "external-deny";
    /// Plain traffic from or to an address of the fleet (rule 9: never external).
    FleetAddressPlain = 8, "P1008", "fleet-address-plain";
    /// UDP between workloads that the place table cannot authorize (rule 17).
    UdpUnannounced = 9, "P1009", "udp-unannounced";
    /// ICMP echo that no policy allows.
    IcmpDeny = 10, "P1010", "icmp-deny";

    /// The answering workload does not belong at the dialled address (rule 1).
    PlaceMismatch = 20, "P1020", "place-mismatch";
    /// The dialled address is no declared place; a plain connection is refused (rule 1).
    UnknownPlace = 21, "P1021", "unknown-place";
    /// The client's source is the unshared address of another workload (rule 1).
    SourceMismatch = 22, "P1022", "source-mismatch";
    /// The echoed flags differ from those sent (rule 2).
    FlagsMismatch = 23, "P1023", "flags-mismatch";

    /// Our ExID with a wrong length, version or type (rule 7).
    OptionMalformed = 30, "P1030", "option-malformed";
    /// The SYN's MAC under the fleet key is wrong.
    FleetMacBad = 31, "P1031", "fleet-mac-bad";
    /// A SYN-ACK's or ACK's MAC under the pair key is wrong.
    PairMacBad = 32, "P1032", "pair-mac-bad";
    /// T is outside the window.
    TimeOutside = 33, "P1033", "time-outside";
    /// (node, slot) is not in the table (rule 11: silent, pulled, healed by retransmission).
    PeerUnknown = 34, "P1034", "peer-unknown";
    /// No pair or fleet key of that generation (rule 11).
    KeyUnknown = 35, "P1035", "key-unknown";
    /// The ACK was already used (rule 4).
    Replay = 36, "P1036", "replay";
    /// The burn table is full and nothing else proves freshness (rule 4).
    BurnFull = 37, "P1037", "burn-full";
    /// A SYN with payload or the TFO option (rule 5).
    DataBeforeProof = 38, "P1038", "data-before-proof";
    /// A SYN at a socket in SYN_SENT (rule 6).
    SimultaneousOpen = 39, "P1039", "simultaneous-open";
    /// A SYN-ACK or first ACK without the option from a peer that must speak identity.
    OptionMissing = 40, "P1040", "option-missing";
    /// The first segment's numbers do not fit the handshake (rule 3); heals by retransmission.
    SequenceUnexpected = 41, "P1041", "sequence-unexpected";
    /// A packet that the parser could not read (rule 7).
    ParseFailed = 42, "P1042", "parse-failed";
    /// An established socket without a stored verdict (rule 7).
    NoVerdict = 43, "P1043", "no-verdict";
    /// No room for the option (TCP-MD5, TCP-AO) (rule 7).
    NoOptionSpace = 44, "P1044", "no-option-space";
    /// MPTCP (rule 8).
    Mptcp = 45, "P1045", "mptcp";
    /// A raw or packet socket in a protected workload (rule 15).
    RawSocket = 46, "P1046", "raw-socket";
    /// The node's clock is outside the window, so nothing can be proved.
    ClockOutside = 47, "P1047", "clock-outside";
}
