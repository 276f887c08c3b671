-- Splits the two large tables of an EMPTY database into sixteen partitions by address.
-- Run once, after `smtpfeeds aggregator migrate` and before the first batch:
--   psql -v ON_ERROR_STOP=1 -f partition.sql DATABASE
-- The programs need no setting for it. docs/how-to/scale-out.md says when it is worth it.

BEGIN;

DO $$
BEGIN
    IF EXISTS (SELECT FROM observation) OR EXISTS (SELECT FROM sighting) THEN
        RAISE EXCEPTION 'the tables are not empty; partition a fresh database';
    END IF;
END $$;

DO $$
DECLARE
    name text;
    part integer;
BEGIN
    FOREACH name IN ARRAY ARRAY['observation', 'sighting'] LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', name, name || '_whole');
        EXECUTE format(
            'CREATE TABLE %I (LIKE %I INCLUDING ALL) PARTITION BY HASH (ip)', name, name || '_whole'
        );
        FOR part IN 0..15 LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 16, REMAINDER %s)'
                ' WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)',
                name || '_' || part, name, part
            );
        END LOOP;
        EXECUTE format('DROP TABLE %I', name || '_whole');
    END LOOP;
END $$;

COMMIT;
