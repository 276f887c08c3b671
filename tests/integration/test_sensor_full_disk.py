"""With a full disk under the spool, the sensor keeps answering, and no answered event is lost."""

import contextlib
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor_support import SensorProcess, is_root
from servers.processes import bound_to_parent, wait_until

CLIENTS = 60


class FileLimit:
    """RLIMIT_FSIZE on the sensor, so that none of its files can grow; needs no root."""

    def __init__(self, folder: Path) -> None:
        self.sensor = SensorProcess(folder)

    def fill(self) -> None:
        self.sensor.within = ["prlimit", "--fsize=8192:unlimited"]
        self._limit(8192)

    def free(self) -> None:
        self.sensor.within = []
        self._limit(resource.RLIM_INFINITY)

    def close(self) -> None:
        """Do nothing."""

    def _limit(self, octets: int) -> None:
        assert self.sensor.process is not None
        if self.sensor.process.poll() is None:
            limits = (octets, resource.RLIM_INFINITY)
            resource.prlimit(self.sensor.process.pid, resource.RLIMIT_FSIZE, limits)


class TinyDisk:
    """A file system of 2 MB in its own mount namespace, filled completely."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        script = 'mount -t tmpfs -o size=2m none "$0" && echo mounted && exec sleep infinity'
        self.holder = subprocess.Popen(
            bound_to_parent(["unshare", "--mount", "sh", "-c", script, str(self.disk)]),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "mounted\n"
        self.sensor = SensorProcess(folder, spool_dir=str(self.disk))
        self.sensor.within = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt"]

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        assert os.statvfs(self._filler).f_bavail == 0

    def free(self) -> None:
        self._filler.unlink()

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root{self.disk / 'filler'}")


Disk = FileLimit | TinyDisk


def may_mount() -> bool:
    """Return whether this process may mount, which needs root outside most containers."""
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return is_root() and subprocess.run(tried, capture_output=True, check=False).returncode == 0


KINDS = [FileLimit, TinyDisk] if may_mount() else [FileLimit]


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    disk: Disk = request.param(tmp_path)
    yield disk
    process = disk.sensor.process
    if process is not None and process.poll() is None:
        disk.sensor.kill()
    disk.close()


def greets(sensor: SensorProcess, copy: Path) -> dict[str, int]:
    """Return hits by address from a copy, as SQLite would use the test's mounts."""
    for suffix in ("", "-wal"):
        shutil.copyfile(sensor.seen(Path(f"{sensor.spool}{suffix}")), f"{copy}{suffix}")
    with contextlib.closing(sqlite3.connect(copy)) as db:
        rows = db.execute("SELECT ip, hits FROM observation WHERE feed = 0").fetchall()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
    return {socket.inet_ntoa(ip): hits for ip, hits in rows}


def greet(sensor: SensorProcess, source: str) -> None:
    """Greet and wait up to ten seconds for the reply."""
    with sensor.connect(0, source) as client:
        assert client.reply() == 220
        assert client.say(b"EHLO client.example\r\n") == 250


def test_sensor_answers_on_a_full_disk_and_loses_nothing_it_answered(
    tmp_path: Path, disk: Disk
) -> None:
    """It folds in memory, logs that once, and writes everything when there is space again."""
    sensor = disk.sensor
    sensor.start()
    greet(sensor, "127.2.0.1")
    disk.fill()
    # The file may have space for some; each client connects twice.
    sources = [f"127.3.{number // 200}.{1 + number % 200}" for number in range(CLIENTS)]
    for source in sources * 2:
        greet(sensor, source)
    assert sensor.log.read_text().count("kept in memory") == 1
    greet(sensor, "127.2.0.1")
    disk.free()
    expected = {"127.2.0.1": 2} | dict.fromkeys(sources, 2)
    wait_until(
        lambda: greets(sensor, tmp_path / "copy") == expected,
        what="all that was answered is in the file",
    )
    assert sensor.log.read_text().count("spool written again") == 1
    assert sensor.stop() == 0
    assert "Traceback" not in sensor.log.read_text()


def test_sensor_that_is_started_on_a_full_disk_is_ready_and_loses_nothing_it_answers(
    tmp_path: Path, disk: Disk
) -> None:
    """This holds if it was killed while the disk was full; an operator need not intervene."""
    sensor = disk.sensor
    sensor.start()
    greet(sensor, "127.2.0.1")
    disk.fill()
    sensor.kill()
    sensor.start()
    sources = [f"127.3.0.{1 + number}" for number in range(CLIENTS)]
    for source in sources:
        greet(sensor, source)
    assert "kept in memory" in sensor.log.read_text()
    disk.free()
    wait_until(
        lambda: greets(sensor, tmp_path / "copy") == dict.fromkeys(["127.2.0.1", *sources], 1),
        what="all that was answered is in the file",
    )
    greet(sensor, "127.2.0.1")
    assert greets(sensor, tmp_path / "copy")["127.2.0.1"] == 2
    assert sensor.stop() == 0
    assert "Traceback" not in sensor.log.read_text()


def test_events_lost_at_a_stop_on_a_full_disk_are_reported(
    disk: Disk,
) -> None:
    sensor = disk.sensor
    sensor.start()
    disk.fill()
    for number in range(CLIENTS):
        greet(sensor, f"127.3.0.{1 + number}")
    assert sensor.stop() == 0
    log = sensor.log.read_text()
    assert "events in memory are lost" in log
    assert "state not saved" not in log
