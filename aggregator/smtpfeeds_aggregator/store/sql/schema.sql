-- Which steps the schema has. A row is written in the transaction of its step.

-- name: lock_schema
-- One `migrate` at a time; held by the session, so it ends with it.
SELECT pg_advisory_lock(hashtext('smtpfeeds schema'));

-- name: unlock_schema
SELECT pg_advisory_unlock(hashtext('smtpfeeds schema'));

-- name: which_tables
SELECT to_regclass('schema_migration') IS NOT NULL, to_regclass('schema_step') IS NOT NULL;

-- name: create_schema_tables
-- Programs of 0.1.0 read schema_migration alone and stop at a row that they do not know: it has the
-- first step, and such steps as they must stop at. All later steps are in schema_step. An account
-- that may only read needs no further grant after an upgrade.
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
