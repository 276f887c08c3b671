-- Privileges of the roles that ingest and publish; readers.sql has those of roles that only read. The
-- owner of the tables has all privileges.

-- part: privileges
-- The privileges of each part on each table and view; '' is none. `ingest` includes maintenance and the
-- clock watch. It begins no epoch and takes no sensor out of service, so of sensor it writes only the
-- columns that batches fill.
privileges (name, ingest, publish) AS (VALUES
    ('activity', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('applied_batch', 'SELECT, INSERT, DELETE', ''),
    ('autonomous_system', 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE'),
    ('database_clock', 'SELECT, UPDATE', 'SELECT'),
    ('exclusion', '', 'SELECT'),
    ('flood', 'SELECT, INSERT, UPDATE, DELETE', ''),
    ('granted_role', '', ''),
    ('listed_range', '', 'SELECT, INSERT, DELETE'),
    ('lists_in_use', '', 'SELECT, INSERT, UPDATE'),
    ('maintenance_round', 'SELECT, INSERT, UPDATE', ''),
    ('observation', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT, UPDATE (asn)'),
    ('origin_generation', '', 'SELECT, INSERT, UPDATE'),
    ('past_epoch', '', ''),
    ('prefix_admission', 'SELECT, INSERT, UPDATE, DELETE', ''),
    ('prefix_overflow', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('publication_summary', '', 'SELECT, INSERT, UPDATE'),
    ('refusal', 'SELECT, INSERT, UPDATE, DELETE', ''),
    ('rotated_enrolment', '', 'SELECT'),
    ('schema_migration', 'SELECT', 'SELECT'),
    ('schema_step', 'SELECT', 'SELECT'),
    ('sensor', 'SELECT, INSERT (name, first_heard_at, heard_at, sealed_at, version, counters, '
        'spool_depth, drops, addresses, new_left, new_left_at), UPDATE (first_heard_at, heard_at, '
        'sealed_at, version, counters, spool_depth, drops, addresses, new_left, new_left_at)',
        'SELECT'),
    ('sensor_overflow', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('sighting', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('spool', 'SELECT, INSERT, UPDATE, DELETE', ''),
    ('spool_at_epoch_end', '', '')
)

-- part: tables
-- These tables and their partitions, because maintenance deletes in each partition by its name.
tables AS (
    SELECT p.name, t.relid AS oid, p.ingest, p.publish
    FROM privileges AS p
    CROSS JOIN LATERAL (
        SELECT to_regclass(p.name) AS relid
        UNION SELECT relid FROM pg_partition_tree(to_regclass(p.name))
    ) AS t
    WHERE t.relid IS NOT NULL
)

-- name: named_tables
WITH {{privileges}} SELECT name FROM privileges ORDER BY name;

-- name: grants
-- The statements that grant a role what its part needs; the server quotes the names.
WITH {{privileges}}, {{tables}}
SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %%I TO %%I', current_database(), %(role)s::text)
UNION ALL SELECT format('GRANT USAGE ON SCHEMA %%I TO %%I', current_schema(), %(role)s::text)
UNION ALL SELECT format('GRANT %%s ON %%s TO %%I', wanted, oid::regclass, %(role)s::text)
FROM (SELECT oid, CASE %(part)s WHEN 'ingest' THEN ingest ELSE publish END AS wanted FROM tables)
    AS t
WHERE wanted <> '';

-- name: revokes
-- The statements that revoke everything from a role. REVOKE on a table includes its columns.
WITH {{privileges}}, {{tables}}
SELECT format('REVOKE ALL ON %%s FROM %%I', oid::regclass, %(role)s::text) FROM tables
UNION ALL SELECT format('REVOKE USAGE ON SCHEMA %%I FROM %%I', current_schema(), %(role)s::text)
UNION ALL SELECT format(
    'REVOKE CONNECT, TEMPORARY ON DATABASE %%I FROM %%I', current_database(), %(role)s::text
);

-- name: role_exists
-- Whether the role exists, and this session's role and database.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s), current_user, current_database();

-- name: note_role
INSERT INTO granted_role (role, part) VALUES (%(role)s, %(part)s) ON CONFLICT DO NOTHING;

-- name: forget_role
DELETE FROM granted_role WHERE role = %(role)s;

-- name: roles
-- The recorded roles with their parts, and whether they still exist.
SELECT g.part, g.role, g.granted_at, EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = g.role)
FROM granted_role AS g ORDER BY g.part, g.role;

-- name: owns_tables
-- Whether this session may grant: as the owner, a member of it, or a superuser.
SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('granted_role');
