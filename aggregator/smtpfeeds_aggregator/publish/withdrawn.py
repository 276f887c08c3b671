"""What is taken out of past files: addresses that were excluded or forgotten since.

Archived editions, past days of the MISP feed, snapshots for the changes and the generations that
are kept hold addresses that the next publication leaves out. The exclusions that they were
cleaned by are noted beside the served directory; where others are in force, everything is
cleaned again in the same publication. The note is not served: exclusions are not published.
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
    """The exclusions in force, and whether past files are still to be cleaned by them."""

    def __init__(self, directory: Path, excluded: Iterable[str]) -> None:
        self._note = directory / _NOTE
        self._excluded = sorted(excluded)
        self.ranges = AddressRanges(map(ip_network, self._excluded))
        #: Whether one is in force that past files were not cleaned by.
        self.is_new = not set(self._excluded) <= self._noted()

    def holds(self, address: str) -> bool:
        """Whether an address must not be in any file; another text must not either."""
        try:
            return pack_address(address) in self.ranges
        except AddressError:
            return True

    def note(self) -> None:
        """Past files are clean."""
        # The lock of the directory is held: nobody else writes here.
        aside = self._note.with_name(f"{_NOTE}-new")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(self._excluded))
        aside.replace(self._note)

    def _noted(self) -> set[str]:
        with suppress(OSError, msgspec.MsgspecError):
            return set(msgspec.json.decode(self._note.read_bytes(), type=list[str]))
        return set()
