//! Following changes: one JSON object a line (`application/x-ndjson`), resumable by revision.

use serde::{Deserialize, Serialize};

use crate::object::{Object, ObjectKey, Revision};

/// Media type of a watch and of a followed flow list.
pub const MEDIA_TYPE: &str = "application/x-ndjson";

/// One line of a watch. Resume with the revision of the last bookmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum WatchEvent {
    /// Created or changed.
    Put {
        /// As it is now. `metadata.revision` is that of its author's last write, which may be long before this change.
        object: Box<Object>,
    },
    /// Gone.
    Delete {
        /// What is gone.
        key: ObjectKey,
        /// When it went.
        revision: Revision,
    },
    /// Everything up to this revision has been sent.
    Bookmark {
        /// Resume from here.
        revision: Revision,
    },
    /// The feed no longer reaches back to the revision asked for: list again, then watch from that revision.
    StartOver,
}

/// Answer to a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectList {
    /// Of one kind, by namespace and name.
    pub items: Vec<Object>,
    /// The revision at which the list is exact; watch from here.
    pub revision: Revision,
}
