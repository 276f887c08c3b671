"""Fixtures for all tests: real servers that start when needed; the settings of Hypothesis."""

import gc
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["servers.fixtures"]

# The same examples in every run, and no time limit, so that no test fails on a busy machine.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# nohup(1) and shells in the background leave these ignored, and programs that tests start inherit
# that. A handler that does nothing has the same effect here, and is not inherited.
for _signal in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, lambda *_: None)


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    """Undo an aggregator's `gc.freeze` in this process: Hypothesis does not see frozen objects."""
    yield
    gc.unfreeze()
