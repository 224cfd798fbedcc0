-- The writing transaction numbers its changes itself, and knows how many are kept, without looking at the others.
ALTER TABLE head ADD COLUMN sequence BIGINT NOT NULL DEFAULT 0;
-- Changes up to this number have been forgotten.
ALTER TABLE head ADD COLUMN forgotten BIGINT NOT NULL DEFAULT 0;

-- Jobs that only one process at a time may do.
CREATE TABLE leases (
    name    TEXT   NOT NULL PRIMARY KEY,
    holder  TEXT   NOT NULL,
    -- Grows with every change of holder.
    fence   BIGINT NOT NULL,
    -- Milliseconds since 1970 by the database's clock.
    expires BIGINT NOT NULL
);
