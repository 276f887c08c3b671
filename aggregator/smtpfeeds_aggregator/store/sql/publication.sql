-- The queries of publishing, and what it writes back.

-- name: try_lock
-- One publisher for a directory; the key comes from the directory's own id.
SELECT pg_try_advisory_lock(%(key)s);

-- name: unlock
SELECT pg_advisory_unlock(%(key)s);

-- name: holds_lock
-- Checked just before the switch, because a lock ends with its connection.
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((classid::bigint << 32) | objid::bigint) = %(key)s AND objsubid = 1
);

-- name: is_locked
-- Whether any session has the lock; unlike an attempt to take it, this disturbs no session.
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((classid::bigint << 32) | objid::bigint) = %(key)s AND objsubid = 1
);

-- name: now
-- The clock that ingest clamps last_seen to.
SELECT now();

-- name: exclusions
-- Prefixes that may not be published now.
SELECT prefix::text FROM exclusion
WHERE since <= now() AND (until IS NULL OR until > now())
ORDER BY prefix;

-- name: copy_window
-- The window in rows of equal length, for columns: no NULL, an address as two numbers. It is not
-- sorted here, because a short snapshot keeps more updates HOT. Targets count in this epoch week
-- and the one before, and never more than the sensors have. `only` selects addresses.
COPY (
    SELECT family(o.ip) = 6,
           o.feed = 'smtpdata',
           CASE WHEN family(o.ip) = 6
               THEN ('x' || encode(substring(inet_send(o.ip) FROM 5 FOR 8), 'hex'))::bit(64)::bigint
               ELSE 0 END,
           CASE WHEN family(o.ip) = 6
               THEN ('x' || encode(substring(inet_send(o.ip) FROM 13 FOR 8), 'hex'))::bit(64)::bigint
               ELSE o.ip - inet '0.0.0.0' END,
           o.last_seen, o.first_seen,
           o.hits, coalesce(o.asn, 0), o.day, o.days, o.flags, o.flags_now, o.flags_before,
           coalesce(s.sensors, 0), coalesce(s.targets, 0)
    FROM observation AS o
    LEFT JOIN (
        -- A sensor counts once, even if its account began a new epoch within the window.
        SELECT ip, feed, count(*) AS sensors, sum(targets) AS targets
        FROM (
            SELECT v.ip, v.feed,
                   targets_count(recent_bits(
                       v.targets, v.targets_now, v.targets_before, v.day, v.last_seen, %(week)s
                   ), n.addresses) AS targets
            FROM sighting AS v LEFT JOIN sensor AS n ON n.name = split_part(v.sensor, '@', 1)
            WHERE v.last_seen >= %(since)s AND v.sensor <> ALL(ARRAY(
                SELECT enrolment FROM rotated_enrolment WHERE rotated_at >= %(since)s
            ))
              AND (%(only)s::inet[] IS NULL OR v.ip = ANY(%(only)s::inet[]))
            UNION ALL
            SELECT v.ip, v.feed,
                   targets_count(bit_or(recent_bits(
                       v.targets, v.targets_now, v.targets_before, v.day, v.last_seen, %(week)s
                   )), max(n.addresses))
            FROM sighting AS v LEFT JOIN sensor AS n ON n.name = split_part(v.sensor, '@', 1)
            WHERE EXISTS (SELECT FROM rotated_enrolment WHERE rotated_at >= %(since)s)
              AND v.last_seen >= %(since)s AND v.sensor = ANY(ARRAY(
                SELECT enrolment FROM rotated_enrolment WHERE rotated_at >= %(since)s
            ))
              AND (%(only)s::inet[] IS NULL OR v.ip = ANY(%(only)s::inet[]))
            GROUP BY v.ip, v.feed, split_part(v.sensor, '@', 1)
        ) AS seen
        GROUP BY ip, feed
    ) AS s USING (ip, feed)
    WHERE o.last_seen >= %(since)s
      AND (%(until)s::timestamptz IS NULL OR o.last_seen < %(until)s::timestamptz)
      AND (%(only)s::inet[] IS NULL OR o.ip = ANY(%(only)s::inet[]))
      -- Without rows of behaviours only, which an aggregator of 0.1.0 stores without their event.
      AND (o.hits > 0 OR o.feed = 'smtpgreet' AND EXISTS (
          SELECT FROM observation AS d WHERE d.ip = o.ip AND d.feed = 'smtpdata' AND d.hits > 0
      ))
) TO STDOUT (FORMAT binary);

-- name: addresses_of_window
-- Only the addresses of the same rows, packed and concatenated: one value for each /8 of IPv4 and for
-- each first octet of IPv6, because a client spends more time on a row than on an address.
SELECT family(o.ip), string_agg(substring(inet_send(o.ip) FROM 5), ''::bytea)
FROM observation AS o
WHERE o.last_seen >= %(since)s
  AND o.feed = ANY(%(feeds)s)
  AND (o.hits > 0 OR o.feed = 'smtpgreet' AND EXISTS (
      SELECT FROM observation AS d WHERE d.ip = o.ip AND d.feed = 'smtpdata' AND d.hits > 0
  ))
GROUP BY family(o.ip), get_byte(inet_send(o.ip), 4);

-- name: sensors_alive
-- Number of sensors that were heard lately; with few of them, breadth is no evidence.
SELECT count(*) FROM sensor WHERE heard_at >= now() - make_interval(secs => %(alive_s)s);

-- name: events_by_hour
-- Events of all sensors in the window's hours.
SELECT hour, feed, least(sum(events), 4611686018427387903)::bigint FROM activity
WHERE hour >= date_trunc('hour', %(since)s::timestamptz)
GROUP BY hour, feed ORDER BY hour, feed;

-- name: first_without_origin
-- The first addresses of a feed's window in the order of publication: those without an origin.
SELECT host(ip) FROM observation
WHERE asn IS NULL AND feed = %(feed)s AND last_seen >= %(since)s
  AND (%(until)s::timestamptz IS NULL OR last_seen < %(until)s)
ORDER BY ip LIMIT %(rows)s;

-- name: first_with_origin
-- The addresses that follow, by origin.
SELECT host(ip) FROM observation
WHERE asn > 0 AND feed = %(feed)s AND last_seen >= %(since)s
  AND (%(until)s::timestamptz IS NULL OR last_seen < %(until)s)
ORDER BY asn, ip LIMIT %(rows)s;

-- name: names_of
-- The stored names of some autonomous systems.
SELECT asn, name FROM autonomous_system WHERE asn = ANY(%(asns)s);

-- name: store_names
-- Write names that are new or have changed, in key order as everywhere.
INSERT INTO autonomous_system (asn, name)
SELECT asn, name FROM unnest(%(asns)s::bigint[], %(names)s::text[]) AS new (asn, name)
ORDER BY asn
ON CONFLICT (asn) DO UPDATE SET name = EXCLUDED.name
WHERE autonomous_system.name <> EXCLUDED.name;

-- name: store_origins
-- Update a slice of addresses whose origin differs from the stored one. The rows are locked in key
-- order before any is written. Only asn changes; a row that was deleted meanwhile is not created again.
WITH new AS MATERIALIZED (
    SELECT * FROM unnest(%(ips)s::inet[], %(feeds)s::text[], %(asns)s::bigint[])
        AS n (ip, feed, asn)
), locked AS MATERIALIZED (
    SELECT o.ip, o.feed, n.asn
    FROM observation AS o JOIN new AS n USING (ip, feed)
    WHERE o.asn IS DISTINCT FROM n.asn
    ORDER BY o.ip, o.feed
    FOR NO KEY UPDATE OF o
)
UPDATE observation AS o SET asn = l.asn
FROM locked AS l WHERE o.ip = l.ip AND o.feed = l.feed;

-- name: store_origin_generation
-- Record which origin table a publication used.
INSERT INTO origin_generation (generation, source, table_time, prefixes, origins)
VALUES (%(generation)s, %(source)s, %(table_time)s, %(prefixes)s, %(origins)s)
ON CONFLICT (generation) DO UPDATE SET last_used_at = now();

-- name: events_by_sensor
-- Events of the window by sensor and feed, busiest first.
SELECT sensor, feed, least(sum(events), 4611686018427387903)::bigint AS total FROM activity
WHERE hour >= date_trunc('hour', %(since)s::timestamptz)
GROUP BY sensor, feed ORDER BY total DESC, sensor, feed LIMIT %(rows)s;

-- name: store_summary
-- The last publication replaces the one before, even a later one: a clock may have been wrong.
INSERT INTO publication_summary (generated, content) VALUES (%(generated)s, %(content)s)
ON CONFLICT (only_row) DO UPDATE SET generated = excluded.generated, content = excluded.content;
