-- The server's clock, and what is noted of it.

-- name: read_clock
-- In a transaction now() is the time by which all of it is written.
SELECT now(), noted, acceptances, accepted_ahead_s, doubts FROM database_clock;

-- name: note_clock
-- One row, changed at most once a minute, by the one that comes first: nobody waits for another.
UPDATE database_clock SET noted = now()
WHERE noted < now() - make_interval(secs => %(every_s)s);

-- name: record_doubt
UPDATE database_clock
SET doubts = %(doubts)s, doubt = %(doubt)s, ahead_s = %(ahead_s)s, doubted_by = %(run)s
WHERE (doubts, doubt, doubted_by) IS DISTINCT FROM (%(doubts)s::text[], %(doubt)s, %(run)s);

-- name: take_doubt_back
-- Its own; that of another run where that may be gone.
UPDATE database_clock
SET doubts = '{}', doubt = '', ahead_s = 0, doubted_by = NULL
WHERE doubts <> '{}' AND (doubted_by = %(run)s OR %(others)s);

-- name: clock_status
SELECT clock_timestamp(), noted, accepted_at, accepted_ahead_s, doubts, doubt FROM database_clock;

-- name: accept_clock
-- What is noted may go back by this, and by nothing else.
UPDATE database_clock SET
    noted = now(),
    acceptances = acceptances + 1,
    accepted_at = now(),
    accepted_ahead_s = CASE WHEN 'sensors' = ANY(doubts) THEN ahead_s ELSE accepted_ahead_s END,
    doubts = '{}', doubt = '', ahead_s = 0, doubted_by = NULL
RETURNING now();
