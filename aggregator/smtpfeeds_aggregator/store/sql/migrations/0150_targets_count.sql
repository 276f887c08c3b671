-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- How many of a sensor's addresses these bits stand for: never more than it listens on, where it has
-- said so (0: it has not). A sensor that moved to other addresses, or reports bits that it cannot have,
-- would have more.
CREATE FUNCTION targets_count(bits bigint, addresses integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN least(bit_count(bits::bit(64)), nullif(addresses, 0));
