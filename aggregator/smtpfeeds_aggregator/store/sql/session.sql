-- The first questions of a connection, before anything is set.

-- name: look
-- Where our tables are: in the schema of the search_path that has them, else where they would be
-- created. The rest is what the session is judged by.
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
-- Only what this server knows: some came with later versions, and not every system can notice in
-- the middle of a statement that its client is gone.
SELECT set_config(wanted.name, wanted.value, false)
FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
WHERE current_setting(wanted.name, true) IS NOT NULL
  AND (wanted.name <> 'client_connection_check_interval' OR version() ~ 'linux');
