-- The statements of an ingest transaction, in this order. Every statement takes its
-- locks sorted by key, so two workers with the same keys wait instead of deadlocking.

-- name: set_up_session
-- Sort and keep a collection's rows in memory, not in files.
SELECT set_config('temp_buffers', '64MB', false), set_config('work_mem', '64MB', false);

-- name: create_incoming
-- One for each connection. The end of the transaction empties it.
CREATE TEMPORARY TABLE IF NOT EXISTS incoming (
    ip inet NOT NULL,
    feed text COLLATE "C" NOT NULL,
    sensor text COLLATE "C" NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    hits bigint NOT NULL,
    -- Relative to today, like the columns below. 0: behaviours without an event.
    days bigint NOT NULL,
    flags_now bigint NOT NULL,
    flags_before bigint NOT NULL,
    targets_now bigint NOT NULL,
    targets_before bigint NOT NULL,
    asn bigint
) ON COMMIT DELETE ROWS;

-- name: create_newcomer
-- The incoming addresses that have no row yet, each with the time it was first seen.
CREATE OR REPLACE TEMPORARY VIEW newcomer AS
SELECT i.ip, network(set_masklen(i.ip, 64)) AS prefix, least(min(i.first_seen), now()) AS first_seen
FROM incoming i
WHERE family(i.ip) = 6
    AND NOT EXISTS (SELECT FROM observation o WHERE o.ip = i.ip AND o.feed = 'smtpgreet')
GROUP BY i.ip;

-- name: this_session
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid();

-- name: end_session
-- End an abandoned session with its locks, if the server still has it. The start
-- distinguishes it from another session with the same id, here or on another server.
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity WHERE pid = %(pid)s AND backend_start = %(start)s;

-- name: share_spools
-- Workers share a spool, the compactor locks it exclusively; advisory locks queue, so each gets its
-- turn. Row locks do not queue: one of two busy workers always has the row FOR SHARE, and the compactor
-- would never get it.
WITH matched AS MATERIALIZED (
    SELECT s.id, s.sensor, s.uuid
    FROM unnest(%(sensors)s::text[], %(uuids)s::uuid[]) AS input (sensor, uuid)
    JOIN spool s ON s.sensor = input.sensor AND s.uuid = input.uuid
    ORDER BY s.id
)
SELECT id, pg_advisory_xact_lock_shared(
    hashtext('smtpfeeds spool'), (id & 2147483647)::integer
) FROM matched;

-- name: sensors
-- The epochs of these sensors' accounts, and how many new addresses they may report: a bucket refills
-- even while the sensor is silent. Runs after lock_spools, whose row locks exclude a rotation: that
-- locks the table spool.
SELECT name, epoch, least(
    %(burst)s, coalesce(new_left, %(burst)s) + greatest(
        date_part('epoch', now() - coalesce(new_left_at, now())) * %(new_per_s)s, 0
    )
)::bigint
FROM sensor WHERE name = ANY(%(sensors)s);

-- name: lock_spools
-- FOR SHARE, after share_spools: it protects the row from the compactor of 0.1.0 too, which has no
-- other lock.
SELECT s.id, s.sensor, s.uuid
FROM unnest(%(sensors)s::text[], %(uuids)s::uuid[]) AS input (sensor, uuid)
JOIN spool s ON s.sensor = input.sensor AND s.uuid = input.uuid
ORDER BY s.sensor, s.uuid
FOR SHARE OF s;

-- name: insert_spools
INSERT INTO spool (sensor, uuid)
SELECT sensor COLLATE "C", uuid
FROM unnest(%(sensors)s::text[], %(uuids)s::uuid[]) AS input (sensor, uuid)
ORDER BY 1, 2
ON CONFLICT (sensor, uuid) DO NOTHING;

-- name: claim_batches
-- A separate statement after the lock, so that it sees what the compactor moved before.
INSERT INTO applied_batch (spool, seq)
SELECT input.spool, input.seq
FROM unnest(%(spools)s::bigint[], %(seqs)s::bigint[]) AS input (spool, seq)
JOIN spool s ON s.id = input.spool
WHERE NOT s.applied @> input.seq
ORDER BY 1, 2
ON CONFLICT (spool, seq) DO NOTHING
RETURNING spool, seq;

-- name: copy_incoming
COPY incoming FROM STDIN (FORMAT binary);

-- name: delete_expired
-- Remove rows older than the retention; they are counted, not stored.
DELETE FROM incoming WHERE last_seen < now() - %(retention)s::interval;

-- name: delete_lone_notes
-- Remove notes (behaviours without an event) whose sensor has no event of the address in its epoch: the
-- event expired, was purged, was counted under a prefix or account, or came in an earlier epoch, whose
-- purge must leave nothing. A note alone makes no entry. A greet row that only data events updated has no
-- hits of its own.
DELETE FROM incoming AS i
WHERE i.days = 0
    AND NOT EXISTS (
        SELECT FROM sighting AS s JOIN observation AS o ON o.ip = s.ip AND o.feed = i.feed
        WHERE s.ip = i.ip AND s.feed IN (i.feed, 'smtpdata') AND s.hits > 0
            AND s.sensor = coalesce(
                (
                    SELECT e.enrolment
                    FROM unnest(%(sensors)s::text[], %(enrolments)s::text[])
                        AS e (sensor, enrolment)
                    WHERE e.sensor = i.sensor
                ),
                i.sensor
            )
    );

-- name: upsert_names
-- Write only names that are new or changed; an unchanged row is not even locked.
INSERT INTO autonomous_system (asn, name)
SELECT input.asn, input.name
FROM unnest(%(asns)s::bigint[], %(names)s::text[]) AS input (asn, name)
WHERE NOT EXISTS (
    SELECT FROM autonomous_system a WHERE a.asn = input.asn AND a.name = input.name
)
ORDER BY 1
ON CONFLICT (asn) DO UPDATE SET name = EXCLUDED.name;

-- How both tables merge into an existing row. Days and bits are relative to today; a row that was
-- written on another day is moved to the later of both days. Notes (rows without days) change no time.

-- part: merge_times
    first_seen = CASE EXCLUDED.days
        WHEN 0 THEN old.first_seen ELSE least(old.first_seen, EXCLUDED.first_seen) END,
    last_seen = CASE EXCLUDED.days
        WHEN 0 THEN old.last_seen ELSE greatest(old.last_seen, EXCLUDED.last_seen) END,
    hits = least(old.hits + EXCLUDED.hits, 4611686018427387903),
    day = greatest(old.day, EXCLUDED.day),
    days = CASE old.day WHEN EXCLUDED.day THEN old.days | EXCLUDED.days ELSE %(days_kept)s & (
        row_days(old.days, old.day, old.first_seen, old.last_seen, greatest(old.day, EXCLUDED.day))
        | days_moved(EXCLUDED.days, greatest(old.day, EXCLUDED.day) - EXCLUDED.day)
    ) END

-- part: merge_bits
-- $bits: flags or targets: all of them, those of this epoch week, and those of the week before.
    $bits_now = CASE old.day WHEN EXCLUDED.day THEN old.$bits_now | EXCLUDED.$bits_now ELSE
        bits_now(old.$bits, old.$bits_now, old.$bits_before, old.day, old.last_seen,
            greatest(old.day, EXCLUDED.day))
        | bits_now(EXCLUDED.$bits, EXCLUDED.$bits_now, EXCLUDED.$bits_before, EXCLUDED.day,
            EXCLUDED.last_seen, greatest(old.day, EXCLUDED.day))
        END,
    $bits_before = CASE old.day WHEN EXCLUDED.day THEN old.$bits_before | EXCLUDED.$bits_before ELSE
        bits_before(old.$bits, old.$bits_now, old.$bits_before, old.day, old.last_seen,
            greatest(old.day, EXCLUDED.day))
        | bits_before(EXCLUDED.$bits, EXCLUDED.$bits_now, EXCLUDED.$bits_before, EXCLUDED.day,
            EXCLUDED.last_seen, greatest(old.day, EXCLUDED.day))
        END,
    $bits = CASE old.day WHEN EXCLUDED.day THEN old.$bits | EXCLUDED.$bits ELSE
        recent_bits(old.$bits, old.$bits_now, old.$bits_before, old.day, old.last_seen,
            greatest(old.day, EXCLUDED.day) / 7)
        | recent_bits(EXCLUDED.$bits, EXCLUDED.$bits_now, EXCLUDED.$bits_before, EXCLUDED.day,
            EXCLUDED.last_seen, greatest(old.day, EXCLUDED.day) / 7)
        END

-- name: upsert_observations
-- Times are clamped to this transaction's clock and to the retention. Counters
-- saturate at 2^62 - 1 (MAX_COUNT in rows.py). Rows are grouped only if an address
-- has rows of two sensors, because grouping costs 8 per cent of a transaction. The
-- other branch of the union is not executed.
INSERT INTO observation AS old (
    ip, feed, first_seen, last_seen, hits, asn, day, days, flags, flags_now, flags_before
)
SELECT ip, feed,
    greatest(least(first_seen, now()), now() - %(retention)s::interval),
    least(last_seen, now()),
    hits, asn, %(today)s, days & %(days_kept)s,
    flags_now | flags_before, flags_now, flags_before
FROM (
    SELECT ip, feed, first_seen, last_seen, hits, asn, days, flags_now, flags_before
    FROM incoming
    WHERE %(one_sensor_each)s::boolean
    UNION ALL
    SELECT ip, feed,
        coalesce(min(first_seen) FILTER (WHERE days <> 0), min(first_seen)),
        coalesce(max(last_seen) FILTER (WHERE days <> 0), max(last_seen)),
        least(sum(hits), 4611686018427387903)::bigint, max(asn),
        bit_or(days), bit_or(flags_now), bit_or(flags_before)
    FROM incoming
    WHERE NOT %(one_sensor_each)s::boolean
    GROUP BY ip, feed
) AS folded
ORDER BY ip, feed
ON CONFLICT (ip, feed) DO UPDATE SET
    {{merge_times}},
    {{merge_bits flags}},
    asn = CASE WHEN %(annotated)s THEN EXCLUDED.asn ELSE old.asn END;

-- name: upsert_sightings
-- A sensor whose account is past its first epoch is stored under the name of its enrolment.
INSERT INTO sighting AS old (
    ip, feed, sensor, first_seen, last_seen, hits, first_heard, last_heard, day, days,
    flags, flags_now, flags_before, targets, targets_now, targets_before
)
SELECT ip, feed, coalesce(e.enrolment, incoming.sensor) AS sensor,
    greatest(least(first_seen, now()), now() - %(retention)s::interval),
    least(last_seen, now()),
    hits, now(), now(), %(today)s, days & %(days_kept)s,
    flags_now | flags_before, flags_now, flags_before,
    targets_now | targets_before, targets_now, targets_before
FROM incoming
LEFT JOIN unnest(%(sensors)s::text[], %(enrolments)s::text[]) AS e (sensor, enrolment)
    ON e.sensor = incoming.sensor
ORDER BY ip, feed, sensor
ON CONFLICT (ip, feed, sensor) DO UPDATE SET
    {{merge_times}},
    {{merge_bits flags}},
    {{merge_bits targets}},
    last_heard = now();

-- name: upsert_activity
-- An hour in the future comes from a wrong clock; it counts as the current hour.
INSERT INTO activity AS a (hour, feed, sensor, events)
SELECT least(hour, date_trunc('hour', now())), feed COLLATE "C", sensor COLLATE "C",
    least(sum(events), 4611686018427387903)::bigint
FROM unnest(
    %(hours)s::timestamptz[], %(feeds)s::text[], %(sensors)s::text[], %(events)s::bigint[]
) AS input (hour, feed, sensor, events)
WHERE hour >= date_trunc('hour', now() - %(retention)s::interval)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
ON CONFLICT (hour, feed, sensor) DO UPDATE SET
    events = least(a.events + EXCLUDED.events, 4611686018427387903),
    last_heard = now();

-- name: upsert_sensors
-- Last, because all batches of a sensor share this row, so it is locked only briefly.
-- A stored time of sealing in the future comes from a wrong clock, and any report replaces it.
-- An enrolled sensor has a row before it is heard; an aggregator of 0.1.0 writes heard_at alone.
INSERT INTO sensor AS s (
    name, first_heard_at, heard_at, sealed_at, version, counters, spool_depth, drops, addresses,
    new_left, new_left_at
)
SELECT name COLLATE "C", now(), now(), sealed_at, version, counters, spool_depth, drops, addresses,
    greatest(%(burst)s - new, 0), now()
FROM unnest(
    %(names)s::text[], %(sealed_at)s::timestamptz[], %(versions)s::text[],
    %(counters)s::jsonb[], %(depths)s::bigint[], %(drops)s::bigint[],
    %(addresses)s::integer[], %(new)s::bigint[]
) AS input (name, sealed_at, version, counters, spool_depth, drops, addresses, new)
ORDER BY 1
ON CONFLICT (name) DO UPDATE SET
    first_heard_at = coalesce(s.first_heard_at, s.heard_at, now()),
    heard_at = greatest(s.heard_at, EXCLUDED.heard_at),
    sealed_at = CASE WHEN s.sealed_at <= now() AND s.sealed_at > EXCLUDED.sealed_at
        THEN s.sealed_at ELSE EXCLUDED.sealed_at END,
    version = CASE WHEN s.sealed_at <= now() AND s.sealed_at > EXCLUDED.sealed_at
        THEN s.version ELSE EXCLUDED.version END,
    counters = CASE WHEN s.sealed_at <= now() AND s.sealed_at > EXCLUDED.sealed_at
        THEN s.counters ELSE EXCLUDED.counters END,
    spool_depth = CASE WHEN s.sealed_at <= now() AND s.sealed_at > EXCLUDED.sealed_at
        THEN s.spool_depth ELSE EXCLUDED.spool_depth END,
    drops = CASE WHEN s.sealed_at <= now() AND s.sealed_at > EXCLUDED.sealed_at
        THEN s.drops ELSE EXCLUDED.drops END,
    addresses = CASE WHEN s.sealed_at <= now() AND s.sealed_at > EXCLUDED.sealed_at
        THEN s.addresses ELSE EXCLUDED.addresses END,
    -- What it may report now, less what it has reported; EXCLUDED.new_left is the burst less that.
    new_left = greatest(0, EXCLUDED.new_left - %(burst)s + least(
        %(burst)s, coalesce(s.new_left, %(burst)s) + greatest(
            date_part('epoch', now() - coalesce(s.new_left_at, now())) * %(new_per_s)s, 0
        )
    )::bigint),
    new_left_at = now()
RETURNING s.name, s.first_heard_at = now();

-- name: check_deferred
-- Check deferred constraints now, in a transaction that is rolled back.
SET CONSTRAINTS ALL IMMEDIATE;
