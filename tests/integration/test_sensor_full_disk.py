"""The disk under the spool is full: the sensor goes on answering, and nothing answered is lost."""

import contextlib
import os
import resource
import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from sensor_support import SensorProcess, is_root
from servers.processes import wait_until

CLIENTS = 60


class FileLimit:
    """RLIMIT_FSIZE on the running sensor: no file of it may grow. Needs no root."""

    def __init__(self, folder: Path) -> None:
        self.sensor = SensorProcess(folder)

    def fill(self) -> None:
        self._limit(8192)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, octets: int) -> None:
        assert self.sensor.process is not None
        limits = (octets, resource.RLIM_INFINITY)
        resource.prlimit(self.sensor.process.pid, resource.RLIMIT_FSIZE, limits)


class TinyDisk:
    """A file system of 2 MB in a mount namespace of the sensor's own, filled to the last octet."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.sensor = SensorProcess(folder, spool_dir=str(self.disk))
        script = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
        self.sensor.within = ["unshare", "--mount", "sh", "-c", script, str(self.disk)]

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        assert os.statvfs(self._filler).f_bavail == 0

    def free(self) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.sensor.seen(self.disk / "filler")


#: A real full file system takes a mount, and that takes root.
KINDS = [FileLimit, TinyDisk] if is_root() else [FileLimit]


def greets(sensor: SensorProcess, copy: Path) -> dict[str, int]:
    """Hits by address, out of a copy: SQLite would look for the file among our own mounts."""
    for suffix in ("", "-wal"):
        shutil.copyfile(sensor.seen(Path(f"{sensor.spool}{suffix}")), f"{copy}{suffix}")
    with contextlib.closing(sqlite3.connect(copy)) as db:
        found = db.execute("SELECT ip, hits FROM observation WHERE feed = 0").fetchall()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
    return {socket.inet_ntoa(ip): hits for ip, hits in found}


def greet(sensor: SensorProcess, source: str) -> float:
    """Be answered; how long the answer took."""
    with sensor.connect(0, source) as client:
        assert client.reply() == 220
        began = time.monotonic()
        assert client.say(b"EHLO client.example\r\n") == 250
        return time.monotonic() - began


@pytest.mark.parametrize("kind", KINDS)
def test_sensor_answers_on_a_full_disk_and_loses_nothing_it_answered(
    tmp_path: Path, kind: type[FileLimit | TinyDisk]
) -> None:
    """It folds in memory, says so once, and writes all of it when there is room again."""
    disk = kind(tmp_path)
    sensor = disk.sensor
    sensor.start()
    try:
        greet(sensor, "127.2.0.1")
        disk.fill()
        # Some may still go into what the file has left; each client comes twice.
        sources = [f"127.3.{number // 200}.{1 + number % 200}" for number in range(CLIENTS)]
        took = [greet(sensor, source) for _ in range(2) for source in sources]
        assert max(took) < 1
        assert sensor.log.read_text().count("kept in memory") == 1
        assert greet(sensor, "127.2.0.1") < 1
        disk.free()
        expected = {"127.2.0.1": 2} | dict.fromkeys(sources, 2)
        wait_until(
            lambda: greets(sensor, tmp_path / "copy") == expected,
            limit_s=10,
            what="all that was answered is in the file",
        )
        assert sensor.log.read_text().count("spool written again") == 1
        assert sensor.stop() == 0
        assert "Traceback" not in sensor.log.read_text()
    finally:
        if sensor.process is not None and sensor.process.poll() is None:
            sensor.kill()
