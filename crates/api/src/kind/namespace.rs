//! Namespace: tenancy, and the posture of all below it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Spec;

/// What a namespace says for itself. The path is `metadata.namespace` (the parent) and `metadata.name` (the last
/// segment); the root is called `/` and lives in `/`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSpec {
    /// The posture. What is not said is as above; children may tighten, never loosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// Until then (RFC 3339), namespaces below may say `mode: observe` although this one enforces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::object::TimeText>")]
    pub observe_until: Option<Timestamp>,
}

/// How traffic is judged where no policy speaks, and what happens with the verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Protection {
    /// `observe` records what would be refused; `enforce` refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The verdict where no policy speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultVerdicts>,
    /// Encryption between workloads. Only `off` is honoured by this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// `hold` keeps the last policy in force while an agent is gone; `open` ends enforcement. Only `hold` is
    /// honoured by this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_agent_loss: Option<OnAgentLoss>,
}

/// The verdict of each side where no policy speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultVerdicts {
    /// For connections to workloads of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Action>,
    /// For connections from workloads of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Action>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)* })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Whether verdicts are carried out.
    Mode {
        /// Nothing is refused; what would be is recorded.
        Observe = "observe",
        /// Verdicts are carried out.
        Enforce = "enforce",
    }
}

words! {
    /// What a policy or a default says.
    Action {
        /// Let it pass.
        Allow = "allow",
        /// Refuse it.
        Deny = "deny",
    }
}

words! {
    /// Whether connections are encrypted.
    Encryption {
        /// Plain.
        Off = "off",
        /// Where both ends can.
        Permissive = "permissive",
        /// Always, or refused.
        Strict = "strict",
    }
}

words! {
    /// What the datapath does while its agent is gone.
    OnAgentLoss {
        /// The last policy stays in force.
        Hold = "hold",
        /// Enforcement ends.
        Open = "open",
    }
}

/// What holds in a namespace, after everything above it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceStatus {
    /// The effective mode.
    pub mode: Mode,
    /// The effective default for connections to its workloads.
    pub ingress: Action,
    /// The effective default for connections from its workloads.
    pub egress: Action,
    /// The effective encryption.
    pub encryption: Encryption,
    /// The effective behaviour without an agent.
    pub on_agent_loss: OnAgentLoss,
}

impl Spec for NamespaceSpec {
    const KIND: &'static str = super::NAMESPACE;
    type Status = NamespaceStatus;
}
