"""Whether the database's clock can be believed: pure, readings and times are passed in.

    offsets   the clock against a monotonic one: has it moved
    sensors   the clock against the times at which sensors sealed their batches
    database  both, and the newest time noted in the database: is it in doubt, and what may be done

The database has one clock for all aggregators. By it rows are clamped, expired, deleted and
published; a wrong one would do that to the wrong rows.
"""
