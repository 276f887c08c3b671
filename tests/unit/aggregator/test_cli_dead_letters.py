"""`smtpfeeds aggregator dead-letters` without a broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from smtpfeeds_common.cli import main


@pytest.fixture
def logging_kept() -> Iterator[None]:
    """Keep the log settings, because the command changes them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("logging_kept")
@pytest.mark.parametrize(
    ("broker", "words"),
    [
        ("", "which broker? Give --config FILE"),
        ("spool:/somewhere", "without a broker there is no queue"),
    ],
)
def test_missing_settings_differ_from_a_site_without_broker(broker: str, words: str) -> None:
    environ = {"SMTPFEEDS_AGGREGATOR_BROKER": broker}
    done = CliRunner().invoke(main, ["aggregator", "dead-letters", "list"], env=environ)
    assert done.exit_code == 2
    assert words in done.stderr
