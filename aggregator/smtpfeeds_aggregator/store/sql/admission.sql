-- Bounds on the new addresses that one ingest transaction stores, of a sensor and of IPv6 prefixes.
-- Events past a bound are counted under the prefix or the account.

-- name: sample_new
-- Estimate the number of new addresses of each sensor from a random sample of the pages of incoming.
-- Looking up each address would cost a tenth of ingest.
WITH sample AS MATERIALIZED (
    SELECT sensor, ip FROM incoming TABLESAMPLE SYSTEM (%(percent)s::real) WHERE feed = 'smtpgreet'
)
SELECT s.sensor, (count(*) * 100 / %(percent)s::real)::bigint FROM sample AS s
WHERE NOT EXISTS (SELECT FROM observation AS o WHERE o.ip = s.ip AND o.feed = 'smtpgreet')
GROUP BY s.sensor;

-- name: refuse_of_sensors
-- Remove the new addresses of these sensors that exceed their buckets from incoming, data events with
-- their greets. Returns the removed events, and, with feed NULL, how many new addresses stay.
WITH input AS (
    SELECT * FROM unnest(%(sensors)s::text[], %(rooms)s::bigint[]) AS a (sensor, room)
), ranked AS MATERIALIZED (
    SELECT i.sensor, i.ip, a.room,
        row_number() OVER (PARTITION BY i.sensor ORDER BY i.ip) AS rank
    FROM incoming AS i JOIN input AS a ON a.sensor = i.sensor
    WHERE i.feed = 'smtpgreet'
        AND NOT EXISTS (SELECT FROM observation AS o WHERE o.ip = i.ip AND o.feed = 'smtpgreet')
), gone AS (
    DELETE FROM incoming AS i USING ranked AS r
    WHERE i.sensor = r.sensor AND i.ip = r.ip AND r.rank > r.room
    RETURNING i.sensor, i.feed, i.first_seen, i.last_seen, i.hits
)
SELECT sensor, feed, min(first_seen), max(last_seen),
    least(sum(hits), 4611686018427387903)::bigint, count(*)
FROM gone GROUP BY 1, 2
UNION ALL
SELECT sensor, NULL, NULL, NULL, 0, count(*) FROM ranked WHERE rank <= room GROUP BY 1;

-- name: admit_prefixes
-- Count the new IPv6 addresses under their /64 and the day on which they were first seen; the row stays
-- locked until the end. Returns the /64s that are over the limit now, and an estimate of the new
-- addresses of each /48 and /32: the number of each /64 is rounded at random to a multiple of one_in,
-- so that many single addresses give few rows.
WITH ours AS MATERIALIZED (
    SELECT prefix,
        (greatest(first_seen, now() - %(retention)s::interval) AT TIME ZONE 'UTC')::date AS day,
        count(*) AS addresses
    FROM newcomer GROUP BY 1, 2
), counted AS (
    INSERT INTO prefix_admission AS p (prefix, day, addresses)
    SELECT prefix, day, addresses FROM ours ORDER BY prefix, day
    ON CONFLICT (prefix, day) DO UPDATE SET addresses = p.addresses + EXCLUDED.addresses
    RETURNING p.prefix, p.day, p.addresses
), admitted AS MATERIALIZED (
    SELECT prefix, day, c.addresses AS total,
        floor(
            least(o.addresses, greatest(%(limit)s - (c.addresses - o.addresses), 0))
                / %(one_in)s::float8 + random()
        )::bigint * %(one_in)s AS estimate
    FROM ours AS o JOIN counted AS c USING (prefix, day)
)
SELECT prefix::text, 64, day, total FROM admitted WHERE total > %(limit)s
UNION ALL
SELECT network(set_masklen(prefix, length))::text, length, day, sum(estimate)::bigint
FROM admitted CROSS JOIN (VALUES (48), (32)) AS l (length)
WHERE estimate > 0
GROUP BY 1, 2, 3;

-- name: counts_of_prefixes
SELECT p.prefix::text, masklen(p.prefix), p.day, p.addresses
FROM unnest(%(prefixes)s::cidr[], %(days)s::date[]) AS a (prefix, day)
JOIN prefix_admission AS p ON p.prefix = a.prefix AND p.day = a.day;

-- name: refuse_newcomers
-- Remove the new addresses of these prefixes, all of one length, that are over the limit from incoming.
-- Addresses that another worker stored meanwhile are not new any more (this statement starts after the
-- lock of a /64) and stay. The count of a /64 includes the addresses of this transaction, that of a wide
-- prefix does not.
WITH crowded AS (
    SELECT * FROM unnest(%(prefixes)s::cidr[], %(days)s::date[], %(counts)s::bigint[])
        AS c (prefix, day, addresses)
), ranked AS (
    SELECT n.ip,
        row_number() OVER (PARTITION BY c.prefix, c.day ORDER BY n.ip) AS rank,
        %(limit)s - c.addresses + CASE %(length)s::integer
            WHEN 64 THEN count(*) OVER (PARTITION BY c.prefix, c.day) ELSE 0 END AS room
    FROM newcomer n
    JOIN crowded c ON c.prefix = network(set_masklen(n.ip, %(length)s)) AND c.day =
        (greatest(n.first_seen, now() - %(retention)s::interval) AT TIME ZONE 'UTC')::date
), gone AS (
    DELETE FROM incoming USING ranked
    WHERE incoming.ip = ranked.ip AND ranked.rank > greatest(ranked.room, 0)
    RETURNING incoming.ip, feed, sensor, first_seen, last_seen, hits
)
SELECT network(set_masklen(ip, %(length)s))::text, feed, sensor,
    min(first_seen), max(last_seen), least(sum(hits), 4611686018427387903)::bigint, count(*)
FROM gone GROUP BY 1, 2, 3;

-- name: cap_admissions
UPDATE prefix_admission p SET addresses = %(limit)s
FROM unnest(%(prefixes)s::cidr[], %(days)s::date[]) AS c (prefix, day)
WHERE p.prefix = c.prefix AND p.day = c.day;

-- name: known_overflows
-- The overflows among these that have a row already.
SELECT p.prefix::text, p.feed, p.sensor
FROM unnest(%(prefixes)s::cidr[], %(feeds)s::text[], %(sensors)s::text[])
    AS a (prefix, feed, sensor)
JOIN prefix_overflow AS p ON p.prefix = a.prefix AND p.feed = a.feed AND p.sensor = a.sensor;

-- name: upsert_overflows
INSERT INTO prefix_overflow AS p (prefix, feed, sensor, first_seen, last_seen, hits)
SELECT prefix, feed COLLATE "C", sensor COLLATE "C",
    greatest(least(min(first_seen), now()), now() - %(retention)s::interval),
    least(max(last_seen), now()),
    least(sum(hits), 4611686018427387903)::bigint
FROM unnest(
    %(prefixes)s::cidr[], %(feeds)s::text[], %(sensors)s::text[],
    %(first_seen)s::timestamptz[], %(last_seen)s::timestamptz[], %(hits)s::bigint[]
) AS input (prefix, feed, sensor, first_seen, last_seen, hits)
WHERE last_seen >= now() - %(retention)s::interval
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
ON CONFLICT (prefix, feed, sensor) DO UPDATE SET
    first_seen = least(p.first_seen, EXCLUDED.first_seen),
    last_seen = greatest(p.last_seen, EXCLUDED.last_seen),
    hits = least(p.hits + EXCLUDED.hits, 4611686018427387903),
    last_heard = now();

-- name: upsert_sensor_overflows
INSERT INTO sensor_overflow AS o (sensor, feed, day, first_seen, last_seen, hits)
SELECT sensor COLLATE "C", feed COLLATE "C", (now() AT TIME ZONE 'UTC')::date,
    greatest(least(min(first_seen), now()), now() - %(retention)s::interval),
    least(max(last_seen), now()),
    least(sum(hits), 4611686018427387903)::bigint
FROM unnest(
    %(sensors)s::text[], %(feeds)s::text[],
    %(first_seen)s::timestamptz[], %(last_seen)s::timestamptz[], %(hits)s::bigint[]
) AS input (sensor, feed, first_seen, last_seen, hits)
WHERE last_seen >= now() - %(retention)s::interval
GROUP BY 1, 2
ORDER BY 1, 2
ON CONFLICT (sensor, feed, day) DO UPDATE SET
    first_seen = least(o.first_seen, EXCLUDED.first_seen),
    last_seen = greatest(o.last_seen, EXCLUDED.last_seen),
    hits = least(o.hits + EXCLUDED.hits, 4611686018427387903),
    last_heard = now();

-- name: count_wide
-- Near the end of the transaction, so that workers lock a busy /32 only briefly. Returns the new counts.
INSERT INTO prefix_admission AS p (prefix, day, addresses)
SELECT prefix, day, sum(addresses)::bigint
FROM unnest(%(prefixes)s::cidr[], %(days)s::date[], %(addresses)s::bigint[])
    AS a (prefix, day, addresses)
GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (prefix, day) DO UPDATE SET addresses = p.addresses + EXCLUDED.addresses
RETURNING p.prefix::text, masklen(p.prefix), p.day, p.addresses;
