-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- The lists of scanners and mailers that the last publication used, as ranges that do not overlap,
-- so that a question judges an address as the feeds do, without the lists' files.
CREATE TABLE listed_range (
    low inet PRIMARY KEY,
    high inet NOT NULL,
    -- The entries that hold it, best first: [kind, actor, day of the list, whether the entry is a
    -- single address, list, prefix].
    entries jsonb NOT NULL,
    CHECK (family(low) = family(high) AND low <= high)
);

-- Which generation of the lists that is.
CREATE TABLE lists_in_use (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    generation text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now()
);
