-- One row: the fleet-wide revision. Every writing transaction locks it first, so writers queue here.
CREATE TABLE head (
    id       BIGINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL,
    -- Changes up to and including this revision have been forgotten: a watch from before it starts over.
    floor    BIGINT NOT NULL
);
INSERT INTO head (id, revision, floor) VALUES (1, 0, 0);

CREATE TABLE documents (
    kind      TEXT   NOT NULL,
    namespace TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    uid       TEXT   NOT NULL UNIQUE,
    revision  BIGINT NOT NULL,
    -- The whole object as JSON.
    body      TEXT   NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);
CREATE INDEX documents_by_namespace ON documents (namespace, kind);

CREATE TABLE changes (
    sequence  BIGINT PRIMARY KEY,
    revision  BIGINT NOT NULL,
    kind      TEXT   NOT NULL,
    namespace TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    -- The object as it was written; NULL for a removal.
    body      TEXT
);
CREATE INDEX changes_by_revision ON changes (revision);

-- Small numbers for byte strings: never changed, never deleted, so a number never means something else.
CREATE TABLE interned (
    space   TEXT   NOT NULL,
    id      BIGINT NOT NULL,
    content BYTEA  NOT NULL,
    PRIMARY KEY (space, id),
    UNIQUE (space, content)
);

-- What the server keeps beside documents: keys, slots, tokens. Not part of the change feed.
CREATE TABLE records (
    space TEXT  NOT NULL,
    key   TEXT  NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (space, key)
);
