//! Reading and writing documents.

use api::object::{Object, ObjectKey, Revision};
use jiff::Timestamp;
use uuid::Uuid;

use crate::audit::Act;
use crate::sql::{Link, Row, Value};
use crate::{Store, StoreError, Transaction};

/// Under which condition a write takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever is there.
    None,
    /// Nothing is there.
    Absent,
    /// Its author's part is still as it was at this revision; what the system reported since does not count.
    At(Revision),
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// There was none of that name.
    Created,
    /// It was changed.
    Updated,
    /// Spec, status, labels and annotations were so already: nothing was written, and no revision used.
    Unchanged,
}

/// Why a document was not written or deleted.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// [`Precondition::Absent`], and there is one.
    #[error("{0} exists already")]
    Exists(ObjectKey),
    /// [`Precondition::At`] another revision than the present one; `None`: it is gone.
    #[error("{key} was changed meanwhile: it is at revision {now:?}, not {expected}")]
    Changed {
        /// Which document.
        key: ObjectKey,
        /// What the writer expected.
        expected: Revision,
        /// What is.
        now: Option<Revision>,
    },
    /// The uid that the document carries is another one's.
    #[error("{0} is another object now: its uid differs")]
    OtherUid(ObjectKey),
}

/// Which documents a list is of. Everything given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Kind's name.
    pub kind: Option<String>,
    /// In this namespace.
    pub namespace: Option<String>,
    /// With `namespace`: and in those below it.
    pub subtree: bool,
    /// On the object's own labels.
    pub labels: Vec<LabelTest>,
}

impl Filter {
    /// Whether an object of this key can be among them; its labels are another question.
    pub fn covers(&self, key: &ObjectKey) -> bool {
        let below = |outer: &str| {
            let rest = key.namespace.strip_prefix(outer.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.starts_with('/')) && key.namespace != "/"
        };
        let inside = |namespace: &String| *namespace == key.namespace || (self.subtree && below(namespace));
        self.kind.as_ref().is_none_or(|kind| *kind == key.kind) && self.namespace.as_ref().is_none_or(inside)
    }

    /// Whether an object's labels are as asked.
    pub fn labels_fit(&self, object: &Object) -> bool {
        self.labels.iter().all(|test| test.holds(object))
    }
}

/// One requirement on an object's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelTest {
    /// The key has one of these values.
    In(String, Vec<String>),
    /// The key has none of these values, or is absent.
    NotIn(String, Vec<String>),
    /// The key is there.
    Present(String),
    /// The key is not there.
    Absent(String),
}

impl LabelTest {
    fn holds(&self, object: &Object) -> bool {
        let value = |key: &String| object.metadata.labels.get(key);
        match self {
            Self::In(key, values) => value(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => value(key).is_none_or(|v| !values.contains(v)),
            Self::Present(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

impl Store {
    /// One document, as last committed.
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        get(self.reader().await?.link(), key).await
    }

    /// Documents by kind, namespace and name, and the revision at which the list is exact.
    pub async fn list(&self, filter: &Filter) -> Result<(Vec<Object>, Revision), StoreError> {
        list(self.reader().await?.link(), filter).await
    }
}

impl Transaction {
    /// One document, as this transaction sees it.
    pub async fn get(&mut self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        get(self.link(), key).await
    }

    /// Documents by kind, namespace and name, as this transaction sees them.
    pub async fn list(&mut self, filter: &Filter) -> Result<Vec<Object>, StoreError> {
        Ok(list(self.link(), filter).await?.0)
    }

    /// Creates or changes a document; gives back what is stored.
    ///
    /// uid, revision and times are the store's: a uid that the caller gives must match, a revision is *not* looked at
    /// (say [`Precondition::At`]). Without a status, the stored one stays. A write that changes the status alone is a
    /// report: it has a revision in the feed, and the document's own revision and time stay those of its author's last
    /// write, so that no report ever comes between an author's reading and writing.
    pub async fn put(
        &mut self,
        object: &Object,
        precondition: Precondition,
        now: Timestamp,
    ) -> Result<(Object, Written), WriteError> {
        let key = object.key();
        let stored = self.get(&key).await?;
        check(&key, stored.as_ref(), precondition)?;
        let mut next = object.clone();
        if let Some(old) = &stored {
            if next.metadata.uid.is_some_and(|uid| Some(uid) != old.metadata.uid) {
                return Err(WriteError::OtherUid(key));
            }
            next.status = next.status.or_else(|| old.status.clone());
            if same(old, &next) {
                return Ok((old.clone(), Written::Unchanged));
            }
            next.metadata.uid = old.metadata.uid;
            next.metadata.created = old.metadata.created;
        } else {
            next.metadata.uid.get_or_insert_with(Uuid::now_v7);
            next.metadata.created = Some(now);
        }
        let revision = self.revision().await?;
        (next.metadata.revision, next.metadata.updated) = match &stored {
            Some(old) if same_author(old, &next) => (old.metadata.revision, old.metadata.updated),
            _ => (Some(revision), Some(now)),
        };
        self.write(&key, &next, revision).await?;
        if stored.as_ref().is_none_or(|old| !same_author(old, &next)) {
            let action = if stored.is_some() { "updated" } else { "created" };
            let (before, after) = (stored.as_ref(), Some(&next));
            self.audit(Act { action, object: &key, revision: Some(revision), before, after, detail: None }).await?;
        }
        Ok((next, if stored.is_some() { Written::Updated } else { Written::Created }))
    }

    /// Removes a document; gives back what it was, `None` if there was none.
    pub async fn delete(&mut self, key: &ObjectKey, precondition: Precondition) -> Result<Option<Object>, WriteError> {
        let stored = self.get(key).await?;
        check(key, stored.as_ref(), precondition)?;
        if stored.is_some() {
            let revision = self.revision().await?;
            let sql = "DELETE FROM documents WHERE kind = $1 AND namespace = $2 AND name = $3";
            self.link().execute(sql, &name_of(key)).await?;
            self.record_change(key, revision, None).await?;
            let (revision, before) = (Some(revision), stored.as_ref());
            self.audit(Act { action: "deleted", object: key, revision, before, after: None, detail: None }).await?;
        }
        Ok(stored)
    }

    async fn write(&mut self, key: &ObjectKey, object: &Object, revision: Revision) -> Result<(), StoreError> {
        let body = serde_json::to_string(object).map_err(|e| StoreError::Damaged(key.to_string(), e))?;
        let uid = object.metadata.uid.unwrap_or_default().to_string();
        let [kind, namespace, name] = name_of(key);
        let values = [kind, namespace, name, Value::Text(&uid), Value::Int(as_i64(revision)), Value::Text(&body)];
        let sql = "INSERT INTO documents (kind, namespace, name, uid, revision, body) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (kind, namespace, name) DO UPDATE SET revision = excluded.revision, body = excluded.body";
        self.link().execute(sql, &values).await?;
        self.record_change(key, revision, Some(&body)).await
    }

    async fn record_change(&mut self, key: &ObjectKey, at: Revision, body: Option<&str>) -> Result<(), StoreError> {
        self.sequence += 1;
        let [kind, namespace, name] = name_of(key);
        let (sequence, revision) = (Value::Int(self.sequence), Value::Int(as_i64(at)));
        let sql = "INSERT INTO changes (sequence, revision, kind, namespace, name, body)
             VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [sequence, revision, kind, namespace, name, Value::Optional(body)];
        self.link().execute(sql, &values).await?;
        Ok(())
    }
}

/// Revisions stay below 2^63: one a nanosecond would take centuries.
pub(crate) fn as_i64(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub(crate) fn parse(key: &ObjectKey, body: &str) -> Result<Object, StoreError> {
    serde_json::from_str(body).map_err(|e| StoreError::Damaged(key.to_string(), e))
}

fn check(key: &ObjectKey, stored: Option<&Object>, precondition: Precondition) -> Result<(), WriteError> {
    let now = stored.and_then(|o| o.metadata.revision);
    match precondition {
        Precondition::Absent if stored.is_some() => Err(WriteError::Exists(key.clone())),
        Precondition::At(expected) if now != Some(expected) => {
            Err(WriteError::Changed { key: key.clone(), expected, now })
        }
        _ => Ok(()),
    }
}

fn same(old: &Object, new: &Object) -> bool {
    old.status == new.status && same_author(old, new)
}

/// What people write is equal.
fn same_author(old: &Object, new: &Object) -> bool {
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
}

fn name_of(key: &ObjectKey) -> [Value<'_>; 3] {
    [Value::Text(&key.kind), Value::Text(&key.namespace), Value::Text(&key.name)]
}

async fn get(mut link: Link<'_>, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
    let sql = "SELECT body FROM documents WHERE kind = $1 AND namespace = $2 AND name = $3";
    let row = link.optional(sql, &name_of(key)).await?;
    row.map(|row| parse(key, row.text(0))).transpose()
}

/// One statement, so one snapshot: the documents and the revision belong together.
async fn list(mut link: Link<'_>, filter: &Filter) -> Result<(Vec<Object>, Revision), StoreError> {
    let sql = "SELECT h.revision, d.kind, d.namespace, d.name, d.body
         FROM head h LEFT JOIN documents d
           ON ($1 IS NULL OR d.kind = $1)
          AND ($2 IS NULL OR d.namespace = $2 OR (d.namespace >= $3 AND d.namespace < $4))
         WHERE h.id = 1
         ORDER BY d.kind, d.namespace, d.name";
    // Without a subtree the range is empty.
    let (first, end) = filter.namespace.as_deref().filter(|_| filter.subtree).map(below).unwrap_or_default();
    let namespace = Value::Optional(filter.namespace.as_deref());
    let values = [Value::Optional(filter.kind.as_deref()), namespace, Value::Text(&first), Value::Text(&end)];
    let rows = link.all(sql, &values).await?;
    let revision = rows.first().map_or(0, |row| row.int(0));
    let objects = rows.iter().filter_map(parse_row);
    let objects = objects.filter(|o| o.as_ref().map_or(true, |o| filter.labels_fit(o)));
    Ok((objects.collect::<Result<_, _>>()?, Revision(revision.unsigned_abs())))
}

fn parse_row(row: &Row) -> Option<Result<Object, StoreError>> {
    let body = row.maybe_text(4)?;
    Some(parse(&ObjectKey::new(row.text(1), row.text(2), row.text(3)), body))
}

/// The range of paths strictly below a namespace: `0` follows `/`.
pub(crate) fn below(namespace: &str) -> (String, String) {
    let stem = namespace.trim_end_matches('/');
    (format!("{stem}/"), format!("{stem}0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_a_list_finds() {
        let filter =
            |namespace: &str, subtree| Filter { namespace: Some(namespace.into()), subtree, ..Filter::default() };
        let key = |namespace| ObjectKey::new("Policy", namespace, "x");
        for (outer, subtree, inner, expected) in [
            ("/a", false, "/a", true),
            ("/a", false, "/a/b", false),
            ("/a", true, "/a/b/c", true),
            ("/a", true, "/ab", false),
            ("/a", true, "/", false),
            ("/", true, "/", true),
            ("/", true, "/a", true),
            ("/", false, "/a", false),
        ] {
            assert_eq!(filter(outer, subtree).covers(&key(inner)), expected, "{outer} {subtree} {inner}");
        }
    }
}
