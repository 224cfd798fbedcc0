//! What this kernel can do besides the baseline, found by trial.

use libbpf_rs::{ProgramType, libbpf_sys};

/// Abilities beyond the baseline (5.15). Each is tried by loading the program that needs it, never guessed from a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// connect() fails with ECONNREFUSED rather than EPERM (5.18).
    ErrnoFromConnect,
    /// Live connections are destroyed, so that both ends see it at once (6.5; before, where CONFIG_INET_DIAG_DESTROY is set).
    SocketDestroy,
    /// Listeners older than the attach are repaired in place (6.12).
    ListenerRepair,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 3] = [Feature::ErrnoFromConnect, Feature::SocketDestroy, Feature::ListenerRepair];

    /// The name in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Feature::ErrnoFromConnect => "errno-from-connect",
            Feature::SocketDestroy => "socket-destroy",
            Feature::ListenerRepair => "listener-repair",
        }
    }

    /// The first kernel that is known to have it.
    pub const fn since(self) -> &'static str {
        match self {
            Feature::ErrnoFromConnect => "5.18",
            Feature::SocketDestroy => "6.5",
            Feature::ListenerRepair => "6.12",
        }
    }
}

/// A word that names no feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such kernel feature")]
pub struct UnknownFeature;

impl std::str::FromStr for Feature {
    type Err = UnknownFeature;

    /// The inverse of [`Feature::label`].
    fn from_str(label: &str) -> Result<Self, UnknownFeature> {
        Feature::ALL.into_iter().find(|feature| feature.label() == label).ok_or(UnknownFeature)
    }
}

/// Whether connect() hooks can choose the errno.
pub(crate) fn errno_from_connect() -> bool {
    ProgramType::CgroupSockAddr.is_helper_supported(libbpf_sys::BPF_FUNC_set_retval).unwrap_or(false)
}
