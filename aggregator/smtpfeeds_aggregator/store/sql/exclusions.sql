-- Prefixes that are never published, and addresses that are forgotten.

-- name: list_exclusions
-- All exclusions, ended ones too, newest last.
SELECT prefix::text, reason, since, until, until IS NULL OR until > now()
FROM exclusion ORDER BY since, prefix;

-- name: add_exclusion
-- A repeated exclusion of a prefix takes the new reason and end. With `extend` the old reason and the
-- later end stay, so that forgetting never shortens an exclusion.
INSERT INTO exclusion AS e (prefix, reason, until)
VALUES (%(prefix)s::cidr, %(reason)s, %(until)s)
ON CONFLICT (prefix) DO UPDATE SET
    reason = CASE WHEN %(extend)s AND (e.until IS NULL OR e.until > now())
        THEN e.reason ELSE EXCLUDED.reason END,
    since = CASE WHEN e.until <= now() THEN now() ELSE e.since END,
    until = CASE WHEN %(extend)s AND (e.until IS NULL OR e.until > EXCLUDED.until)
        THEN e.until ELSE EXCLUDED.until END
RETURNING until;

-- name: remove_exclusion
DELETE FROM exclusion WHERE prefix = %(prefix)s::cidr;

-- name: stored_addresses
-- Addresses of a range that have a row, after a given one, in key order.
SELECT DISTINCT host(ip), ip FROM (
    SELECT ip FROM observation
    WHERE ip > %(after)s::inet AND ip <= %(high)s::inet AND ip >= %(low)s::inet
    UNION ALL
    SELECT ip FROM sighting
    WHERE ip > %(after)s::inet AND ip <= %(high)s::inet AND ip >= %(low)s::inet
) AS stored (ip)
ORDER BY ip LIMIT %(rows)s;

-- name: count_addresses
SELECT count(DISTINCT ip) FROM observation
WHERE ip >= %(low)s::inet AND ip <= %(high)s::inet;

-- name: lock_observations
SELECT FROM observation WHERE ip = ANY(%(ips)s::inet[]) ORDER BY ip, feed FOR UPDATE;

-- name: forget_observations
DELETE FROM observation WHERE ip = ANY(%(ips)s::inet[]);

-- name: lock_sightings
SELECT FROM sighting WHERE ip = ANY(%(ips)s::inet[]) ORDER BY ip, feed, sensor FOR UPDATE;

-- name: forget_sightings
DELETE FROM sighting WHERE ip = ANY(%(ips)s::inet[]);

-- name: forget_overflows
-- Delete counts of prefixes that lie completely in the forgotten prefix.
DELETE FROM prefix_overflow WHERE prefix <<= %(prefix)s::cidr;
