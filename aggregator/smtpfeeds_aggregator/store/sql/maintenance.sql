-- Keeps the tables small: moves applied batches into ranges and deletes old rows, in slices. The age
-- of a row counts from a checked time (%(now)s), not from the server's clock.

-- name: try_lock_maintenance
-- One aggregator at a time; held by the session.
SELECT pg_try_advisory_lock(hashtext('smtpfeeds maintenance'));

-- name: unlock_maintenance
SELECT pg_advisory_unlock(hashtext('smtpfeeds maintenance'));

-- name: spools_to_compact
-- A few numbers stay in applied_batch until there are enough for a transaction.
SELECT spool FROM applied_batch
GROUP BY spool HAVING count(*) >= %(batches)s
ORDER BY spool LIMIT %(spools)s;

-- name: limit_waits
-- Until lift_limit. It limits the statement too, because a wait for a row that busy workers lock in turn
-- consists of many waits, and lock_timeout applies to each alone.
SELECT current_setting('statement_timeout'),
    set_config('lock_timeout', %(wait)s, true), set_config('statement_timeout', %(wait)s, true);

-- name: lift_limit
SELECT set_config('statement_timeout', %(before)s, true);

-- name: take_spool
-- Wait for the workers that share it (share_spools in ingest.sql); later workers wait for this lock.
SELECT pg_advisory_xact_lock(hashtext('smtpfeeds spool'), (%(spool)s & 2147483647)::integer);

-- name: lock_spool
-- After take_spool: wait for workers of 0.1.0, which lock only the row.
SELECT id FROM spool WHERE id = %(spool)s FOR UPDATE;

-- name: compact_spool
-- Past the bound on fragments the lowest gaps are closed: batches in them count as
-- applied. No honest sensor leaves that many gaps, because at most four of its batches
-- are in transit at any time. If another compactor was first, nothing is added, and
-- nothing may be lost: without rows range_agg is NULL.
WITH gone AS (
    DELETE FROM applied_batch WHERE spool = %(spool)s RETURNING seq
), merged AS (
    SELECT s.applied + coalesce((SELECT range_agg(int8range(seq, seq + 1)) FROM gone), '{}')
        AS applied
    FROM spool s WHERE s.id = %(spool)s
), pieces AS (
    SELECT piece, row_number() OVER (ORDER BY piece DESC) AS rank
    FROM merged, unnest(merged.applied) AS piece
), bounded AS (
    SELECT range_agg(piece) FILTER (WHERE rank < %(fragments)s) AS kept,
        int8range(
            min(lower(piece)) FILTER (WHERE rank >= %(fragments)s),
            max(upper(piece)) FILTER (WHERE rank >= %(fragments)s)
        ) AS closed,
        count(*) FILTER (WHERE rank >= %(fragments)s) AS closed_pieces
    FROM pieces
)
UPDATE spool SET
    heard_at = greatest(spool.heard_at, now()),
    applied = coalesce(b.kept, '{}')
        + CASE WHEN b.closed_pieces > 0 THEN int8multirange(b.closed) ELSE '{}' END
FROM bounded b WHERE id = %(spool)s
RETURNING (SELECT count(*) FROM gone);

-- name: delete_spools
-- All that such a spool may still deliver is older than the retention, and would not be stored.
WITH victim AS MATERIALIZED (
    SELECT s.id FROM spool s
    WHERE s.heard_at < %(now)s::timestamptz - %(retention)s::interval - interval '7 days'
        AND NOT EXISTS (SELECT FROM applied_batch a WHERE a.spool = s.id)
    ORDER BY s.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM spool USING victim WHERE spool.id = victim.id;

-- name: retention_due
-- A round is valid for a day; one in the future was recorded by a wrong clock.
SELECT NOT EXISTS (
    SELECT FROM maintenance_round WHERE task = 'retention'
        AND finished_at > %(now)s::timestamptz - interval '1 day'
        AND finished_at <= %(now)s::timestamptz
);

-- name: note_retention
INSERT INTO maintenance_round (task, finished_at) VALUES ('retention', %(now)s)
ON CONFLICT (task) DO UPDATE SET finished_at = EXCLUDED.finished_at;

-- name: parts
-- A table or its partitions, and their pages now.
SELECT n.nspname::text, c.relname::text,
    pg_relation_size(c.oid) / current_setting('block_size')::bigint
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.oid IN (
    SELECT %(table)s::regclass UNION SELECT relid FROM pg_partition_tree(%(table)s::regclass)
) ORDER BY c.relname;

-- name: retire_observation_pages
-- Delete old rows in some pages of observation or a partition of it, each with all its sightings: those
-- are kept as long as the address, because a purge rebuilds observations from them. It reads in the
-- order of pages. The age is checked on the locked row, so rows that ingest updated meanwhile stay;
-- rows that ingest has locked now wait for the next round.
WITH gone AS (
    DELETE FROM {part} AS o
    WHERE o.ctid = ANY (ARRAY(
        SELECT v.ctid FROM {part} AS v
        WHERE v.ctid >= %(first)s::tid AND v.ctid < %(end)s::tid
            AND v.last_seen < %(now)s::timestamptz - %(retention)s::interval
        FOR UPDATE SKIP LOCKED
    )) AND o.last_seen < %(now)s::timestamptz - %(retention)s::interval
    RETURNING o.ip, o.feed
), seen AS (
    DELETE FROM sighting AS s USING gone AS g WHERE s.ip = g.ip AND s.feed = g.feed
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM seen);

-- name: retire_sighting_pages
-- Delete old sightings without an observation in some pages: 0.1.0 deletes the two separately.
WITH gone AS (
    DELETE FROM {part} AS s
    WHERE s.ctid = ANY (ARRAY(
        SELECT v.ctid FROM {part} AS v
        WHERE v.ctid >= %(first)s::tid AND v.ctid < %(end)s::tid
            AND v.last_seen < %(now)s::timestamptz - %(retention)s::interval
            AND NOT EXISTS (SELECT FROM observation AS o WHERE o.ip = v.ip AND o.feed = v.feed)
        FOR UPDATE SKIP LOCKED
    )) AND s.last_seen < %(now)s::timestamptz - %(retention)s::interval
    RETURNING 1
)
SELECT 0, (SELECT count(*) FROM gone);

-- name: retire_activity
WITH victim AS MATERIALIZED (
    SELECT hour, feed, sensor FROM activity
    WHERE hour < date_trunc('hour', %(now)s::timestamptz - %(retention)s::interval)
    ORDER BY hour, feed, sensor LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM activity a USING victim v
WHERE a.hour = v.hour AND a.feed = v.feed AND a.sensor = v.sensor;

-- name: retire_overflows
WITH victim AS MATERIALIZED (
    SELECT prefix, feed, sensor FROM prefix_overflow
    WHERE last_seen < %(now)s::timestamptz - %(retention)s::interval
    ORDER BY prefix, feed, sensor LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM prefix_overflow p USING victim v
WHERE p.prefix = v.prefix AND p.feed = v.feed AND p.sensor = v.sensor
    AND p.last_seen < %(now)s::timestamptz - %(retention)s::interval;

-- name: retire_admissions
WITH victim AS MATERIALIZED (
    SELECT prefix, day FROM prefix_admission
    WHERE day < (%(now)s::timestamptz - %(retention)s::interval)::date
    ORDER BY prefix, day LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM prefix_admission p USING victim v WHERE p.prefix = v.prefix AND p.day = v.day;

-- name: retire_refusals
WITH victim AS MATERIALIZED (
    SELECT account, hour, reason FROM refusal
    WHERE hour < date_trunc('hour', %(now)s::timestamptz - %(retention)s::interval)
    ORDER BY account, hour, reason LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM refusal r USING victim v
WHERE r.account = v.account AND r.hour = v.hour AND r.reason = v.reason;

-- name: retire_floods
WITH victim AS MATERIALIZED (
    SELECT account FROM flood WHERE last_at < %(now)s::timestamptz - %(retention)s::interval
    ORDER BY account LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM flood f USING victim v
WHERE f.account = v.account AND f.last_at < %(now)s::timestamptz - %(retention)s::interval;

-- name: retire_sensor_overflows
WITH victim AS MATERIALIZED (
    SELECT sensor, feed, day FROM sensor_overflow
    WHERE day < (%(now)s::timestamptz - %(retention)s::interval)::date
    ORDER BY sensor, feed, day LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM sensor_overflow o USING victim v
WHERE o.sensor = v.sensor AND o.feed = v.feed AND o.day = v.day;
