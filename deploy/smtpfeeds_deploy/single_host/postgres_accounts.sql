-- The aggregator's account and database, where they are not there yet. Run by psql at every start,
-- so that a start that was cut short is made good by the next one.
SELECT 'CREATE ROLE smtpfeeds LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'smtpfeeds') \gexec
SELECT 'CREATE DATABASE smtpfeeds OWNER smtpfeeds TEMPLATE template0'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'smtpfeeds') \gexec
