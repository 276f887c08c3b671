-- The queries of the command line, except those of `query` (query.sql). Nothing here writes.

-- name: feeds
-- The content of each feed since a time, with addresses that are not published.
SELECT feed, count(*), max(last_seen) FROM observation
WHERE last_seen >= %(since)s
GROUP BY feed;

-- name: crowded
-- IPv6 prefixes past their bound for a day, with the events counted under them, newest first.
SELECT prefix::text, feed, count(DISTINCT split_part(sensor, '@', 1)), min(first_seen), max(last_seen),
       least(sum(hits), 4611686018427387903)::bigint
FROM prefix_overflow
WHERE (%(since)s::timestamptz IS NULL OR last_seen >= %(since)s)
GROUP BY prefix, feed
ORDER BY max(last_seen) DESC, prefix, feed
LIMIT %(rows)s;

-- name: sensors
-- All sensors, with their events of the last 24 hours (by whole hours) and all kept events. An account
-- whose batches were never accepted is listed if it was refused lately or floods.
WITH refused AS (
    SELECT account, least(sum(messages), 4611686018427387903)::bigint AS messages
    FROM refusal WHERE hour >= now() - interval '24 hours' GROUP BY account
), flooding AS (
    SELECT * FROM flood WHERE last_at >= now() - make_interval(secs => %(flood_s)s)
), account AS (
    SELECT name FROM sensor UNION SELECT account FROM refused UNION SELECT account FROM flooding
)
SELECT account.name, s.heard_at, s.heard_at >= now() - make_interval(secs => %(alive_s)s),
       coalesce(s.version, ''), s.epoch, coalesce(a.day, 0), coalesce(a.every, 0),
       date_part('epoch', s.sealed_at - s.heard_at), coalesce(s.spool_depth, 0),
       coalesce(s.drops, 0), coalesce(o.hits, 0), coalesce(r.messages, 0), f.since, f.messages_per_s, f.reason,
       s.enrolled_at, s.first_heard_at, s.revoked_at, s.retired_at,
       coalesce(
           (SELECT max(p.ended_at) FROM past_epoch AS p WHERE p.sensor = s.name), s.enrolled_at
       )
FROM account
LEFT JOIN sensor AS s ON s.name = account.name
LEFT JOIN refused AS r ON r.account = account.name
LEFT JOIN flooding AS f ON f.account = account.name
LEFT JOIN (
    SELECT split_part(sensor, '@', 1) AS sensor,
           least(sum(hits), 4611686018427387903)::bigint AS hits
    FROM sensor_overflow WHERE last_heard >= now() - interval '24 hours' GROUP BY 1
) AS o ON o.sensor = account.name
LEFT JOIN (
    -- Saturated, because an overflow by one sensor's numbers would fail the query for all.
    SELECT split_part(sensor, '@', 1) AS sensor,
           least(sum(events), 4611686018427387903)::bigint AS every,
           least(
               sum(events) FILTER (WHERE hour >= now() - interval '24 hours'), 4611686018427387903
           )::bigint AS day
    FROM activity GROUP BY 1
) AS a ON a.sensor = account.name
ORDER BY account.name;

-- name: refusals
-- Counts of refused messages by hour, newest first.
SELECT account, hour, reason, messages, octets, kept, last_at, detail
FROM refusal
WHERE (%(account)s::text IS NULL OR account = %(account)s)
  AND (%(since)s::timestamptz IS NULL OR last_at >= %(since)s)
ORDER BY hour DESC, messages DESC, account, reason
LIMIT %(rows)s;

-- name: summary
-- The statistics of the last publication.
SELECT content FROM publication_summary;
