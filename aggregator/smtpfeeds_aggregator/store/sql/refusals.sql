-- Counts of refused messages, and records of floods, by account.

-- name: lock_refusals
-- Aggregators count one at a time, so that the samples of an hour are exact and no two deadlock.
SELECT pg_advisory_xact_lock(hashtext('smtpfeeds refusals'));

-- name: samples_of_hour
-- Samples already kept of these accounts in this hour.
SELECT account, sum(kept)::bigint, sum(kept_octets)::bigint
FROM refusal
WHERE hour = date_trunc('hour', now()) AND account = ANY(%(accounts)s)
GROUP BY account;

-- name: upsert_refusals
INSERT INTO refusal AS r (account, hour, reason, messages, octets, kept, kept_octets, detail)
SELECT account, date_trunc('hour', now()), reason, messages, octets, kept, kept_octets, detail
FROM unnest(
    %(accounts)s::text[], %(reasons)s::text[], %(messages)s::bigint[], %(octets)s::bigint[],
    %(kept)s::bigint[], %(kept_octets)s::bigint[], %(details)s::text[]
) AS input (account, reason, messages, octets, kept, kept_octets, detail)
ON CONFLICT (account, hour, reason) DO UPDATE SET
    messages = least(r.messages + EXCLUDED.messages, 4611686018427387903),
    octets = least(r.octets + EXCLUDED.octets, 4611686018427387903),
    kept = r.kept + EXCLUDED.kept,
    kept_octets = r.kept_octets + EXCLUDED.kept_octets,
    last_at = now(),
    detail = EXCLUDED.detail;

-- name: upsert_floods
-- A flood that was over for a minute begins again.
INSERT INTO flood AS f (account, messages_per_s, octets_per_s, refused_per_s, reason)
SELECT *
FROM unnest(
    %(accounts)s::text[], %(messages)s::float8[], %(octets)s::float8[], %(refused)s::float8[],
    %(reasons)s::text[]
) AS input (account, messages_per_s, octets_per_s, refused_per_s, reason)
ORDER BY 1
ON CONFLICT (account) DO UPDATE SET
    since = CASE WHEN f.last_at < now() - interval '1 minute' THEN now() ELSE f.since END,
    last_at = now(),
    messages_per_s = EXCLUDED.messages_per_s,
    octets_per_s = EXCLUDED.octets_per_s,
    refused_per_s = EXCLUDED.refused_per_s,
    reason = EXCLUDED.reason;
