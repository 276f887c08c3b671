-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- Bits that age. Days, flags and targets are relative to `day` (since 1970-01-01, UTC) and to its epoch
-- week: the day of the last write, to which a row is moved first. 0: no program of this version has
-- written the row, and its days are those of first_seen and last_seen.
-- A program of 0.1.0 moves last_seen and not `day`: a reader sets that day itself.
ALTER TABLE observation
    ADD COLUMN day integer NOT NULL DEFAULT 0,
    ADD COLUMN days bigint NOT NULL DEFAULT 0,
    ADD COLUMN flags_now bigint NOT NULL DEFAULT 0,
    ADD COLUMN flags_before bigint NOT NULL DEFAULT 0;

ALTER TABLE sighting
    ADD COLUMN day integer NOT NULL DEFAULT 0,
    ADD COLUMN days bigint NOT NULL DEFAULT 0,
    ADD COLUMN flags_now bigint NOT NULL DEFAULT 0,
    ADD COLUMN flags_before bigint NOT NULL DEFAULT 0,
    ADD COLUMN targets_now bigint NOT NULL DEFAULT 0,
    ADD COLUMN targets_before bigint NOT NULL DEFAULT 0;

-- How many addresses a sensor listens on; 0: it has not said so.
ALTER TABLE sensor ADD COLUMN addresses integer NOT NULL DEFAULT 0;
