-- Create the aggregator's account and database if they are missing. psql runs this at every start,
-- so that a start completes one that was interrupted.
SELECT 'CREATE ROLE smtpfeeds LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'smtpfeeds') \gexec
SELECT 'CREATE DATABASE smtpfeeds OWNER smtpfeeds TEMPLATE template0'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'smtpfeeds') \gexec
