"""Fixtures for all tests: real servers, started when first asked for; how properties are tried."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["servers.fixtures"]

# The same examples in every run, and no limit in time: a busy machine makes no test fail.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
