-- Who changed what: an entry for each act, and a hash over it and the one before.
CREATE TABLE audit (
    sequence BIGINT NOT NULL PRIMARY KEY,
    -- As JSON: the very text that was hashed.
    entry    TEXT   NOT NULL,
    -- SHA-256, lower-case hex.
    hash     TEXT   NOT NULL
);
