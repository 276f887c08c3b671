"""Find addresses to remove from past files: excluded or forgotten since then.

Archived editions, past days of the MISP feed, snapshots for the changes and kept generations
contain addresses that the next publication leaves out. A file beside the served directory records
the exclusions that were applied to them; if they differ from those in force, the same publication
cleans everything again. The file is not served, because exclusions are not published.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError

from ..address_ranges import AddressRanges

_NOTE: Final = ".exclusions-applied.json"


class Withdrawn:
    """The exclusions in force, and whether past files must be cleaned."""

    def __init__(self, directory: Path, excluded: Iterable[str]) -> None:
        self._note = directory / _NOTE
        self._excluded = sorted(excluded)
        self.ranges = AddressRanges(map(ip_network, self._excluded))
        #: Whether an exclusion in force was not applied to past files yet.
        self.is_new = not set(self._excluded) <= self._noted()

    def holds(self, address: str) -> bool:
        """Return whether an address must not be in any file; true for a text that is not an
        address.
        """
        try:
            return pack_address(address) in self.ranges
        except AddressError:
            return True

    def note(self) -> None:
        """Record that past files are clean."""
        # This process holds the directory's lock, so nobody else writes here.
        aside = self._note.with_name(f"{_NOTE}-new")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(self._excluded))
        aside.replace(self._note)

    def _noted(self) -> set[str]:
        with suppress(OSError, ValueError):
            return set(msgspec.json.decode(self._note.read_bytes(), type=list[str]))
        return set()
