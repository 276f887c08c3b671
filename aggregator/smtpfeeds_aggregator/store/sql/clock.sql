-- The server's clock, and its record.

-- name: read_clock
-- In a transaction, now() is the time that all its statements use.
SELECT now(), noted, acceptances, accepted_ahead_s, doubts FROM database_clock;

-- name: note_clock
-- One row, changed at most once a minute by the first aggregator, so none waits for another. The
-- time is the one that was judged: the clock may have been stepped since, and now() be wrong.
UPDATE database_clock SET noted = %(now)s
WHERE noted < %(now)s - make_interval(secs => %(every_s)s) AND acceptances = %(acceptances)s;

-- name: record_doubt
UPDATE database_clock
SET doubts = %(doubts)s, doubt = %(doubt)s, ahead_s = %(ahead_s)s, doubted_by = %(run)s
WHERE (doubts, doubt, doubted_by) IS DISTINCT FROM (%(doubts)s::text[], %(doubt)s, %(run)s);

-- name: withdraw_doubt
-- This run's doubt, or also another run's, which may have ended.
UPDATE database_clock
SET doubts = '{}', doubt = '', ahead_s = 0, doubted_by = NULL
WHERE doubts <> '{}' AND (doubted_by = %(run)s OR %(others)s);

-- name: clock_status
SELECT clock_timestamp(), noted, accepted_at, accepted_ahead_s, doubts, doubt FROM database_clock;

-- name: accept_clock
-- Only this statement may set the recorded time back.
UPDATE database_clock SET
    noted = now(),
    acceptances = acceptances + 1,
    accepted_at = now(),
    accepted_ahead_s = CASE WHEN 'sensors' = ANY(doubts) THEN ahead_s ELSE accepted_ahead_s END,
    doubts = '{}', doubt = '', ahead_s = 0, doubted_by = NULL
RETURNING now();
