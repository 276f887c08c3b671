-- The lists of scanners and mailers that the last publication used.

-- name: take_over
-- Returns a row if the generation is another one; its lock lasts until the ranges are stored.
INSERT INTO lists_in_use AS used (generation) VALUES (%(generation)s)
ON CONFLICT (one) DO UPDATE SET generation = EXCLUDED.generation, stored_at = now()
WHERE used.generation <> EXCLUDED.generation
RETURNING generation;

-- name: delete_ranges
DELETE FROM listed_range;

-- name: insert_ranges
INSERT INTO listed_range (low, high, entries)
SELECT * FROM unnest(%(lows)s::inet[], %(highs)s::inet[], %(entries)s::jsonb[]);
