-- What the command line asks. Nothing here writes, and no statement stays open while
-- its answer is read: long answers come in pages, by the key.

-- name: page_of_range
-- Rows of a range of addresses; the whole of the address space is a range too.
SELECT host(o.ip), o.feed, o.first_seen, o.last_seen, o.hits, o.flags, o.asn, a.name,
       s.sensors, s.targets, o.day, o.days, o.flags_now, o.flags_before, o.actor,
       coalesce(x.hits, 0), coalesce(x.flags, 0), coalesce(x.day, 0),
       coalesce(x.flags_now, 0), coalesce(x.flags_before, 0)
FROM observation AS o LEFT JOIN autonomous_system AS a USING (asn)
LEFT JOIN LATERAL (
    -- Its row in the other feed; LIMIT keeps this a look-up by the key.
    SELECT hits, flags, day, flags_now, flags_before FROM observation
    WHERE ip = o.ip AND feed <> o.feed LIMIT 1
) AS x ON true
CROSS JOIN LATERAL (
    -- A sensor counts once, whatever the epochs of its account.
    SELECT count(*) AS sensors, coalesce(sum(bit_count(targets::bit(64))), 0)::bigint AS targets
    FROM (
        SELECT bit_or(CASE
                   WHEN day / 7 = %(week)s THEN targets_now | targets_before
                   WHEN day / 7 = %(week)s - 1 THEN targets_now
                   WHEN day = 0 THEN targets
                   ELSE 0 END) AS targets
        FROM sighting WHERE ip = o.ip AND feed = o.feed
        GROUP BY split_part(sensor, '@', 1)
    ) AS seen
) AS s
WHERE (o.ip, o.feed) > (%(after_ip)s::inet, %(after_feed)s)
  AND o.ip >= %(low)s::inet AND o.ip <= %(high)s::inet
  AND o.feed = ANY(%(feeds)s)
  AND (%(since)s::timestamptz IS NULL OR o.last_seen >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR o.last_seen < %(until)s)
ORDER BY o.ip, o.feed
LIMIT %(rows)s;

-- name: keys_of_asn
-- Which rows have an autonomous system as their stored origin. Its index has no order by address,
-- so this reads the whole system: for many pages of rows at once.
SELECT host(ip), feed FROM observation
WHERE asn = %(asn)s
  AND (ip, feed) > (%(after_ip)s::inet, %(after_feed)s)
  AND feed = ANY(%(feeds)s)
  AND (%(since)s::timestamptz IS NULL OR last_seen >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR last_seen < %(until)s)
ORDER BY ip, feed
LIMIT %(rows)s;

-- name: page_of_keys
-- The rows of some of these keys; one that has another origin by now is no longer there.
SELECT host(o.ip), o.feed, o.first_seen, o.last_seen, o.hits, o.flags, o.asn, a.name,
       s.sensors, s.targets, o.day, o.days, o.flags_now, o.flags_before, o.actor,
       coalesce(x.hits, 0), coalesce(x.flags, 0), coalesce(x.day, 0),
       coalesce(x.flags_now, 0), coalesce(x.flags_before, 0)
FROM unnest(%(key_ips)s::inet[], %(key_feeds)s::text[]) AS k (ip, feed)
JOIN observation AS o USING (ip, feed)
LEFT JOIN autonomous_system AS a USING (asn)
LEFT JOIN LATERAL (
    -- Its row in the other feed; LIMIT keeps this a look-up by the key.
    SELECT hits, flags, day, flags_now, flags_before FROM observation
    WHERE ip = o.ip AND feed <> o.feed LIMIT 1
) AS x ON true
CROSS JOIN LATERAL (
    -- A sensor counts once, whatever the epochs of its account.
    SELECT count(*) AS sensors, coalesce(sum(bit_count(targets::bit(64))), 0)::bigint AS targets
    FROM (
        SELECT bit_or(CASE
                   WHEN day / 7 = %(week)s THEN targets_now | targets_before
                   WHEN day / 7 = %(week)s - 1 THEN targets_now
                   WHEN day = 0 THEN targets
                   ELSE 0 END) AS targets
        FROM sighting WHERE ip = o.ip AND feed = o.feed
        GROUP BY split_part(sensor, '@', 1)
    ) AS seen
) AS s
WHERE o.asn = %(asn)s
ORDER BY o.ip, o.feed;

-- name: feeds
-- What each feed holds since a time; addresses that are not published are among them.
SELECT feed, count(*), max(last_seen) FROM observation
WHERE last_seen >= %(since)s
GROUP BY feed;

-- name: crowded
-- IPv6 prefixes past their addresses of a day: events without a row of their own, newest first.
SELECT prefix::text, feed, count(DISTINCT split_part(sensor, '@', 1)), min(first_seen), max(last_seen),
       least(sum(hits), 4611686018427387903)::bigint
FROM prefix_overflow
WHERE (%(since)s::timestamptz IS NULL OR last_seen >= %(since)s)
GROUP BY prefix, feed
ORDER BY max(last_seen) DESC, prefix, feed
LIMIT %(rows)s;

-- name: is_crowded
-- Whether a range of IPv6 addresses meets such a prefix, or lies within a wide one; by the key.
SELECT EXISTS (
    SELECT FROM prefix_overflow
    WHERE (
        prefix >= network(set_masklen(%(low)s::inet, 64)) AND prefix <= %(high)s::inet
        OR prefix = network(set_masklen(%(low)s::inet, 48))
        OR prefix = network(set_masklen(%(low)s::inet, 32))
      )
      AND feed = ANY(%(feeds)s)
      AND (%(since)s::timestamptz IS NULL OR last_seen >= %(since)s)
);

-- name: sensors
-- All sensors, with the events of the last 24 hours (by whole hours) and of all that is kept. An
-- account of which nothing was ever taken is there when it was refused or floods.
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
       coalesce(s.drops, 0), coalesce(o.hits, 0), coalesce(r.messages, 0), f.since, f.messages_per_s, f.reason
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
    -- Saturated, as what is summed up is: one sensor's numbers must not hide all others.
    SELECT split_part(sensor, '@', 1) AS sensor,
           least(sum(events), 4611686018427387903)::bigint AS every,
           least(
               sum(events) FILTER (WHERE hour >= now() - interval '24 hours'), 4611686018427387903
           )::bigint AS day
    FROM activity GROUP BY 1
) AS a ON a.sensor = account.name
ORDER BY account.name;

-- name: refusals
-- By hour, the newest first.
SELECT account, hour, reason, messages, octets, kept, last_at, detail
FROM refusal
WHERE (%(account)s::text IS NULL OR account = %(account)s)
  AND (%(since)s::timestamptz IS NULL OR last_at >= %(since)s)
ORDER BY hour DESC, messages DESC, account, reason
LIMIT %(rows)s;

-- name: now
SELECT now();

-- name: sensors_alive
-- Sensors that were heard lately: with few of them breadth says nothing.
SELECT count(*) FROM sensor WHERE heard_at >= now() - make_interval(secs => %(alive_s)s);
