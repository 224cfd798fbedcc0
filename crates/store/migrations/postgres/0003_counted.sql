-- A step of its own: some databases do not see a column in the transaction that adds it.
UPDATE head SET sequence = (SELECT coalesce(max(sequence), 0) FROM changes),
                forgotten = (SELECT coalesce(min(sequence), 1) - 1 FROM changes);
