-- Removes a part of what a sensor reported: of some enrolments, all rows or those from a time on. Locks
-- are taken in the order that all writers use: observation, then sighting, each sorted by key. A row
-- dated at `since` or later was also heard since then, even if the time of hearing was not recorded.

-- name: heard_recorded_since
-- Since when the database records when the centre heard of a row.
SELECT applied_at FROM schema_step WHERE version = 11;

-- name: count_touched
-- Number of addresses whose sightings depend, fully or in part, on the removed part.
SELECT count(DISTINCT ip) FROM sighting
WHERE sensor = ANY(%(enrolments)s) AND (
    %(since)s::timestamptz IS NULL OR last_heard >= %(since)s OR last_seen >= %(since)s
  );

-- name: touched
-- The next of those addresses, in order.
SELECT host(ip) FROM sighting
WHERE sensor = ANY(%(enrolments)s) AND (
    %(since)s::timestamptz IS NULL OR last_heard >= %(since)s OR last_seen >= %(since)s
  )
  AND ip > %(after)s::inet
GROUP BY ip ORDER BY ip LIMIT %(rows)s;

-- name: lock_observations
SELECT FROM observation WHERE ip = ANY(%(ips)s::inet[]) ORDER BY ip, feed FOR UPDATE;

-- name: delete_sightings
-- Delete sightings that the centre did not hear of before.
WITH doomed AS MATERIALIZED (
    SELECT ip, feed, sensor FROM sighting
    WHERE ip = ANY(%(ips)s::inet[]) AND sensor = ANY(%(enrolments)s)
      AND (
        %(since)s::timestamptz IS NULL OR first_heard >= %(since)s OR first_seen >= %(since)s
      )
    ORDER BY ip, feed, sensor
    FOR UPDATE
)
DELETE FROM sighting AS s USING doomed AS d
WHERE s.ip = d.ip AND s.feed = d.feed AND s.sensor = d.sensor;

-- name: cut_sightings
-- After delete_sightings, so the centre heard of these before as well. It is certain that it heard of
-- them once, and when; first_seen may have been lowered since. If the time of hearing was not recorded
-- then, the first reported time stays.
WITH cut AS MATERIALIZED (
    SELECT ip, feed, sensor, least(coalesce(first_heard, first_seen), last_seen) AS seen
    FROM sighting
    WHERE ip = ANY(%(ips)s::inet[]) AND sensor = ANY(%(enrolments)s)
      AND (last_heard >= %(since)s OR last_seen >= %(since)s)
    ORDER BY ip, feed, sensor
    FOR UPDATE
)
UPDATE sighting AS s
SET first_seen = c.seen, last_seen = c.seen, last_heard = s.first_heard, hits = least(s.hits, 1),
    day = utc_day(c.seen), days = 1, flags = 0, flags_now = 0, flags_before = 0,
    targets = 0, targets_now = 0, targets_before = 0
FROM cut AS c WHERE s.ip = c.ip AND s.feed = c.feed AND s.sensor = c.sensor;

-- name: delete_observations
-- Delete observations without a sighting. A data sighting keeps its greet row.
DELETE FROM observation AS o
WHERE o.ip = ANY(%(ips)s::inet[])
  AND NOT EXISTS (
      SELECT FROM sighting AS s WHERE s.ip = o.ip AND s.feed IN (o.feed, 'smtpdata')
  );

-- name: rebuild_observations
-- Sum up the remaining sightings, relative to today. A data event updates the greet's times and days,
-- not its hits and flags.
UPDATE observation AS o
SET first_seen = r.first_seen, last_seen = r.last_seen, hits = r.hits, day = r.day, days = r.days,
    flags = r.flags_now | r.flags_before, flags_now = r.flags_now, flags_before = r.flags_before
FROM (
    SELECT s.ip, f.feed, min(s.first_seen) AS first_seen, max(s.last_seen) AS last_seen,
           least(
               coalesce(sum(s.hits) FILTER (WHERE s.feed = f.feed), 0), 4611686018427387903
           )::bigint AS hits,
           t.day, bit_or(row_days(s.days, s.day, s.first_seen, s.last_seen, t.day)) AS days,
           coalesce(bit_or(bits_now(
               s.flags, s.flags_now, s.flags_before, s.day, s.last_seen, t.day
           )) FILTER (WHERE s.feed = f.feed), 0) AS flags_now,
           coalesce(bit_or(bits_before(
               s.flags, s.flags_now, s.flags_before, s.day, s.last_seen, t.day
           )) FILTER (WHERE s.feed = f.feed), 0) AS flags_before
    FROM sighting AS s
    JOIN (VALUES ('smtpgreet', 'smtpgreet'), ('smtpgreet', 'smtpdata'), ('smtpdata', 'smtpdata'))
        AS f (feed, source) ON s.feed = f.source
    CROSS JOIN (SELECT utc_day(now()) AS day) AS t
    WHERE s.ip = ANY(%(ips)s::inet[])
    GROUP BY s.ip, f.feed, t.day
) AS r
WHERE o.ip = r.ip AND o.feed = r.feed;

-- name: lock_admissions
SELECT FROM prefix_admission WHERE prefix = ANY(%(prefixes)s::cidr[])
ORDER BY prefix, day FOR UPDATE;

-- name: recount_admissions
-- Count the new addresses of these prefixes again from the remaining rows; runs after the lock.
WITH remaining AS MATERIALIZED (
    SELECT p.prefix, (o.first_seen AT TIME ZONE 'UTC')::date AS day, count(*) AS addresses
    FROM unnest(%(prefixes)s::cidr[]) AS p (prefix)
    JOIN observation AS o ON o.feed = 'smtpgreet' AND o.ip > p.prefix::inet
        AND o.ip <= set_masklen(broadcast(p.prefix), 128)
    GROUP BY 1, 2
), gone AS (
    DELETE FROM prefix_admission AS p
    WHERE p.prefix = ANY(%(prefixes)s::cidr[])
      AND NOT EXISTS (SELECT FROM remaining AS r WHERE r.prefix = p.prefix AND r.day = p.day)
)
INSERT INTO prefix_admission AS p (prefix, day, addresses)
SELECT prefix, day, addresses FROM remaining ORDER BY prefix, day
ON CONFLICT (prefix, day) DO UPDATE SET addresses = EXCLUDED.addresses;

-- name: delete_activity
-- Delete hours with events that were heard since then; earlier events in them cannot be separated.
DELETE FROM activity
WHERE sensor = ANY(%(enrolments)s)
  AND (%(since)s::timestamptz IS NULL OR last_heard >= %(since)s OR hour >= %(since)s);

-- name: delete_overflow
DELETE FROM prefix_overflow
WHERE sensor = ANY(%(enrolments)s)
  AND (
        %(since)s::timestamptz IS NULL OR first_heard >= %(since)s OR first_seen >= %(since)s
      );

-- name: cut_overflow
UPDATE prefix_overflow
SET first_seen = least(coalesce(first_heard, first_seen), last_seen),
    last_seen = least(coalesce(first_heard, first_seen), last_seen),
    last_heard = first_heard, hits = least(hits, 1)
WHERE sensor = ANY(%(enrolments)s) AND (last_heard >= %(since)s OR last_seen >= %(since)s);

-- name: delete_sensor_overflow
-- Delete days with events that were heard since then; earlier events in them cannot be separated.
DELETE FROM sensor_overflow
WHERE sensor = ANY(%(enrolments)s)
  AND (%(since)s::timestamptz IS NULL OR last_heard >= %(since)s);

-- name: lock_wide_admissions
SELECT FROM prefix_admission WHERE masklen(prefix) < 64 ORDER BY prefix, day FOR UPDATE;

-- name: recount_wide_admissions
-- Count all /48s and /32s again from the remaining addresses and /64s past their bound, so that the next
-- purge completes an interrupted one; runs after the lock.
WITH remaining AS MATERIALIZED (
    SELECT network(set_masklen(n.prefix, l.length)) AS prefix, n.day, count(*) AS addresses
    FROM (
        SELECT ip AS prefix, (first_seen AT TIME ZONE 'UTC')::date AS day
        FROM observation WHERE feed = 'smtpgreet' AND ip >= '::/0'
        UNION ALL
        SELECT prefix::inet, (first_seen AT TIME ZONE 'UTC')::date
        FROM prefix_overflow WHERE masklen(prefix) = 64
    ) AS n CROSS JOIN (VALUES (48), (32)) AS l (length)
    GROUP BY 1, 2
), gone AS (
    DELETE FROM prefix_admission AS p
    WHERE masklen(p.prefix) < 64
      AND NOT EXISTS (SELECT FROM remaining AS r WHERE r.prefix = p.prefix AND r.day = p.day)
)
UPDATE prefix_admission AS p SET addresses = r.addresses
FROM remaining AS r WHERE p.prefix = r.prefix AND p.day = r.day AND masklen(p.prefix) < 64;

-- name: lock_spools
SELECT FROM spool WHERE sensor = %(sensor)s ORDER BY sensor, uuid FOR UPDATE;

-- name: forget_batches
-- Forget the epoch's batches, so that one that a sensor sends again counts. They are the batches applied
-- when the epoch ended, less those applied when the previous epoch ended.
WITH forgotten AS MATERIALIZED (
    SELECT s.id AS spool, e.applied - coalesce(
        (
            SELECT b.applied FROM spool_at_epoch_end AS b
            WHERE b.spool = s.id AND b.epoch < %(epoch)s ORDER BY b.epoch DESC LIMIT 1
        ),
        '{}'
    ) AS applied
    FROM spool AS s JOIN spool_at_epoch_end AS e ON e.spool = s.id AND e.epoch = %(epoch)s
    WHERE s.sensor = %(sensor)s
), batches AS (
    DELETE FROM applied_batch AS a USING forgotten AS f
    WHERE a.spool = f.spool AND f.applied @> a.seq
), ends AS (
    UPDATE spool_at_epoch_end AS e SET applied = e.applied - f.applied
    FROM forgotten AS f WHERE e.spool = f.spool AND e.epoch >= %(epoch)s
)
UPDATE spool AS s SET applied = s.applied - f.applied FROM forgotten AS f WHERE s.id = f.spool;

-- name: note_purge
UPDATE past_epoch SET purged_at = now() WHERE sensor = %(sensor)s AND epoch = %(epoch)s;
