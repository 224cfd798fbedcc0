//! Following changes: one JSON object a line (`application/x-ndjson`), resumable by revision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::{Object, ObjectKey, Revision};

/// Media type of a watch and of a followed flow list.
pub const MEDIA_TYPE: &str = "application/x-ndjson";

/// One line of a watch. Resume with the revision of the last bookmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// Most objects of one page, and how many there are in a page unless the caller says.
pub const LIMIT_MAX: u32 = 1000;

/// Answer to a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectList {
    /// Of one kind, by namespace and name.
    pub items: Vec<Object>,
    /// Watch from here and miss nothing. A list in one page is exact at this revision. In several pages it is the first
    /// page's: later pages are of their own moment, and a watch from here tells what changed in between.
    pub revision: Revision,
    /// There is more: ask for it with this token. It is of this very list, and holds as long as a watch could start from
    /// its revision.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
