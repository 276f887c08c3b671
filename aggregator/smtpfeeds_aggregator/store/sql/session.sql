-- The first statements of a connection, before anything is set.

-- name: look
-- The schema of the tables: the one in the search_path that has them, otherwise the one where they
-- would be created. The other values show whether the session can be used.
SELECT pg_backend_pid(),
    coalesce(
        (SELECT relnamespace::regnamespace::text FROM pg_catalog.pg_class
         WHERE oid = to_regclass('schema_migration')),
        quote_ident(current_schema())
    ),
    current_setting('search_path'),
    current_setting('synchronous_commit'),
    current_setting('server_encoding');

-- name: session_pid
SELECT pg_backend_pid();

-- name: set_up
-- Set only what this server supports: some settings came with later versions, and not every system can
-- notice a lost client during a statement.
SELECT set_config(wanted.name, wanted.value, false)
FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
WHERE current_setting(wanted.name, true) IS NOT NULL
  AND (wanted.name <> 'client_connection_check_interval' OR version() ~ 'linux');
