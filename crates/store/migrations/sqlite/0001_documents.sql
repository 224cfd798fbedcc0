-- One row: the fleet-wide revision. Every writing transaction updates it first, so writers queue here.
CREATE TABLE head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    -- Changes up to and including this revision have been forgotten: a watch from before it starts over.
    floor    INTEGER NOT NULL
) STRICT;
INSERT INTO head (id, revision, floor) VALUES (1, 0, 0);

CREATE TABLE documents (
    kind      TEXT    NOT NULL,
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    uid       TEXT    NOT NULL UNIQUE,
    revision  INTEGER NOT NULL,
    -- The whole object as JSON.
    body      TEXT    NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX documents_by_namespace ON documents (namespace, kind);

CREATE TABLE changes (
    sequence  INTEGER PRIMARY KEY AUTOINCREMENT,
    revision  INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    -- The object as it was written; NULL for a removal.
    body      TEXT
) STRICT;
CREATE INDEX changes_by_revision ON changes (revision);

-- Small numbers for byte strings: never changed, never deleted, so a number never means something else.
CREATE TABLE interned (
    space   TEXT    NOT NULL,
    id      INTEGER NOT NULL,
    content BLOB    NOT NULL,
    PRIMARY KEY (space, id),
    UNIQUE (space, content)
) STRICT;

-- What the server keeps beside documents: keys, slots, tokens. Not part of the change feed.
CREATE TABLE records (
    space TEXT NOT NULL,
    key   TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (space, key)
) STRICT, WITHOUT ROWID;
