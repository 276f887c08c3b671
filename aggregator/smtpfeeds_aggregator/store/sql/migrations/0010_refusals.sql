-- oldest reader: 0.1.0
-- oldest writer: 0.1.0
-- Which accounts sent what was refused, and which flood the queue.

-- Refused messages by account, hour (by this clock) and reason: at most ten reasons.
CREATE TABLE refusal (
    -- '': a message that names no account.
    account text COLLATE "C" NOT NULL,
    hour timestamptz NOT NULL,
    reason text COLLATE "C" NOT NULL CHECK (reason ~ '^[a-z_]{1,32}$'),
    messages bigint NOT NULL CHECK (messages > 0),
    octets bigint NOT NULL CHECK (octets >= 0),
    -- How many of the messages, and octets of them, are in the queue of the refused as samples.
    kept bigint NOT NULL CHECK (kept >= 0),
    kept_octets bigint NOT NULL CHECK (kept_octets >= 0),
    last_at timestamptz NOT NULL DEFAULT now(),
    -- What was wrong with the last of them.
    detail text NOT NULL,
    PRIMARY KEY (account, hour, reason)
);

-- Accounts that send more than an honest sensor does, as the last aggregator saw it.
CREATE TABLE flood (
    account text COLLATE "C" PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    messages_per_s double precision NOT NULL,
    octets_per_s double precision NOT NULL,
    refused_per_s double precision NOT NULL,
    -- The commonest reason of the refused ones; else `messages` or `octets`.
    reason text COLLATE "C" NOT NULL
);
