-- Taking a sensor's part out again, from a time on. Locks in the order of all that
-- writes: observation, then sighting, each sorted by key.

-- name: known_sensor
SELECT EXISTS (SELECT FROM sensor WHERE name = %(sensor)s)
    OR EXISTS (SELECT FROM sighting WHERE sensor = %(sensor)s);

-- name: touched
-- Addresses whose sightings by the sensor rest, wholly or in part, on what it said since then.
SELECT host(ip) FROM sighting
WHERE sensor = %(sensor)s AND last_seen >= %(since)s
GROUP BY ip ORDER BY ip;

-- name: lock_observations
SELECT FROM observation WHERE ip = ANY(%(ips)s::inet[]) ORDER BY ip, feed FOR UPDATE;

-- name: delete_sightings
-- Nothing of these was seen before.
WITH doomed AS MATERIALIZED (
    SELECT ip, feed FROM sighting
    WHERE ip = ANY(%(ips)s::inet[]) AND sensor = %(sensor)s AND first_seen >= %(since)s
    ORDER BY ip, feed
    FOR UPDATE
)
DELETE FROM sighting AS s USING doomed AS d
WHERE s.ip = d.ip AND s.feed = d.feed AND s.sensor = %(sensor)s;

-- name: cut_sightings
-- Of these only the first time is certain; the rest cannot be told apart from what goes.
WITH cut AS MATERIALIZED (
    SELECT ip, feed FROM sighting
    WHERE ip = ANY(%(ips)s::inet[]) AND sensor = %(sensor)s
      AND first_seen < %(since)s AND last_seen >= %(since)s
    ORDER BY ip, feed
    FOR UPDATE
)
UPDATE sighting AS s
SET last_seen = s.first_seen, hits = least(s.hits, 1), flags = 0, targets = 0
FROM cut AS c WHERE s.ip = c.ip AND s.feed = c.feed AND s.sensor = %(sensor)s;

-- name: delete_observations
-- Nobody is left who saw them. Who went on to DATA has greeted: data stays within greet.
DELETE FROM observation AS o
WHERE o.ip = ANY(%(ips)s::inet[])
  AND NOT EXISTS (
      SELECT FROM sighting AS s WHERE s.ip = o.ip AND s.feed IN (o.feed, 'smtpdata')
  );

-- name: rebuild_observations
-- What the remaining sightings add up to. A data event raises the greet's times, not its hits.
UPDATE observation AS o
SET first_seen = r.first_seen, last_seen = r.last_seen, hits = r.hits, flags = r.flags
FROM (
    SELECT s.ip, f.feed, min(s.first_seen) AS first_seen, max(s.last_seen) AS last_seen,
           least(
               coalesce(sum(s.hits) FILTER (WHERE s.feed = f.feed), 0), 4611686018427387903
           )::bigint AS hits,
           coalesce(bit_or(s.flags) FILTER (WHERE s.feed = f.feed), 0) AS flags
    FROM sighting AS s
    JOIN (VALUES ('smtpgreet', 'smtpgreet'), ('smtpgreet', 'smtpdata'), ('smtpdata', 'smtpdata'))
        AS f (feed, source) ON s.feed = f.source
    WHERE s.ip = ANY(%(ips)s::inet[])
    GROUP BY s.ip, f.feed
) AS r
WHERE o.ip = r.ip AND o.feed = r.feed;

-- name: delete_activity
-- Hours that began since then; the hour before is mixed and stays.
DELETE FROM activity WHERE sensor = %(sensor)s AND hour >= %(since)s;

-- name: delete_overflow
DELETE FROM prefix_overflow WHERE sensor = %(sensor)s AND first_seen >= %(since)s;

-- name: cut_overflow
UPDATE prefix_overflow SET last_seen = first_seen, hits = least(hits, 1)
WHERE sensor = %(sensor)s AND first_seen < %(since)s AND last_seen >= %(since)s;
