-- The fleet: sensors that are enrolled, revoked or retired.

-- name: enroll
-- Add rows of sensors that have an account from now on; a revoked or retired one returns to service.
INSERT INTO sensor AS s (name)
SELECT name COLLATE "C" FROM unnest(%(names)s::text[]) AS input (name) ORDER BY 1
ON CONFLICT (name) DO UPDATE SET revoked_at = NULL, retired_at = NULL;

-- name: heard
-- The sensors among these that were heard in their current epoch.
SELECT name FROM sensor WHERE name = ANY(%(names)s) AND heard_at IS NOT NULL ORDER BY name;

-- name: revoked_of
-- The sensors among these that have no account any more.
SELECT name FROM sensor
WHERE name = ANY(%(names)s) AND (revoked_at IS NOT NULL OR retired_at IS NOT NULL) ORDER BY name;

-- name: revoked
UPDATE sensor SET revoked_at = coalesce(revoked_at, now()) WHERE name = %(name)s;

-- name: retired
-- Add a row if there is none: the centre may never have heard a sensor that has an account.
INSERT INTO sensor AS s (name, revoked_at, retired_at) VALUES (%(name)s, now(), now())
ON CONFLICT (name) DO UPDATE SET
    revoked_at = coalesce(s.revoked_at, now()), retired_at = coalesce(s.retired_at, now());

-- name: last_client
-- The newest client of a sensor in all its epochs. It reads all sightings.
SELECT host(ip), last_seen FROM sighting
WHERE sensor = ANY(%(enrolments)s) ORDER BY last_seen DESC LIMIT 1;

-- name: refused
-- Refused messages of an account in the last 24 hours, by reason.
SELECT reason, least(sum(messages), 4611686018427387903)::bigint FROM refusal
WHERE account = %(name)s AND hour >= now() - interval '24 hours'
GROUP BY reason ORDER BY 2 DESC, 1;

-- name: counters
-- What a sensor reported about itself in its newest batch.
SELECT counters, addresses FROM sensor WHERE name = %(name)s;

-- name: heard_again
-- Whether the sensor was heard since its epoch began.
SELECT heard_at IS NOT NULL FROM sensor WHERE name = %(name)s FOR UPDATE;

-- name: forget
-- Delete the sensor itself, after everything that it reported was purged.
WITH spools AS (
    DELETE FROM spool WHERE sensor = %(name)s
), epochs AS (
    DELETE FROM past_epoch WHERE sensor = %(name)s
), refusals AS (
    DELETE FROM refusal WHERE account = %(name)s
), floods AS (
    DELETE FROM flood WHERE account = %(name)s
)
DELETE FROM sensor WHERE name = %(name)s;
