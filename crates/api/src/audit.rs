//! The audit trail: who changed what, from where, what it was before and is now. Each entry's hash covers the one before it,
//! so that nothing can be taken out, put in or altered without the rest showing it.

use std::net::IpAddr;

/// What entries are chained by: SHA-256.
pub use identity::fingerprint::Fingerprint;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::{Object, ObjectKey, Revision};

/// First in every hash, so that it never equals a hash of anything else.
const DOMAIN: &[u8] = b"stolos-audit-1";

/// Most records of one answer.
pub const PAGE_MAX: u32 = 1000;

/// Who acts, as the server has verified it. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// The subject's name, as in Grants and logs.
    pub name: String,
    /// By which kind of credential it is known: `certificate`, `token`, `system`.
    pub credential: String,
    /// The address that the request came from; absent for what the server does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub from: Option<IpAddr>,
}

/// One act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Who, from where.
    pub by: Actor,
    /// `created`, `updated`, `deleted`, or another act, as in `join-token.created`.
    pub action: String,
    /// The revision of the write, where it changed a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// What it was done to.
    pub object: ObjectKey,
    /// As its author had written it before. Without status: reports are no acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Object>>,
    /// As it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Box<Object>>,
    /// What else there is to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// An entry as it is kept: the very text that was hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRecord {
    /// An [`AuditEntry`] as JSON.
    pub entry: String,
    /// SHA-256 over the hash before it and the text, lower-case hex.
    pub hash: String,
}

/// A part of the trail, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditList {
    /// Records, oldest first.
    pub items: Vec<AuditRecord>,
}

/// Where the trail is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenTrail {
    /// The text is no entry.
    #[error("entry {0} cannot be read")]
    Unreadable(u64),
    /// Entries are missing, doubled or out of order.
    #[error("entry {expected} is missing: {found} stands in its place")]
    Gap {
        /// Which number was due.
        expected: u64,
        /// Which was found.
        found: u64,
    },
    /// The text or one before it was altered.
    #[error("entry {0} or one before it was altered: its hash does not fit")]
    Hash(u64),
}

/// The hash of an entry after another: SHA-256 of `stolos-audit-1`, the hash before (zeros before the first), and the text.
pub fn link(previous: Option<&Fingerprint>, entry: &str) -> Fingerprint {
    let previous = previous.map_or([0; 32], |hash| *hash.as_bytes());
    Fingerprint::of(&[DOMAIN, &previous, entry.as_bytes()].concat())
}

/// Checks a trail piece by piece, from its beginning or from a place that was checked before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verifier {
    /// The number of the last entry that was checked.
    pub sequence: u64,
    /// Its hash; none before the first.
    pub hash: Option<Fingerprint>,
}

impl Verifier {
    /// Checks the next record and gives back its entry.
    pub fn check(&mut self, record: &AuditRecord) -> Result<AuditEntry, BrokenTrail> {
        let expected = self.sequence + 1;
        let entry: AuditEntry = serde_json::from_str(&record.entry).map_err(|_| BrokenTrail::Unreadable(expected))?;
        if entry.sequence != expected {
            return Err(BrokenTrail::Gap { expected, found: entry.sequence });
        }
        let hash = link(self.hash.as_ref(), &record.entry);
        if hash.to_string() != record.hash {
            return Err(BrokenTrail::Hash(expected));
        }
        (self.sequence, self.hash) = (expected, Some(hash));
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(count: u64) -> Vec<AuditRecord> {
        let mut previous = None;
        let record = |sequence| {
            let entry = AuditEntry {
                sequence,
                at: Timestamp::UNIX_EPOCH,
                by: Actor { name: "ada".into(), credential: "certificate".into(), from: None },
                action: "created".into(),
                revision: Some(Revision(sequence)),
                object: ObjectKey::new("Policy", "/acme", &format!("p{sequence}")),
                before: None,
                after: None,
                detail: None,
            };
            let entry = serde_json::to_string(&entry).unwrap();
            let hash = link(previous.as_ref(), &entry);
            previous = Some(hash);
            AuditRecord { entry, hash: hash.to_string() }
        };
        (1..=count).map(record).collect()
    }

    fn checked(records: &[AuditRecord]) -> Result<Verifier, BrokenTrail> {
        let mut verifier = Verifier::default();
        records.iter().try_for_each(|record| verifier.check(record).map(drop))?;
        Ok(verifier)
    }

    #[test]
    fn a_trail_that_nobody_touched_holds() {
        let records = trail(5);
        let end = checked(&records).unwrap();
        assert_eq!((end.sequence, end.hash), (5, records[4].hash.parse().ok()));
        let mut rest = checked(&records[..3]).unwrap();
        rest.check(&records[3]).unwrap();
    }

    #[test]
    fn every_touch_shows() {
        let records = trail(5);
        let mut altered = records.clone();
        altered[2].entry = altered[2].entry.replace("ada", "eve");
        assert_eq!(checked(&altered), Err(BrokenTrail::Hash(3)));
        let mut taken = records.clone();
        taken.remove(1);
        assert_eq!(checked(&taken), Err(BrokenTrail::Gap { expected: 2, found: 3 }));
        let mut swapped = records.clone();
        swapped.swap(1, 2);
        assert_eq!(checked(&swapped), Err(BrokenTrail::Gap { expected: 2, found: 3 }));
        let mut rewritten = records;
        // A forger who also makes the hash anew breaks the one after it.
        rewritten[2].entry = rewritten[2].entry.replace("ada", "eve");
        rewritten[2].hash = link(rewritten[1].hash.parse().ok().as_ref(), &rewritten[2].entry).to_string();
        assert_eq!(checked(&rewritten), Err(BrokenTrail::Hash(4)));
    }
}
