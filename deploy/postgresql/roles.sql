-- Creates the database of one installation, and a role for each part. It may be run again.
--
--     runuser -u postgres -- psql --file=- <roles.sql
--
-- smtpfeeds_owner    owns the tables: `migrate`, and an operator's commands
-- smtpfeeds_ingest   the aggregator's `dsn`
-- smtpfeeds_publish  the aggregator's `publish_dsn`
--
-- After `smtpfeeds aggregator migrate`, run `smtpfeeds aggregator roles grant` to grant the privileges.
-- No role has a password; pg_hba.conf decides who may connect.
\set ON_ERROR_STOP on
SELECT format('CREATE ROLE %I LOGIN', name)
FROM (VALUES ('smtpfeeds_owner'), ('smtpfeeds_ingest'), ('smtpfeeds_publish')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
SELECT 'CREATE DATABASE smtpfeeds OWNER smtpfeeds_owner'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'smtpfeeds')
\gexec
-- Only roles with the privilege may connect.
REVOKE ALL ON DATABASE smtpfeeds FROM PUBLIC;
