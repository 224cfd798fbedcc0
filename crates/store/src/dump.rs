//! Backup and move: the whole database as lines of JSON, the same from either engine, and back into an empty one.
//!
//! A dump is one snapshot: it is read in one transaction, while others write. Its last line has the number of lines and a
//! SHA-256 over all of them, so that half a file is never taken for a whole one. Leases are not part of it: they belong to
//! processes that run.

use std::io::{BufRead, Write};

use api::audit::Fingerprint;
use api::object::Revision;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::postgres::publish;
use crate::sql::{Link, Row, Value};
use crate::{Engine, Store, StoreError};

/// Version of the format.
const FORMAT: u32 = 1;
/// Rows that are read at a time.
const PAGE: i64 = 1000;
/// How far the revision is moved on by a restore: agents refuse to go back behind what they have seen, and after the backup
/// was made they may have seen more.
pub const LEAP: u64 = 1 << 20;

/// Why there is no dump, or none was loaded. Whatever it is, the database is as it was.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// The file cannot be read or written.
    #[error("the file cannot be read or written")]
    File(#[from] std::io::Error),
    /// It is no dump, or a piece of one, or was altered.
    #[error("this is no whole backup: {0}")]
    Damaged(String),
    /// It was made by a newer version.
    #[error("the backup was made by a newer version (format {0})")]
    Newer(u32),
    /// There is something in the database already.
    #[error("the database is not empty")]
    NotEmpty,
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Of the format.
    format: u32,
    /// The revision that everything is of.
    pub revision: u64,
    floor: i64,
    sequence: i64,
    forgotten: i64,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    lines: u64,
    sha256: String,
}

/// A row of a table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    table: String,
    row: Vec<Cell>,
}

/// A value. Bytes are base64.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Cell {
    Int(i64),
    Text(String),
    Bytes { base64: String },
    Null(()),
}

#[derive(Clone, Copy)]
enum Type {
    Int,
    Text,
    Maybe,
    Bytes,
}

/// How a table is read, page by page, and written.
struct Table {
    name: &'static str,
    columns: &'static [Type],
    /// After the key that its placeholders are given, in order of the key; the last placeholder is the page's length.
    select: &'static str,
    insert: &'static str,
    /// Which columns make the key.
    key: &'static [usize],
}

const TABLES: &[Table] = &[
    Table {
        name: "documents",
        columns: &[Type::Text, Type::Text, Type::Text, Type::Text, Type::Int, Type::Text],
        select: "SELECT kind, namespace, name, uid, revision, body FROM documents
                 WHERE (kind, namespace, name) > ($1, $2, $3) ORDER BY kind, namespace, name LIMIT $4",
        insert: "INSERT INTO documents (kind, namespace, name, uid, revision, body) VALUES ($1, $2, $3, $4, $5, $6)",
        key: &[0, 1, 2],
    },
    Table {
        name: "changes",
        columns: &[Type::Int, Type::Int, Type::Text, Type::Text, Type::Text, Type::Maybe],
        select: "SELECT sequence, revision, kind, namespace, name, body FROM changes
                 WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        insert: "INSERT INTO changes (sequence, revision, kind, namespace, name, body) VALUES ($1, $2, $3, $4, $5, $6)",
        key: &[0],
    },
    Table {
        name: "interned",
        columns: &[Type::Text, Type::Int, Type::Bytes],
        select: "SELECT space, id, content FROM interned WHERE (space, id) > ($1, $2) ORDER BY space, id LIMIT $3",
        insert: "INSERT INTO interned (space, id, content) VALUES ($1, $2, $3)",
        key: &[0, 1],
    },
    Table {
        name: "records",
        columns: &[Type::Text, Type::Text, Type::Bytes],
        select: "SELECT space, key, value FROM records WHERE (space, key) > ($1, $2) ORDER BY space, key LIMIT $3",
        insert: "INSERT INTO records (space, key, value) VALUES ($1, $2, $3)",
        key: &[0, 1],
    },
    Table {
        name: "audit",
        columns: &[Type::Int, Type::Text, Type::Text],
        select: "SELECT sequence, entry, hash FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        insert: "INSERT INTO audit (sequence, entry, hash) VALUES ($1, $2, $3)",
        key: &[0],
    },
];

impl Store {
    /// Writes everything to `out`; others go on reading and writing meanwhile. What it is of.
    pub async fn dump(&self, out: &mut (dyn Write + Send)) -> Result<Header, DumpError> {
        let mut reader = self.reader().await?;
        let begin = match &self.inner.engine {
            Engine::Sqlite(_) => "BEGIN",
            Engine::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        reader.link().execute(begin, &[]).await?;
        let dumped = write_all(reader.link(), out).await;
        // Nothing was written; the connection goes back to its pool as it came.
        reader.link().execute("ROLLBACK", &[]).await?;
        dumped
    }

    /// Fills an empty database from a dump, all of it or nothing. With `leap`, revisions go on [`LEAP`] further, and whoever
    /// watched starts over: right for a restore, not needed where nothing was written since the dump.
    pub async fn load(&self, from: &mut (dyn BufRead + Send), leap: bool) -> Result<Header, DumpError> {
        let mut lines = Lines { from, hash: Vec::new(), count: 0 };
        let header: Header = lines.next()?.parse()?;
        if header.format > FORMAT {
            return Err(DumpError::Newer(header.format));
        }
        let mut write = self.begin().await?;
        let empty = write.head.revision == 0
            && write.link().all("SELECT 1 FROM records LIMIT 1", &[]).await?.is_empty()
            && write.link().all("SELECT 1 FROM documents LIMIT 1", &[]).await?.is_empty();
        if !empty {
            return Err(DumpError::NotEmpty);
        }
        while let row @ Read::Row(_) = lines.next()? {
            insert(write.link(), &row.parse()?).await?;
        }
        let revision = header.revision + if leap { LEAP } else { 0 };
        let revision = i64::try_from(revision).map_err(|_| DumpError::Damaged("a revision out of range".into()))?;
        let (floor, forgotten) = if leap { (revision, header.sequence) } else { (header.floor, header.forgotten) };
        let sql =
            "UPDATE head SET revision = $1, floor = $2, sequence = $3, forgotten = $4 WHERE id = 1 AND revision = 0";
        if write.link().execute(sql, &[revision, floor, header.sequence, forgotten].map(Value::Int)).await? != 1 {
            return Err(DumpError::NotEmpty);
        }
        if leap {
            write.link().execute("DELETE FROM changes", &[]).await?;
        }
        write.inner.commit().await?;
        publish(&self.inner.head, Revision(revision.unsigned_abs()));
        Ok(header)
    }
}

async fn write_all(mut link: Link<'_>, out: &mut (dyn Write + Send)) -> Result<Header, DumpError> {
    let row = link.one(crate::HEAD, &[]).await?;
    let header = Header {
        format: FORMAT,
        revision: row.int(0).unsigned_abs(),
        floor: row.int(1),
        sequence: row.int(2),
        forgotten: row.int(3),
    };
    let mut to = Sum { out, hash: Vec::new(), lines: 0 };
    to.line(&header)?;
    for table in TABLES {
        let mut after: Vec<Cell> = table.key.iter().map(|&at| first(table.columns[at])).collect();
        loop {
            let values: Vec<Value<'_>> = after.iter().map(bound).chain([Value::Int(PAGE)]).collect();
            let rows = link.all(table.select, &values).await?;
            for row in &rows {
                let cells: Vec<Cell> = table.columns.iter().enumerate().map(|(at, of)| cell(row, at, *of)).collect();
                after = table.key.iter().map(|&at| cells[at].clone()).collect();
                to.line(&Line { table: table.name.to_owned(), row: cells })?;
            }
            if (rows.len() as i64) < PAGE {
                break;
            }
        }
    }
    let end = End { lines: to.lines, sha256: Fingerprint::of(&to.hash).to_string() };
    serde_json::to_writer(&mut *to.out, &end).map_err(std::io::Error::from)?;
    to.out.write_all(b"\n")?;
    to.out.flush()?;
    Ok(header)
}

/// Below every key of a type.
fn first(of: Type) -> Cell {
    match of {
        Type::Int => Cell::Int(-1),
        _ => Cell::Text(String::new()),
    }
}

fn cell(row: &Row, at: usize, of: Type) -> Cell {
    match of {
        Type::Int => Cell::Int(row.int(at)),
        Type::Text => Cell::Text(row.text(at).to_owned()),
        Type::Maybe => row.maybe_text(at).map_or(Cell::Null(()), |text| Cell::Text(text.to_owned())),
        Type::Bytes => Cell::Bytes { base64: BASE64.encode(row.bytes(at)) },
    }
}

fn bound(cell: &Cell) -> Value<'_> {
    match cell {
        Cell::Int(value) => Value::Int(*value),
        Cell::Text(text) | Cell::Bytes { base64: text } => Value::Text(text),
        Cell::Null(()) => Value::Optional(None),
    }
}

async fn insert(mut link: Link<'_>, line: &Line) -> Result<(), DumpError> {
    let damaged = |what: &str| DumpError::Damaged(format!("{what} in table `{}`", line.table));
    let table = TABLES.iter().find(|table| table.name == line.table).ok_or_else(|| damaged("a row"))?;
    if table.columns.len() != line.row.len() {
        return Err(damaged("a row of another shape"));
    }
    let mut bytes: Vec<Vec<u8>> = Vec::new();
    for cell in &line.row {
        if let Cell::Bytes { base64 } = cell {
            bytes.push(BASE64.decode(base64).map_err(|_| damaged("bytes that are none"))?);
        }
    }
    let mut decoded = bytes.iter();
    let mut values = Vec::with_capacity(line.row.len());
    for (cell, of) in line.row.iter().zip(table.columns) {
        values.push(match (cell, of) {
            (Cell::Int(value), Type::Int) => Value::Int(*value),
            (Cell::Text(text), Type::Text) => Value::Text(text),
            (Cell::Text(text), Type::Maybe) => Value::Optional(Some(text)),
            (Cell::Null(()), Type::Maybe) => Value::Optional(None),
            (Cell::Bytes { .. }, Type::Bytes) => Value::Bytes(decoded.next().map_or(&[], Vec::as_slice)),
            _ => return Err(damaged("a value of another type")),
        });
    }
    link.execute(table.insert, &values).await?;
    Ok(())
}

/// Lines on their way out, counted and hashed: a running hash over the hash before and the line.
struct Sum<'w> {
    out: &'w mut (dyn Write + Send),
    hash: Vec<u8>,
    lines: u64,
}

impl Sum<'_> {
    fn line(&mut self, value: &impl Serialize) -> Result<(), DumpError> {
        let mut text = serde_json::to_string(value).map_err(std::io::Error::from)?;
        text.push('\n');
        self.out.write_all(text.as_bytes())?;
        chain(&mut self.hash, text.as_bytes());
        self.lines += 1;
        Ok(())
    }
}

fn chain(hash: &mut Vec<u8>, line: &[u8]) {
    hash.extend_from_slice(line);
    *hash = Fingerprint::of(hash).as_bytes().to_vec();
}

/// A line that was read.
enum Read {
    Row(String),
    End,
}

impl Read {
    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, DumpError> {
        match self {
            Self::Row(text) => serde_json::from_str(text).map_err(|e| DumpError::Damaged(e.to_string())),
            Self::End => Err(DumpError::Damaged("it has no beginning".into())),
        }
    }
}

/// Lines on their way in; the last one has to fit those before it.
struct Lines<'r> {
    from: &'r mut (dyn BufRead + Send),
    hash: Vec<u8>,
    count: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Read, DumpError> {
        let mut text = String::new();
        let read = self.from.read_line(&mut text).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => DumpError::Damaged("it is no text".into()),
            _ => error.into(),
        })?;
        if read == 0 {
            return Err(DumpError::Damaged("its end is missing".into()));
        }
        if let Ok(end) = serde_json::from_str::<End>(&text) {
            let whole = end.lines == self.count && end.sha256 == Fingerprint::of(&self.hash).to_string();
            return if whole { Ok(Read::End) } else { Err(DumpError::Damaged("its checksum does not fit".into())) };
        }
        chain(&mut self.hash, text.as_bytes());
        self.count += 1;
        Ok(Read::Row(text))
    }
}
