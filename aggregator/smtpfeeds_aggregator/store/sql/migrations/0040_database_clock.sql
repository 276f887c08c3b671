-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- What is known of this server's clock: one row, for all aggregators.
CREATE TABLE database_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The newest time at which the clock was beyond doubt, and had been for an hour.
    noted timestamptz NOT NULL,
    -- How often an operator has accepted the clock; a change tells running aggregators.
    acceptances bigint NOT NULL DEFAULT 0,
    accepted_at timestamptz,
    -- By how much the sensors' clocks were ahead of it when it was accepted.
    accepted_ahead_s double precision,
    -- The reasons of an aggregator that doubts it now, in a word each and in a sentence.
    doubts text[] NOT NULL DEFAULT '{}',
    doubt text NOT NULL DEFAULT '',
    ahead_s double precision NOT NULL DEFAULT 0,
    -- Which aggregator wrote that: a number of its own for each run.
    doubted_by uuid
) WITH (fillfactor = 50);

-- A clock that is earlier than this program is wrong from the start. Where nothing was heard yet,
-- nothing more is known.
INSERT INTO database_clock (noted)
SELECT greatest(
    timestamptz '2026-01-01 00:00:00+00',
    (SELECT least(max(heard_at), now()) FROM sensor HAVING count(heard_at) > 0)
);
