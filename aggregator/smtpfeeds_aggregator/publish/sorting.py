"""Sort more records than memory should hold: sorted runs on disk, merged on reading.

Records are of one length and compare as octets. At most ``RUN_RECORDS`` are in
memory; then they become a run in a file without a name, gone with the process.
"""

import heapq
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

RUN_RECORDS: Final = 250_000


class SortedRecords:
    """Takes records in any order, gives them in theirs."""

    def __init__(self, folder: Path, record_bytes: int, run_records: int = RUN_RECORDS) -> None:
        self._folder = folder
        self._record_bytes = record_bytes
        self._run_records = run_records
        self._records: list[bytes] = []
        self._runs: list[IO[bytes]] = []

    def add(self, record: bytes) -> None:
        """Take one record."""
        self._records.append(record)
        if len(self._records) >= self._run_records:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        """Give every record once, sorted; nothing may be added afterwards."""
        self._records.sort()
        if not self._runs:
            return iter(self._records)
        return heapq.merge(self._records, *(self._read(run) for run in self._runs))

    def close(self) -> None:
        """Give memory and disk back."""
        for run in self._runs:
            run.close()
        self._runs.clear()
        self._records.clear()

    def _spill(self) -> None:
        self._records.sort()
        run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by close()
        self._runs.append(run)
        run.write(b"".join(self._records))
        self._records.clear()

    def _read(self, run: IO[bytes]) -> Iterator[bytes]:
        run.seek(0)
        while record := run.read(self._record_bytes):
            yield record
