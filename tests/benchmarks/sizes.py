"""How large a benchmark is: whole, or with `BENCH_SHORT=1` so short that it takes some seconds.

The short form checks that a benchmark works and what it writes; its figures say nothing.
"""

import os
from typing import Final

SHORT: Final = bool(os.environ.get("BENCH_SHORT"))


def size(whole: int, short: int, name: str = "") -> int:
    """A number of rows, rounds or seconds; the environment variable `name` overrides it."""
    given = os.environ.get(name) if name else None
    return int(given) if given else short if SHORT else whole
