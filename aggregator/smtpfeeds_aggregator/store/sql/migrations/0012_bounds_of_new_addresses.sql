-- oldest reader: 0.1.0
-- oldest writer: 0.1.0
-- New addresses are bounded for a sensor, an IPv6 /48 and a /32 too.

-- A bucket: how many new addresses the sensor may still report, and when that was so. NULL: it is full.
ALTER TABLE sensor ADD COLUMN new_left bigint, ADD COLUMN new_left_at timestamptz;

-- Events of new addresses past a sensor's bucket, by the day on which the centre heard.
CREATE TABLE sensor_overflow (
    sensor text COLLATE "C" NOT NULL,
    feed text COLLATE "C" NOT NULL CHECK (feed IN ('smtpgreet', 'smtpdata')),
    day date NOT NULL,
    hits bigint NOT NULL CHECK (hits >= 0),
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    last_heard timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sensor, feed, day),
    CHECK (first_seen <= last_seen)
);

-- Counts for a /48 and a /32 are estimates. Programs of 0.1.0 write /64s only.
ALTER TABLE prefix_admission
    DROP CONSTRAINT prefix_admission_prefix_check,
    ADD CONSTRAINT prefix_admission_prefix_check
        CHECK (family(prefix) = 6 AND masklen(prefix) IN (32, 48, 64));
ALTER TABLE prefix_overflow
    DROP CONSTRAINT prefix_overflow_prefix_check,
    ADD CONSTRAINT prefix_overflow_prefix_check
        CHECK (family(prefix) = 6 AND masklen(prefix) IN (32, 48, 64));
