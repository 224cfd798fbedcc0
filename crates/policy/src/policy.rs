//! A policy: who may reach what, and the posture that holds where no policy speaks.

use std::fmt;
use std::str::FromStr;

use crate::namespace::{NamespacePath, PolicyId};
use crate::port::Port;
use crate::selector::Selector;

/// Most selectors in each of `from` and `to`.
pub const SELECTORS_MAX: usize = 256;
/// Most entries in `ports`.
pub const PORTS_MAX: usize = 256;

/// Who may reach what.
///
/// Shape:  `from` and `to` have 1..=[`SELECTORS_MAX`] selectors each (any of them matches), `ports` 1..=[`PORTS_MAX`].
/// Source: DESIGN "Evaluation": it speaks for the ends in the subtree of its namespace and for no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Its namespace and name.
    pub id: PolicyId,
    /// Clients.
    pub from: Vec<Selector>,
    /// Servers.
    pub to: Vec<Selector>,
    /// Ports that the server's socket is bound to.
    pub ports: Vec<Port>,
    /// Allow or deny.
    pub action: Action,
    /// Whether it decides, or only records what it would decide.
    pub mode: Mode,
    /// Why it exists, in the author's words.
    pub reason: Option<String>,
}

impl Policy {
    /// Whether a flow's protocol and port are among its ports.
    pub fn covers(&self, protocol: u8, port: u16) -> bool {
        self.ports.iter().flat_map(|p| p.ranges()).any(|range| range.contains(protocol, port))
    }

    /// The namespace whose ends it speaks for.
    pub fn namespace(&self) -> &NamespacePath {
        self.id.namespace()
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// The words that manifests use, in order.
            pub const WORDS: &'static [&'static str] = &[$($word,)*];

            /// The word that manifests use.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(UnknownWord { choices: Self::WORDS }),
                }
            }
        }
    };
}
pub(crate) use words;

/// A word that is none of the choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of {}", .choices.join(", "))]
pub struct UnknownWord {
    /// What may stand there.
    pub choices: &'static [&'static str],
}

words! {
    /// What a policy or a default says. Deny is the greater: it wins.
    Action {
        /// Let it pass.
        Allow = "allow",
        /// Refuse it.
        Deny = "deny",
    }
}

words! {
    /// Whether verdicts are carried out. Enforce is the tighter.
    Mode {
        /// Nothing is refused; what would be is recorded.
        Observe = "observe",
        /// Verdicts are carried out.
        Enforce = "enforce",
    }
}

words! {
    /// One side of a flow.
    Side {
        /// The client's.
        Egress = "egress",
        /// The server's.
        Ingress = "ingress",
    }
}

impl Side {
    /// The other side.
    pub const fn other(self) -> Side {
        match self {
            Side::Egress => Side::Ingress,
            Side::Ingress => Side::Egress,
        }
    }
}
