-- oldest reader: 0.1.0
-- oldest writer: 0.1.0
-- Sensors that have an account and were not heard yet, and those whose account is gone.

ALTER TABLE sensor
    -- When the centre first heard of it; a new epoch resets `heard_at`, not this. NULL: never, or
    -- only by an aggregator of 0.1.0.
    ADD COLUMN first_heard_at timestamptz,
    -- When its account was deleted (`smtpfeeds fleet revoke`); NULL: no command recorded that.
    ADD COLUMN revoked_at timestamptz,
    -- When it was taken out of service (`smtpfeeds fleet retire`): it is not silent.
    ADD COLUMN retired_at timestamptz;

-- Until now a row began with the first batch.
UPDATE sensor SET first_heard_at = enrolled_at;
