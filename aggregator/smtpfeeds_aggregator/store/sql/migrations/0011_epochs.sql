-- oldest reader: 0.1.0
-- oldest writer: 0.1.0
-- Epochs of a sensor's account, and when the centre heard.

-- An epoch ends when the account gets a new password (`smtpfeeds sensors rotate`). What is heard in
-- the first is stored under the sensor's name, as 0.1.0 does; in a later one under NAME@EPOCH, in the
-- column `sensor` of sighting, activity and prefix_overflow. No sensor's name has an `@`.
ALTER TABLE sensor ADD COLUMN epoch integer NOT NULL DEFAULT 1 CHECK (epoch > 0);

-- Epochs that are over.
CREATE TABLE past_epoch (
    sensor text COLLATE "C" NOT NULL,
    epoch integer NOT NULL CHECK (epoch > 0),
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now(),
    -- When all that was heard in it was taken out.
    purged_at timestamptz,
    PRIMARY KEY (sensor, epoch)
);

-- Names under which rows of sensors past their first epoch are stored, and when their last epoch
-- before the current one ended.
CREATE VIEW rotated_enrolment AS
SELECT s.name AS sensor, e.epoch,
    CASE e.epoch WHEN 1 THEN s.name ELSE s.name || '@' || e.epoch END AS enrolment,
    (SELECT max(p.ended_at) FROM past_epoch AS p WHERE p.sensor = s.name) AS rotated_at
FROM sensor AS s CROSS JOIN LATERAL generate_series(1, s.epoch) AS e (epoch)
WHERE s.epoch > 1;

-- Which batches of a spool had been applied when an epoch of its sensor ended.
CREATE TABLE spool_at_epoch_end (
    spool bigint NOT NULL REFERENCES spool ON DELETE CASCADE,
    epoch integer NOT NULL,
    applied int8multirange NOT NULL,
    PRIMARY KEY (spool, epoch)
);

-- By this clock. NULL: before this step; an aggregator of 0.1.0 does not write the later one.
ALTER TABLE sighting ADD COLUMN first_heard timestamptz, ADD COLUMN last_heard timestamptz;
ALTER TABLE sighting
    ALTER COLUMN first_heard SET DEFAULT now(), ALTER COLUMN last_heard SET DEFAULT now();
ALTER TABLE activity ADD COLUMN last_heard timestamptz;
ALTER TABLE activity ALTER COLUMN last_heard SET DEFAULT now();
ALTER TABLE prefix_overflow ADD COLUMN first_heard timestamptz, ADD COLUMN last_heard timestamptz;
ALTER TABLE prefix_overflow
    ALTER COLUMN first_heard SET DEFAULT now(), ALTER COLUMN last_heard SET DEFAULT now();
