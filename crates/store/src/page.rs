//! Lists in pages: so many documents after a place in the order, and what a later page needs to know.

use api::object::{Object, ObjectKey, Revision};

use crate::document::{Filter, below, parse};
use crate::sql::Value;
use crate::{Store, StoreError};

/// Documents read at once. A page whose labels fit few of them takes several reads.
const BATCH: usize = 1001;

/// Some documents of one kind, by namespace and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// At most as many as were asked for.
    pub objects: Vec<Object>,
    /// Whether there are more behind the last of these.
    pub more: bool,
    /// A watch from here misses nothing that these do not show. A page of at most a thousand documents, whose labels are
    /// not asked for, is one read and exact at this revision.
    pub revision: Revision,
    /// The oldest revision from which a watch still misses nothing.
    pub floor: Revision,
}

/// One statement, so one snapshot: the documents, the revision and the floor belong together. The text placeholders are
/// compared with columns, so that both engines know their type.
const READ: &str = "SELECT h.revision, h.floor, d.namespace, d.name, d.body
     FROM head h LEFT JOIN (
         SELECT namespace, name, body FROM documents
         WHERE kind = $1 AND (namespace > $2 OR (namespace = $2 AND name > $3))
           AND ($4 IS NULL OR namespace = $4 OR (namespace >= $5 AND namespace < $6))
         ORDER BY namespace, name LIMIT $7
     ) d ON 1 = 1
     WHERE h.id = 1
     ORDER BY d.namespace, d.name";

impl Store {
    /// At most `limit` documents of `kind` that a filter lets through, behind `after` (namespace and name; neither has to
    /// exist). The filter's own kind is not looked at.
    ///
    /// Errors: the database. Cost: documents up to the page's end that the filter's namespace covers, not those behind it.
    pub async fn page(
        &self,
        kind: &str,
        filter: &Filter,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let namespace = filter.namespace.as_deref();
        // Without a subtree the range is empty.
        let (first, end) = namespace.filter(|_| filter.subtree).map(below).unwrap_or_default();
        let mut last = after.map_or_else(Default::default, |(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let mut page: Option<Page> = None;
        loop {
            let place = [Value::Text(&last.0), Value::Text(&last.1)];
            let scope = [Value::Optional(namespace), Value::Text(&first), Value::Text(&end)];
            let values = [&[Value::Text(kind)], &place[..], &scope, &[Value::Int(BATCH as i64)]].concat();
            let rows = self.reader().await?.link().all(READ, &values).await?;
            let head = rows.first().ok_or(StoreError::Database(sqlx::Error::RowNotFound))?;
            let number = |at: usize| Revision(head.int(at).unsigned_abs());
            let page = page.get_or_insert_with(|| Page {
                objects: Vec::new(),
                more: false,
                revision: number(0),
                floor: number(1),
            });
            let mut read = 0;
            for row in &rows {
                let Some(body) = row.maybe_text(4) else { continue };
                read += 1;
                let object = parse(&ObjectKey::new(kind, row.text(2), row.text(3)), body)?;
                if !filter.labels_fit(&object) {
                    continue;
                }
                if page.objects.len() == limit {
                    page.more = true;
                    return Ok(page.clone());
                }
                page.objects.push(object);
            }
            match rows.last() {
                Some(row) if read == BATCH => last = (row.text(2).to_owned(), row.text(3).to_owned()),
                _ => return Ok(page.clone()),
            }
        }
    }
}
