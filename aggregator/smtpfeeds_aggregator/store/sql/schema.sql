-- The steps that the schema has. A row is written in the transaction of its step.

-- name: lock_schema
-- One `migrate` at a time; the session holds the lock, so it ends with the session.
SELECT pg_advisory_lock(hashtext('smtpfeeds schema'));

-- name: unlock_schema
SELECT pg_advisory_unlock(hashtext('smtpfeeds schema'));

-- name: which_tables
SELECT to_regclass('schema_migration') IS NOT NULL, to_regclass('schema_step') IS NOT NULL;

-- name: create_schema_tables
-- 0.1.0 reads only schema_migration and stops at an unknown row, so that table has the first step, and
-- the steps at which 0.1.0 must stop. All later steps are in schema_step. A role that may only read
-- needs no new grant after an upgrade.
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS schema_step (
    version integer PRIMARY KEY CHECK (version > 1),
    name text NOT NULL,
    -- The oldest smtpfeeds that may still read or write the tables.
    oldest_reader text NOT NULL CHECK (oldest_reader ~ '^[0-9]+[.][0-9]+[.][0-9]+$'),
    oldest_writer text NOT NULL CHECK (oldest_writer ~ '^[0-9]+[.][0-9]+[.][0-9]+$'),
    -- The smtpfeeds that applied it.
    applied_by text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON schema_step TO PUBLIC;

-- name: applied_migrations
SELECT version, name FROM schema_migration ORDER BY version;

-- name: applied_steps
SELECT version, name, oldest_reader, oldest_writer FROM schema_step ORDER BY version;

-- name: record_migration
INSERT INTO schema_migration (version, name) VALUES (%(version)s, %(name)s);

-- name: record_step
INSERT INTO schema_step (version, name, oldest_reader, oldest_writer, applied_by)
VALUES (%(version)s, %(name)s, %(oldest_reader)s, %(oldest_writer)s, %(applied_by)s);
