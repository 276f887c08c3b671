"""Creates readings of a host's clocks for tests of spools."""

from __future__ import annotations

from smtpfeeds_common.clock import Reading

BOOT = "one boot"
#: UTC when that boot began.
BOOTED_MS = 1_794_000_000_000


def at(utc_ms: int, boot: str = BOOT) -> Reading:
    """Return both clocks at a moment, on a host whose wall clock is trusted."""
    return Reading(utc_ms, utc_ms - BOOTED_MS, boot)


def in_doubt(utc_ms: int, boot: str = BOOT) -> Reading:
    """Return both clocks at a moment, on a host whose wall clock is in doubt."""
    return Reading(None, utc_ms - BOOTED_MS, boot)
