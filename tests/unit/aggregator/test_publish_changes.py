"""Snapshots of past editions, with which the changes are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smtpfeeds_aggregator.publish.changes import Snapshot, _Family
from smtpfeeds_common.feeds import FEEDS


@pytest.mark.parametrize(
    ("place", "mask"),
    [
        (6, 0x40),  # the version of the format
        (8, 0x01),  # whether it is encrypted
        (10, 0x01),  # the compression
        (16, 0x01),  # the check sum
        (46, 0x01),  # the name
    ],
)
def test_damaged_snapshot_is_refused_with_the_error_that_a_publication_expects(
    tmp_path: Path, place: int, mask: int
) -> None:
    """Each octet is of the first record at the end of the file, by which a reader decides."""
    ipv4 = _Family(np.array([0xC0000201], np.uint32), np.zeros(1, np.uint8))
    ipv6 = _Family(np.array([bytes(range(1, 17))], "S16"), np.zeros(1, np.uint8))
    families: dict[tuple[str, int], _Family] = {
        (feed.name, size): part for feed in FEEDS for size, part in ((4, ipv4), (6, ipv6))
    }
    path = tmp_path / "snapshot.npz"
    snapshot = Snapshot(families, ("probe",))
    snapshot.write(path)
    assert list(snapshot.since(Snapshot.read(path), FEEDS[0].name)) == []
    octets = bytearray(path.read_bytes())
    octets[octets.index(b"PK\x01\x02") + place] ^= mask
    path.write_bytes(octets)
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot.read(path)
