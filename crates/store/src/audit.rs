//! The audit trail: an entry for every document that somebody changes, in the transaction that changes it.
//!
//! A transaction that acts for somebody ([`Transaction::act_as`]) writes entries by itself, so that no caller can forget one;
//! what agents and the server report as status is no act. The head's lock orders the trail as it orders revisions.

use api::audit::{Actor, AuditEntry, AuditRecord, Fingerprint, link};
use api::object::{Object, ObjectKey, Revision};
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::sql::Value;
use crate::{Store, StoreError, Transaction};

/// Who a transaction acts for, and when.
#[derive(Clone, Debug)]
pub(crate) struct Acting {
    actor: Actor,
    at: Timestamp,
    /// The trail's end as this transaction sees it; read at its first entry.
    end: Option<End>,
}

/// The number and hash of the last entry.
type End = (i64, Option<Fingerprint>);

/// One act.
pub(crate) struct Act<'a> {
    pub(crate) action: &'a str,
    pub(crate) object: &'a ObjectKey,
    pub(crate) revision: Option<Revision>,
    pub(crate) before: Option<&'a Object>,
    pub(crate) after: Option<&'a Object>,
    pub(crate) detail: Option<Json>,
}

impl Transaction {
    /// From now on every document that is changed gets an entry in the audit trail, in this actor's name.
    pub fn act_as(&mut self, actor: Actor, at: Timestamp) {
        self.acting = Some(Acting { actor, at, end: None });
    }

    /// An entry for an act that changes no document. Nothing secret may be in `detail`.
    ///
    /// Nothing is written for a transaction that acts for nobody.
    pub async fn note(&mut self, action: &str, object: &ObjectKey, detail: Option<Json>) -> Result<(), StoreError> {
        self.audit(Act { action, object, revision: None, before: None, after: None, detail }).await
    }

    pub(crate) async fn audit(&mut self, act: Act<'_>) -> Result<(), StoreError> {
        let Some(acting) = &self.acting else { return Ok(()) };
        let (by, at) = (acting.actor.clone(), acting.at);
        let (last, previous) = match acting.end {
            Some(end) => end,
            None => self.end_of_trail().await?,
        };
        let sequence = last + 1;
        let authored = |object: &Object| Box::new(Object { status: None, ..object.clone() });
        let entry = AuditEntry {
            sequence: sequence.unsigned_abs(),
            at,
            by,
            action: act.action.to_owned(),
            revision: act.revision,
            object: act.object.clone(),
            before: act.before.map(authored),
            after: act.after.map(authored),
            detail: act.detail,
        };
        let text =
            serde_json::to_string(&entry).map_err(|e| StoreError::Damaged(format!("audit entry {sequence}"), e))?;
        let hash = link(previous.as_ref(), &text);
        let sql = "INSERT INTO audit (sequence, entry, hash) VALUES ($1, $2, $3)";
        self.link().execute(sql, &[Value::Int(sequence), Value::Text(&text), Value::Text(&hash.to_string())]).await?;
        if let Some(acting) = &mut self.acting {
            acting.end = Some((sequence, Some(hash)));
        }
        Ok(())
    }

    async fn end_of_trail(&mut self) -> Result<End, StoreError> {
        let sql = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
        let Some(row) = self.link().optional(sql, &[]).await? else { return Ok((0, None)) };
        let damaged =
            |cause| StoreError::Damaged(format!("audit entry {}", row.int(0)), serde::de::Error::custom(cause));
        Ok((row.int(0), Some(row.text(1).parse().map_err(damaged)?)))
    }
}

impl Store {
    /// Records of the trail after a number, oldest first, at most so many.
    pub async fn audit(&self, after: u64, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let sql = "SELECT entry, hash FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2";
        let rows = self.reader().await?.link().all(sql, &[Value::Int(after), Value::Int(limit.into())]).await?;
        Ok(rows.iter().map(|row| AuditRecord { entry: row.text(0).to_owned(), hash: row.text(1).to_owned() }).collect())
    }

    /// The number of the last record; 0 before the first.
    pub async fn audit_end(&self) -> Result<u64, StoreError> {
        let row = self.reader().await?.link().one("SELECT coalesce(max(sequence), 0) FROM audit", &[]).await?;
        Ok(row.int(0).unsigned_abs())
    }
}
