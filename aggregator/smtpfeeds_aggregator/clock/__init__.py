"""Decides whether the database's clock is right. Pure: callers pass readings and times in.

    offsets   compares the clock with a monotonic one: has it moved?
    sensors   compares the clock with the times at which sensors sealed their batches
    database  combines both with the newest time recorded in the database: is the clock in doubt?

All aggregators use the database's clock to clamp, expire, delete and publish rows; a wrong clock
would expire, delete or publish the wrong ones.
"""
