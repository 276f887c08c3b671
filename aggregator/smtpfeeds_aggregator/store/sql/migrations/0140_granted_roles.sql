-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- Database roles with the privileges of one part of smtpfeeds. `migrate` grants them again, because a
-- later version may need more tables.
CREATE TABLE granted_role (
    role text COLLATE "C" NOT NULL CHECK (role <> ''),
    part text COLLATE "C" NOT NULL CHECK (part IN ('ingest', 'publish', 'read')),
    granted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role, part)
);
