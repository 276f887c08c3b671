-- The grain of the database: who was seen, by whom, when, and what was applied.

-- Known sensors: their account at the broker is their name.
CREATE TABLE sensor (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z0-9-]{1,63}$'),
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    -- Time of ingest of the last batch, by the database's clock.
    heard_at timestamptz,
    -- Time of sealing of the newest batch, by the sensor's clock.
    sealed_at timestamptz,
    version text NOT NULL DEFAULT '',
    counters jsonb NOT NULL DEFAULT '{}',
    spool_depth bigint NOT NULL DEFAULT 0,
    drops bigint NOT NULL DEFAULT 0
);

-- Which batches of a spool were applied: ranges here, the newest in applied_batch.
CREATE TABLE spool (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sensor text COLLATE "C" NOT NULL,
    uuid uuid NOT NULL,
    applied int8multirange NOT NULL DEFAULT '{}',
    heard_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (sensor, uuid)
);

CREATE TABLE applied_batch (
    spool bigint NOT NULL REFERENCES spool ON DELETE CASCADE,
    seq bigint NOT NULL CHECK (seq > 0),
    PRIMARY KEY (spool, seq)
);

CREATE TABLE autonomous_system (
    asn bigint PRIMARY KEY CHECK (asn BETWEEN 1 AND 4294967295),
    name text NOT NULL CHECK (name <> '')
);

-- Which origin tables were in use, when, and where they came from.
CREATE TABLE origin_generation (
    generation text PRIMARY KEY,
    source text NOT NULL,
    table_time timestamptz,
    first_used_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    prefixes bigint NOT NULL,
    origins bigint NOT NULL
);

-- New addresses admitted of an IPv6 /64 in a UTC day.
CREATE TABLE prefix_admission (
    prefix cidr NOT NULL CHECK (family(prefix) = 6 AND masklen(prefix) = 64),
    day date NOT NULL,
    addresses bigint NOT NULL CHECK (addresses >= 0),
    PRIMARY KEY (prefix, day)
);

-- The public grain. No index on last_seen: it would end HOT updates.
CREATE TABLE observation (
    ip inet NOT NULL CHECK (masklen(ip) = CASE family(ip) WHEN 4 THEN 32 ELSE 128 END),
    feed text COLLATE "C" NOT NULL CHECK (feed IN ('smtpgreet', 'smtpdata')),
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    hits bigint NOT NULL CHECK (hits >= 0),
    flags bigint NOT NULL DEFAULT 0,
    asn bigint CHECK (asn BETWEEN 1 AND 4294967295),
    PRIMARY KEY (ip, feed),
    CHECK (first_seen <= last_seen)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX observation_asn ON observation (asn);

-- Who saw it: it alone suffices to rebuild observation.
CREATE TABLE sighting (
    ip inet NOT NULL CHECK (masklen(ip) = CASE family(ip) WHEN 4 THEN 32 ELSE 128 END),
    feed text COLLATE "C" NOT NULL CHECK (feed IN ('smtpgreet', 'smtpdata')),
    sensor text COLLATE "C" NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    hits bigint NOT NULL CHECK (hits >= 0),
    flags bigint NOT NULL DEFAULT 0,
    -- Bitmap of the sensor's own addresses that were hit.
    targets bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (ip, feed, sensor),
    CHECK (first_seen <= last_seen)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Events an hour: what max(last_seen) cannot tell.
CREATE TABLE activity (
    hour timestamptz NOT NULL,
    feed text COLLATE "C" NOT NULL CHECK (feed IN ('smtpgreet', 'smtpdata')),
    sensor text COLLATE "C" NOT NULL,
    events bigint NOT NULL CHECK (events >= 0),
    PRIMARY KEY (hour, feed, sensor)
);

-- Events from a /64 beyond its addresses of the day.
CREATE TABLE prefix_overflow (
    prefix cidr NOT NULL CHECK (family(prefix) = 6 AND masklen(prefix) = 64),
    feed text COLLATE "C" NOT NULL CHECK (feed IN ('smtpgreet', 'smtpdata')),
    sensor text COLLATE "C" NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    hits bigint NOT NULL CHECK (hits >= 0),
    PRIMARY KEY (prefix, feed, sensor),
    CHECK (first_seen <= last_seen)
);

-- Prefixes that are never published.
CREATE TABLE exclusion (
    prefix cidr PRIMARY KEY,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    until timestamptz
);
