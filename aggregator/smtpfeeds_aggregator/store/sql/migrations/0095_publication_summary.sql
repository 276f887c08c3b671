-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- The statistics of the last publication, made by whichever aggregator published: one row, so
-- that a question about the whole week reads no other table.
CREATE TABLE publication_summary (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generated timestamptz NOT NULL,
    -- JSON of publish/statistics.py; at most a few hundred kilobytes.
    content text NOT NULL CHECK (octet_length(content) <= 4194304)
);
