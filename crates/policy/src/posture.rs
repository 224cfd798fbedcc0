//! Postures: what holds in a namespace where no policy speaks, the tightest from the root down.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::namespace::NamespacePath;
use crate::policy::{Action, Mode, UnknownWord, words};
use std::fmt;
use std::str::FromStr;

words! {
    /// Whether connections are encrypted. Later is tighter.
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
    /// What the datapath does while its agent is gone. Hold is the tighter.
    OnAgentLoss {
        /// Enforcement ends.
        Open = "open",
        /// The last policy stays in force.
        Hold = "hold",
    }
}

/// What a namespace says for itself; unset means "as above".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Observe or enforce.
    pub mode: Option<Mode>,
    /// What no policy speaks about, at the server's side.
    pub ingress: Option<Action>,
    /// What no policy speaks about, at the client's side.
    pub egress: Option<Action>,
    /// Encryption.
    pub encryption: Option<Encryption>,
    /// Behaviour without an agent.
    pub on_agent_loss: Option<OnAgentLoss>,
    /// Until then, namespaces below may say `mode: observe` although this one enforces.
    pub observe_until: Option<Timestamp>,
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Posture {
    /// Observe or enforce.
    pub mode: Mode,
    /// Default of the server's side.
    pub ingress: Action,
    /// Default of the client's side.
    pub egress: Action,
    /// Encryption.
    pub encryption: Encryption,
    /// Behaviour without an agent.
    pub on_agent_loss: OnAgentLoss,
}

impl Posture {
    /// What a fresh root says: it observes and allows, and an agent's death opens nothing.
    pub const FRESH: Posture = Posture {
        mode: Mode::Observe,
        ingress: Action::Allow,
        egress: Action::Allow,
        encryption: Encryption::Off,
        on_agent_loss: OnAgentLoss::Hold,
    };

    /// The default of one side.
    pub fn default_of(&self, side: crate::policy::Side) -> Action {
        match side {
            crate::policy::Side::Egress => self.egress,
            crate::policy::Side::Ingress => self.ingress,
        }
    }
}

/// A setting that a namespace says and that does not hold there, because what stands above is tighter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loosening {
    /// The field, as manifests name it: `mode`, `default.ingress`, …
    pub field: &'static str,
    /// What the namespace says.
    pub said: &'static str,
    /// What holds.
    pub holds: &'static str,
}

/// What all namespaces say, and what follows for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostureTree {
    declared: BTreeMap<NamespacePath, Protection>,
}

impl PostureTree {
    /// Nothing declared: everything observes and allows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what a namespace says for itself; what it said before.
    pub fn set(&mut self, namespace: NamespacePath, protection: Protection) -> Option<Protection> {
        self.declared.insert(namespace, protection)
    }

    /// Forgets a namespace: it is as above.
    pub fn remove(&mut self, namespace: &NamespacePath) -> Option<Protection> {
        self.declared.remove(namespace)
    }

    /// Every namespace that says something.
    pub fn declared(&self) -> impl Iterator<Item = (&NamespacePath, &Protection)> {
        self.declared.iter()
    }

    /// What holds in a namespace at a time: the tightest from the root down.
    pub fn effective(&self, namespace: &NamespacePath, now: Timestamp) -> Posture {
        self.walk(namespace, now).0
    }

    /// What a namespace would say in vain, were `protection` set there.
    pub fn loosenings(&self, namespace: &NamespacePath, protection: &Protection, now: Timestamp) -> Vec<Loosening> {
        let Some(parent) = namespace.parent() else {
            return Vec::new();
        };
        let (above, may_observe) = self.walk(&parent, now);
        let mut found = Vec::new();
        let mut check = |field, said: Option<&'static str>, looser, holds| {
            if let (Some(said), true) = (said, looser) {
                found.push(Loosening { field, said, holds });
            }
        };
        let p = protection;
        let looser_mode = p.mode.is_some_and(|m| m < above.mode) && !may_observe;
        check("mode", p.mode.map(Mode::word), looser_mode, above.mode.word());
        check("default.ingress", p.ingress.map(Action::word), p.ingress < Some(above.ingress), above.ingress.word());
        check("default.egress", p.egress.map(Action::word), p.egress < Some(above.egress), above.egress.word());
        let weaker = p.encryption < Some(above.encryption);
        check("encryption", p.encryption.map(Encryption::word), weaker, above.encryption.word());
        let opens = p.on_agent_loss < Some(above.on_agent_loss);
        check("onAgentLoss", p.on_agent_loss.map(OnAgentLoss::word), opens, above.on_agent_loss.word());
        found
    }

    /// The next time at which some effective posture changes by itself.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.declared.values().filter_map(|p| p.observe_until).filter(|&until| until > now).min()
    }

    /// What holds in a namespace, and whether those below it may still observe.
    fn walk(&self, namespace: &NamespacePath, now: Timestamp) -> (Posture, bool) {
        let mut line: Vec<&str> = namespace.and_ancestors().collect();
        line.reverse();
        let mut posture = Posture::FRESH;
        let mut may_observe = true;
        for path in line {
            let Some(said) = self.declared.get(path) else { continue };
            if path == "/" {
                posture.on_agent_loss = said.on_agent_loss.unwrap_or(posture.on_agent_loss);
            }
            posture = tighten(posture, said, may_observe);
            if said.mode == Some(Mode::Enforce) || posture.mode == Mode::Observe {
                may_observe = posture.mode == Mode::Observe || said.observe_until.is_some_and(|until| until > now);
            }
        }
        (posture, may_observe)
    }
}

fn tighten(above: Posture, said: &Protection, may_observe: bool) -> Posture {
    let mode = match said.mode {
        Some(Mode::Observe) if may_observe => Mode::Observe,
        said => above.mode.max(said.unwrap_or(above.mode)),
    };
    Posture {
        mode,
        ingress: above.ingress.max(said.ingress.unwrap_or(above.ingress)),
        egress: above.egress.max(said.egress.unwrap_or(above.egress)),
        encryption: above.encryption.max(said.encryption.unwrap_or(above.encryption)),
        on_agent_loss: above.on_agent_loss.max(said.on_agent_loss.unwrap_or(above.on_agent_loss)),
    }
}

impl std::borrow::Borrow<str> for NamespacePath {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn path(text: &str) -> NamespacePath {
        text.parse().unwrap()
    }

    fn says(mode: Option<Mode>, ingress: Option<Action>) -> Protection {
        Protection { mode, ingress, ..Protection::default() }
    }

    #[test]
    fn a_fresh_root_observes_and_allows() {
        assert_eq!(PostureTree::new().effective(&path("/a/b"), Timestamp::UNIX_EPOCH), Posture::FRESH);
    }

    #[test]
    fn children_tighten_and_never_loosen() {
        let now = at("2030-01-01T00:00:00Z");
        let mut tree = PostureTree::new();
        tree.set(path("/a"), says(Some(Mode::Enforce), Some(Action::Deny)));
        let loose = says(Some(Mode::Observe), Some(Action::Allow));
        let fields: Vec<_> = tree.loosenings(&path("/a/b"), &loose, now).iter().map(|l| l.field).collect();
        assert_eq!(fields, ["mode", "default.ingress"]);
        tree.set(path("/a/b"), loose);
        let below = tree.effective(&path("/a/b/c"), now);
        assert_eq!((below.mode, below.ingress, below.egress), (Mode::Enforce, Action::Deny, Action::Allow));
        assert_eq!(tree.effective(&path("/ab"), now), Posture::FRESH);
        assert!(tree.loosenings(&path("/a"), &says(Some(Mode::Observe), None), now).is_empty());
    }

    #[test]
    fn agent_loss_opens_only_where_the_root_says_so() {
        let now = Timestamp::UNIX_EPOCH;
        let open = Protection { on_agent_loss: Some(OnAgentLoss::Open), ..Protection::default() };
        let mut tree = PostureTree::new();
        assert_eq!(tree.loosenings(&path("/a"), &open, now)[0].field, "onAgentLoss");
        tree.set(path("/a"), open);
        assert_eq!(tree.effective(&path("/a"), now).on_agent_loss, OnAgentLoss::Hold);
        tree.set(path("/"), open);
        assert_eq!(tree.effective(&path("/a"), now).on_agent_loss, OnAgentLoss::Open);
        tree.set(path("/a"), Protection { on_agent_loss: Some(OnAgentLoss::Hold), ..Protection::default() });
        assert_eq!(tree.effective(&path("/a/b"), now).on_agent_loss, OnAgentLoss::Hold);
    }

    #[test]
    fn observe_until_lets_those_below_observe_first() {
        let (now, until) = (at("2030-01-01T00:00:00Z"), at("2030-01-31T00:00:00Z"));
        let mut tree = PostureTree::new();
        tree.set(path("/a"), Protection { observe_until: Some(until), ..says(Some(Mode::Enforce), None) });
        tree.set(path("/a/new"), says(Some(Mode::Observe), Some(Action::Deny)));
        assert_eq!(tree.effective(&path("/a"), now).mode, Mode::Enforce);
        assert_eq!(tree.effective(&path("/a/other"), now).mode, Mode::Enforce);
        assert_eq!(tree.effective(&path("/a/new/x"), now).mode, Mode::Observe);
        assert_eq!(tree.effective(&path("/a/new/x"), until).mode, Mode::Enforce);
        assert_eq!(tree.next_change(now), Some(until));
        assert_eq!(tree.next_change(until), None);
    }
}
