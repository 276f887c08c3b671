"""A real sensor as a child process, and a simple SMTP client."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from servers.processes import HANG_LIMIT_S, bound_to_parent, wait_until


class SensorProcess:
    """``smtpfeeds sensor run`` on loopback, with a spool and a log in a folder."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = {
            "name": "s1",
            "listen": ["127.0.0.1:0", "[::1]:0"],
            "spool_dir": str(folder / "spool"),
            "hostname": "mx.example",
            **settings,
        }
        self.config = folder / "sensor.toml"
        self.log = folder / "sensor.log"
        self.process: subprocess.Popen[bytes] | None = None
        #: Command prefix that gives the sensor its own mounts; see ``seen``.
        self.within: list[str] = []

    @property
    def name(self) -> str:
        return str(self.settings["name"])

    @property
    def spool(self) -> Path:
        return Path(str(self.settings["spool_dir"])) / f"{self.name}.spool"

    def seen(self, path: Path) -> Path:
        """Return the path to a file that the sensor sees, which may have its own mounts."""
        if not self.within or self.process is None:
            return path
        return Path(f"/proc/{self.process.pid}/root{path}")

    def write_config(self) -> None:
        lines = [f"{key} = {_toml(value)}" for key, value in self.settings.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def command(self, *words: str) -> list[str]:
        self.write_config()
        program = [sys.executable, "-m", "smtpfeeds_common.cli", "sensor", *words]
        return [*program, "--config", str(self.config)]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, *, limit_s: float = 60) -> None:
        self.spool.with_suffix(".listening").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            command = [*self.within, *self.command("run")]
            self.process = subprocess.Popen(bound_to_parent(command), stderr=log)
        process = self.process
        wait_until(
            lambda: self._announced() or process.poll() is not None,
            limit_s=limit_s,
            what="the sensor to listen",
        )
        if process.poll() is not None:
            raise AssertionError(f"the sensor ended: {self.log.read_text()}")

    def _announced(self) -> bool:
        """Return whether this run, not an earlier one, has written its addresses."""
        assert self.process is not None
        try:
            announced = json.loads(self.seen(self.spool.with_suffix(".listening")).read_text())
        except (OSError, ValueError):
            return False
        self.addresses: list[str] = announced["addresses"]
        return bool(announced["pid"] == self.process.pid)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def place(self, index: int = 0) -> tuple[str, int]:
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def connect(self, index: int = 0, source: str = "") -> Client:
        return Client(self.place(index), source)

    def rows(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        """Return (feed, address) → hits, flags, targets of the rows that are not sealed."""
        from smtpfeeds_common.addresses import format_address
        from smtpfeeds_common.feeds import FEED_NAMES

        stored = self.query("SELECT feed, ip, hits, flags, targets FROM observation")
        return {
            (FEED_NAMES[feed], format_address(ip)): (hits, flags, targets)
            for feed, ip, hits, flags, targets in stored
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        db = sqlite3.connect(self.spool, timeout=HANG_LIMIT_S)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def counters(self) -> dict[str, int]:
        """Return the counters that the sensor last noted; after a clean stop they are final."""
        state = self.query("SELECT value FROM meta WHERE key = 'state'")
        counters: dict[str, int] = json.loads(state[0][0])["counters"]
        return counters


class Client:
    """A client that a test controls."""

    def __init__(self, place: tuple[str, int], source: str = "") -> None:
        bound = (source, 0) if source else None
        self.socket = socket.create_connection(place, HANG_LIMIT_S, source_address=bound)
        self.stream = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> int:
        """Read a reply and return its code; 0 if the connection ended."""
        while True:
            line = self.stream.readline()
            if not line:
                return 0
            if line[3:4] == b" ":
                return int(line[:3])

    def say(self, octets: bytes) -> int:
        self.send(octets)
        return self.reply()

    def was_read(self) -> bool:
        """Return whether the sensor has read all that was sent; IPv4 only.

        On loopback, sent data is in the receive queue of the other socket at once, and the kernel
        lists the size of that queue.
        """
        near, far = self.socket.getsockname(), self.socket.getpeername()
        wanted = (_hex_place(far), _hex_place(near))
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if (fields[1], fields[2]) == wanted:
                return int(fields[4].partition(":")[2], 16) == 0
        return True

    def is_closed(self, limit_s: float = HANG_LIMIT_S) -> bool:
        """Return whether the sensor closes without another reply."""
        self.socket.settimeout(limit_s)
        try:
            return self.stream.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


def _hex_place(place: tuple[str, int]) -> str:
    """Write an IPv4 address and port in the form of /proc/net/tcp."""
    return f"{int.from_bytes(socket.inet_aton(place[0]), sys.byteorder):08X}:{place[1]:04X}"


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[SensorProcess]:
    """Run a sensor that listens, and end it after the block."""
    folder.mkdir(exist_ok=True)
    with started(SensorProcess(folder, **settings)) as sensor:
        yield sensor


@contextmanager
def started(sensor: SensorProcess) -> Iterator[SensorProcess]:
    """Start an existing sensor, and end it after the block."""
    sensor.start()
    try:
        yield sensor
    finally:
        if sensor.process is not None and sensor.process.poll() is None:
            sensor.kill()


@contextmanager
def many_files() -> Iterator[int]:
    """Raise the limit of open files up to 20,000; yield the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 20_000 if hard == resource.RLIM_INFINITY else min(hard, 20_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        yield allowed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_bytes(pid: int) -> int:
    """Return the proportional set size (Pss) of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def settle(seconds: float = 0.05) -> None:
    """Give the sensor time to read what was sent."""
    time.sleep(seconds)


def is_root() -> bool:
    return os.geteuid() == 0


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        inner = ", ".join(f'"{key}" = {_toml(item)}' for key, item in value.items())
        return "{" + inner + "}"
    return json.dumps(value) if not isinstance(value, list | tuple) else json.dumps(list(value))
