-- Epochs of sensors' accounts: list them, and end one.

-- name: epochs
-- All epochs of a sensor, the current one last, which has no end.
SELECT epoch, began_at, ended_at, purged_at FROM past_epoch WHERE sensor = %(sensor)s
UNION ALL
SELECT s.epoch, coalesce(p.ended_at, s.enrolled_at), NULL, NULL
FROM sensor AS s
LEFT JOIN past_epoch AS p ON p.sensor = s.name AND p.epoch = s.epoch - 1
WHERE s.name = %(sensor)s
ORDER BY 1;

-- name: lock_spools
-- Wait for all running ingest transactions, those of 0.1.0 too, and keep new ones out: each locks rows
-- of this table FOR SHARE before it reads the epochs of its sensors.
LOCK TABLE spool IN EXCLUSIVE MODE;

-- name: note_applied
-- Record the batches of each spool of the sensor that were applied when its epoch ended.
INSERT INTO spool_at_epoch_end (spool, epoch, applied)
SELECT s.id, n.epoch, s.applied + coalesce(
    (SELECT range_agg(int8range(a.seq, a.seq + 1)) FROM applied_batch AS a WHERE a.spool = s.id),
    '{}'
)
FROM sensor AS n JOIN spool AS s ON s.sensor = n.name
WHERE n.name = %(sensor)s;

-- name: note_epoch
INSERT INTO past_epoch (sensor, epoch, began_at)
SELECT s.name, s.epoch, coalesce(p.ended_at, s.enrolled_at)
FROM sensor AS s
LEFT JOIN past_epoch AS p ON p.sensor = s.name AND p.epoch = s.epoch - 1
WHERE s.name = %(sensor)s;

-- name: begin_epoch
-- Reset what the sensor reported about itself; its next batch sets it again.
UPDATE sensor SET epoch = epoch + 1, heard_at = NULL, sealed_at = NULL, version = '',
    counters = '{}', spool_depth = 0, drops = 0, addresses = 0, new_left = NULL, new_left_at = NULL
WHERE name = %(sensor)s
RETURNING epoch;
