-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- The rules of bits that age (smtpfeeds_common/history.py), for statements that fold rows and read
-- them. PostgreSQL inlines these functions, and evaluates an argument as often as it stands there.

-- `day` of a row is the day of the last write by this version, or later: what its days and bits are
-- relative to. `flags` and `targets` hold the bits of both weeks, for programs of 0.1.0, and what such
-- a program has ORed in since: bits of neither week belong to the day of last_seen.

-- The UTC day of a time, since 1970-01-01.
CREATE FUNCTION utc_day(at timestamptz) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (at AT TIME ZONE 'UTC')::date - date '1970-01-01';

-- Days relative to a day that is so much later, or earlier; 60 of them are kept. PostgreSQL itself
-- shifts by the remainder modulo 64.
CREATE FUNCTION days_moved(days bigint, later integer) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN later BETWEEN 0 AND 59 THEN days << later & 1152921504606846975
        WHEN later BETWEEN -59 AND -1 THEN days >> -later
        ELSE 0 END;

-- The days of a row, with its first and last one set, relative to a day that is not before any.
CREATE FUNCTION row_days(
    days bigint, day integer, first_seen timestamptz, last_seen timestamptz, moved_to integer
) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN days_moved(days, moved_to - day) | days_moved(1, moved_to - utc_day(first_seen))
        | days_moved(1, moved_to - utc_day(last_seen));

-- The bits of the week of a day; a row that is relative to a later one stays as it is;
CREATE FUNCTION bits_now(
    every bigint, now bigint, before bigint, day integer, last_seen timestamptz, moved_to integer
) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN moved_to / 7 <= day / 7 THEN now ELSE 0 END
        | CASE WHEN moved_to / 7 <= utc_day(last_seen) / 7 THEN every & ~(now | before) ELSE 0 END;

-- and of the week before.
CREATE FUNCTION bits_before(
    every bigint, now bigint, before bigint, day integer, last_seen timestamptz, moved_to integer
) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
            WHEN moved_to / 7 <= day / 7 THEN before
            WHEN moved_to / 7 = day / 7 + 1 THEN now
            ELSE 0 END
        | CASE WHEN moved_to / 7 - utc_day(last_seen) / 7 = 1 THEN every & ~(now | before) ELSE 0 END;

-- The bits of both weeks of a day.
CREATE FUNCTION recent_bits(
    every bigint, now bigint, before bigint, day integer, last_seen timestamptz, week integer
) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN day / 7 >= week THEN now | before WHEN day / 7 = week - 1 THEN now ELSE 0 END
        | CASE
            WHEN every & ~(now | before) = 0 THEN 0
            WHEN utc_day(last_seen) / 7 >= week - 1 THEN every & ~(now | before)
            ELSE 0 END;
