-- A role that may read everything and write nothing, for analysts.

-- name: grants
-- The statements that let a role read all present and future tables; the server quotes the names.
SELECT format('GRANT CONNECT ON DATABASE %%I TO %%I', current_database(), %(role)s::text)
UNION ALL SELECT format('GRANT USAGE ON SCHEMA %%I TO %%I', current_schema(), %(role)s::text)
UNION ALL SELECT format('GRANT SELECT ON ALL TABLES IN SCHEMA %%I TO %%I', current_schema(), %(role)s::text)
UNION ALL SELECT format(
    'ALTER DEFAULT PRIVILEGES IN SCHEMA %%I GRANT SELECT ON TABLES TO %%I', current_schema(), %(role)s::text
);

-- name: revokes
-- The statements that revoke it.
SELECT format('REVOKE CONNECT ON DATABASE %%I FROM %%I', current_database(), %(role)s::text)
UNION ALL SELECT format('REVOKE USAGE ON SCHEMA %%I FROM %%I', current_schema(), %(role)s::text)
UNION ALL SELECT format('REVOKE SELECT ON ALL TABLES IN SCHEMA %%I FROM %%I', current_schema(), %(role)s::text)
UNION ALL SELECT format(
    'ALTER DEFAULT PRIVILEGES IN SCHEMA %%I REVOKE SELECT ON TABLES FROM %%I', current_schema(), %(role)s::text
);
