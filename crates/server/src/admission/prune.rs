//! Deleting, in the transaction of an apply, what its author applied before and does not apply any more.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use api::apply::{ApplyOutcome, ApplyResult, OWNER, Prune};
use api::kind::revocation::RevocationSpec;
use api::kind::{self, KINDS, NAMESPACE, Spec};
use api::object::{Object, ObjectKey};
use store::Transaction;
use store::document::{Filter, LabelTest, Precondition};

use super::{AdmitError, remove};

/// Deletes what is in scope and not among `kept`; each deletion is checked like any other.
///
/// A Revocation goes only by its owner's word: that a file no longer names it is no reason to let somebody in again.
pub(crate) async fn prune(
    write: &mut Transaction,
    scope: &Prune,
    kept: &BTreeSet<ObjectKey>,
) -> Result<Vec<ApplyResult>, AdmitError> {
    let labels = scope.owner.iter().map(|owner| LabelTest::In(OWNER.to_owned(), vec![owner.clone()])).collect();
    let filter = Filter { kind: None, namespace: scope.namespace.clone(), subtree: true, labels };
    let written = |object: &Object| kind::find(&object.kind).is_some_and(kind::Kind::writable);
    let safe = |object: &Object| scope.owner.is_some() || object.kind != RevocationSpec::KIND;
    let root = |key: &ObjectKey| key.kind == NAMESPACE && key.path() == "/";
    let all = write.list(&filter).await?.into_iter().filter(|object| written(object) && safe(object));
    let mut gone: Vec<ObjectKey> =
        all.map(|object| object.key()).filter(|key| !kept.contains(key) && !root(key)).collect();
    // What stands in others goes before them: the reverse of the order of creation.
    let rank = |key: &ObjectKey| KINDS.iter().position(|kind| kind.name == key.kind);
    gone.sort_by_key(|key| Reverse((rank(key), key.path().len())));
    let mut results = Vec::with_capacity(gone.len());
    for key in gone {
        let object = remove(write, &key, Precondition::None).await?;
        results.push(ApplyResult { object, outcome: ApplyOutcome::Deleted });
    }
    Ok(results)
}
