-- The queries of `smtpfeeds query`. Nothing here writes, and no statement stays open while its answer
-- is read.

-- name: moment
-- The database's clock, and the number of sensors that are alive.
SELECT floor(extract(epoch FROM now()))::bigint,
       (SELECT count(*) FROM sensor WHERE heard_at >= now() - make_interval(secs => %(alive_s)s));

-- name: rows_of_ranges
-- A number of rows of each range of addresses, with the data that their class depends on: the address's
-- row in the other feed, its sensors, and the list entries that contain it. Each range is an index scan,
-- so the size of the table does not matter.
SELECT t.place::int, host(o.ip), o.feed,
       floor(extract(epoch FROM o.first_seen))::bigint, floor(extract(epoch FROM o.last_seen))::bigint,
       o.hits, o.flags, o.asn, a.name, o.day, o.days, o.flags_now, o.flags_before,
       s.sensors, s.targets, s.recent,
       x.last_seen, x.hits, x.flags, x.day, x.flags_now, x.flags_before, s.recent_other,
       l.entries
FROM unnest(%(lows)s::inet[], %(highs)s::inet[]) WITH ORDINALITY AS t (low, high, place)
CROSS JOIN LATERAL (
    SELECT * FROM observation AS every
    WHERE ip BETWEEN t.low AND t.high
      -- A continued page begins with the last address, because its other feed may be missing. As a
      -- row comparison, this would replace t.low as the lower bound of the index scan.
      AND (ip > t.low OR feed > %(after_feed)s)
      AND feed = ANY(%(feeds)s)
      AND (%(since)s::timestamptz IS NULL OR last_seen >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR last_seen < %(until)s)
      AND (%(first_since)s::timestamptz IS NULL OR first_seen >= %(first_since)s)
      AND hits >= %(min_hits)s
      -- Without rows of behaviours only, which an aggregator of 0.1.0 stores without their event.
      AND (hits > 0 OR feed = 'smtpgreet' AND EXISTS (
          SELECT FROM observation AS d WHERE d.ip = every.ip AND d.feed = 'smtpdata' AND d.hits > 0
          -- OFFSET makes the planner look up the key; a hash would read the whole table.
          OFFSET 0
      ))
      AND (%(family)s::int IS NULL OR family(ip) = %(family)s)
      AND (%(sensor)s::text IS NULL OR EXISTS (
          SELECT FROM sighting
          WHERE ip = every.ip AND feed = every.feed AND split_part(sensor, '@', 1) = %(sensor)s
          OFFSET 0
      ))
    ORDER BY ip, feed
    LIMIT %(rows)s
) AS o
LEFT JOIN autonomous_system AS a ON a.asn = o.asn
LEFT JOIN LATERAL (
    -- LIMIT makes the planner look up the key.
    SELECT floor(extract(epoch FROM last_seen))::bigint AS last_seen, hits, flags, day,
           flags_now, flags_before
    FROM observation WHERE ip = o.ip AND feed <> o.feed LIMIT 1
) AS x ON true
CROSS JOIN LATERAL (
    -- A sensor counts once, even with several epochs.
    SELECT count(*) FILTER (WHERE feed = o.feed) AS sensors,
           coalesce(sum(
               targets_count(bits, (SELECT addresses FROM sensor WHERE name = seen.sensor))
           ) FILTER (WHERE feed = o.feed), 0) AS targets,
           count(*) FILTER (WHERE feed = o.feed AND is_recent) AS recent,
           count(*) FILTER (WHERE feed <> o.feed AND is_recent) AS recent_other
    FROM (
        SELECT feed, split_part(sensor, '@', 1) AS sensor,
               bool_or(last_seen >= %(window)s) AS is_recent,
               bit_or(recent_bits(
                   targets, targets_now, targets_before, day, last_seen, %(week)s
               )) AS bits
        FROM sighting WHERE ip = o.ip GROUP BY 1, 2
    ) AS seen
) AS s
LEFT JOIN LATERAL (
    SELECT CASE WHEN high >= o.ip THEN entries END AS entries FROM listed_range
    WHERE low <= o.ip ORDER BY low DESC LIMIT 1
) AS l ON true
ORDER BY t.place, o.ip, o.feed;

-- name: keys_of_asns
-- The addresses whose stored origin is one of these ASNs. The index is not sorted by address, so this
-- reads all rows of the ASNs; it returns enough addresses for many pages of rows.
SELECT host(ip) FROM observation
WHERE asn = ANY(%(asns)s) AND ip > %(after_ip)s::inet
GROUP BY ip ORDER BY ip
LIMIT %(rows)s;

-- name: asns_named
-- The autonomous systems whose names contain a text.
SELECT asn FROM autonomous_system
WHERE position(lower(%(text)s) IN lower(name)) > 0
ORDER BY asn LIMIT %(rows)s;

-- name: ranges_of_actor
-- The ranges that a list of scanners gives to this actor.
SELECT host(low), host(high) FROM listed_range
WHERE EXISTS (
    SELECT FROM jsonb_array_elements(entries) AS entry
    WHERE entry ->> 0 = 'scanner' AND lower(entry ->> 1) = lower(%(actor)s)
)
ORDER BY low;

-- name: crowded_of_ranges
-- The ranges of IPv6 addresses that meet a prefix past its bound, or lie within a wide one.
SELECT t.place::int, p.prefix::text, p.events, p.last_seen
FROM unnest(%(lows)s::inet[], %(highs)s::inet[]) WITH ORDINALITY AS t (low, high, place)
CROSS JOIN LATERAL (
    SELECT prefix, least(sum(hits), 4611686018427387903)::bigint AS events,
           max(last_seen) AS last_seen
    FROM prefix_overflow
    WHERE (
        prefix >= network(set_masklen(t.low, 64)) AND prefix <= t.high
        OR prefix = network(set_masklen(t.low, 48))
        OR prefix = network(set_masklen(t.low, 32))
      )
      AND feed = ANY(%(feeds)s)
      AND (%(since)s::timestamptz IS NULL OR last_seen >= %(since)s)
    GROUP BY prefix ORDER BY max(last_seen) DESC LIMIT 1
) AS p
ORDER BY t.place;

-- name: sensors_of
-- The sensors that saw an address, and how many of their addresses it contacted lately.
SELECT split_part(s.sensor, '@', 1), s.feed, least(sum(s.hits), 4611686018427387903)::bigint,
       min(s.first_seen), max(s.last_seen),
       targets_count(bit_or(recent_bits(
           s.targets, s.targets_now, s.targets_before, s.day, s.last_seen, %(week)s
       )), max(n.addresses)),
       coalesce(max(n.addresses), 0)
FROM sighting AS s LEFT JOIN sensor AS n ON n.name = split_part(s.sensor, '@', 1)
WHERE s.ip = %(ip)s::inet
GROUP BY 1, 2 ORDER BY 1, 2 DESC;

-- name: exclusions_of
-- The exclusions in force that contain an address.
SELECT prefix::text, reason, until FROM exclusion
WHERE prefix >>= %(ip)s::inet AND since <= now() AND (until IS NULL OR until > now())
ORDER BY masklen(prefix) DESC;

-- name: origin_in_use
-- The origin table that the last publication used.
SELECT generation, table_time FROM origin_generation ORDER BY last_used_at DESC LIMIT 1;
