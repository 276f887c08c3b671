-- Which migrations were applied. One row a migration, written in its own transaction.

-- name: lock_schema
-- One `migrate` at a time; held by the session, so it ends with it.
SELECT pg_advisory_lock(hashtext('smtpfeeds schema'));

-- name: unlock_schema
SELECT pg_advisory_unlock(hashtext('smtpfeeds schema'));

-- name: create_schema_migration
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: schema_exists
SELECT to_regclass('schema_migration') IS NOT NULL;

-- name: applied_migrations
SELECT version FROM schema_migration ORDER BY version;

-- name: record_migration
INSERT INTO schema_migration (version, name) VALUES (%(version)s, %(name)s);
