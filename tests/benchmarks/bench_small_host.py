"""What a sensor costs a small host: memory, CPU and disk writes at rest, start-up, and an attack.

Two sensors, without STARTTLS and with it. Each is measured at rest, with connections that just sit
there, and then under the attack of the tests inside a memory cgroup of 96 MB (its page cache
counts too). Honest clients beside the attack must all be answered, and counted once.

``python tests/benchmarks/bench_small_host.py`` prints a table, and writes JSON to ``$BENCH_OUT``;
with ``BENCH_SHORT=1`` all takes some seconds (`sizes`). ``$BENCH_BROKER`` is an AMQP address whose
account `s1` may publish; without it the sensor keeps all in its spool. A memory cgroup can be made
by root where the kernel lets it; elsewhere `limited_by_cgroup` is 0.
"""

import asyncio
import os
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.report import report, stage
from benchmarks.sizes import size
from sensor_support import SensorProcess, many_files, started
from sensor_support.attack import honest_clients, under_attack

LIMIT_BYTES = 96 * 2**20
REST_S = size(300, 1, "BENCH_REST_S")
ATTACK_S = size(60, 3, "BENCH_ATTACK_S")
IDLE = size(1000, 50, "BENCH_IDLE")
IN_TLS = size(200, 10)
MIB = 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """All that a process has in memory, what it shares with others included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def cpu_s(pid: int) -> float:
    """CPU time of all its threads, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9


def written_bytes(pid: int) -> int:
    """What it has given to the disk."""
    counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counters["write_bytes"])


class MemoryGroup:
    """A memory cgroup of this process's own group, of either version."""

    def __init__(self, folder: Path, limit: str, highest: str) -> None:
        self.folder, self._highest = folder, highest
        folder.mkdir()
        (folder / limit).write_text(str(LIMIT_BYTES))

    @property
    def entrance(self) -> list[str]:
        """Words before a command that run it inside."""
        return ["sh", "-c", f'echo $$ >"{self.folder}/cgroup.procs"; exec "$@"', "sh"]

    @property
    def most_bytes(self) -> int:
        """The most that was in use."""
        return int((self.folder / self._highest).read_text())

    @property
    def kills(self) -> int:
        """How many processes the kernel has killed for it."""
        for name in ("memory.events", "memory.oom_control"):
            path = self.folder / name
            if path.exists():
                lines = dict(line.split() for line in path.read_text().splitlines())
                return int(lines["oom_kill"])
        return 0


@contextmanager
def memory_group() -> Iterator[MemoryGroup | None]:
    """A memory cgroup, or None where none can be made."""
    name = f"smtpfeeds-bench-{os.getpid()}"
    group = None
    for root, limit, highest in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        ("/sys/fs/cgroup", "memory.max", "memory.peak"),
    ):
        try:
            group = MemoryGroup(Path(root, name), limit, highest)
            break
        except OSError:
            if Path(root, name).exists():
                Path(root, name).rmdir()
    try:
        yield group
    finally:
        if group is not None:
            group.folder.rmdir()


class Bench:
    """Measures, and keeps the figures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.figures: dict[str, float] = {}

    def sensor(self, name: str, tls: str) -> SensorProcess:
        """A sensor with nothing but the defaults, and room for one source's connections."""
        folder = self._folder / name
        folder.mkdir()
        settings: dict[str, object] = {"tls": tls, "max_connections_per_source": 20}
        if address := os.environ.get("BENCH_BROKER"):
            settings["broker"] = [address]
        return SensorProcess(folder, **settings)

    def at_rest(self, kind: str, tls: str) -> None:
        """Start-up, memory, CPU and writes of one that nobody talks to; memory of a connection."""
        sensor = self.sensor(f"rest-{kind}", tls)
        began = time.monotonic()
        with started(sensor):
            assert sensor.process is not None
            pid = sensor.process.pid
            self.figures[f"start_s_{kind}"] = time.monotonic() - began
            time.sleep(min(REST_S, 3))
            self.figures[f"start_mib_{kind}"] = resident_bytes(pid) / MIB
            cpu, written, began = cpu_s(pid), written_bytes(pid), time.monotonic()
            time.sleep(REST_S)
            took = time.monotonic() - began
            self.figures[f"idle_cpu_percent_{kind}"] = 100 * (cpu_s(pid) - cpu) / took
            hourly = (written_bytes(pid) - written) * 3600 / took
            self.figures[f"idle_written_mib_an_hour_{kind}"] = hourly / MIB
            number = IN_TLS if tls != "off" else IDLE
            before = resident_bytes(pid)
            with ExitStack() as clients:
                for index in range(number):
                    clients.enter_context(sit_there(sensor.place(), index, in_tls=tls != "off"))
                each = (resident_bytes(pid) - before) / number
            self.figures[f"connection_kib_{kind}"] = each / 1024
            assert sensor.stop() == 0

    def attacked(self, kind: str, tls: str) -> None:
        """The attack, within 96 MB: all who are honest are answered and counted."""
        with memory_group() as group:
            sensor = self.sensor(f"attack-{kind}", tls)
            sensor.within = group.entrance if group else []
            with started(sensor):
                assert sensor.process is not None
                pid = sensor.process.pid
                with under_attack(sensor.place(), ATTACK_S):
                    outcome = asyncio.run(honest_clients(sensor.place(), ATTACK_S - 1))
                    self.figures[f"attack_mib_{kind}"] = resident_bytes(pid) / MIB
                assert sensor.stop() == 0, "it was killed"
            counted = sum(
                hits for (_, ip), (hits, _, _) in sensor.rows().items() if ip.startswith("127.60.")
            )
            self.figures[f"honest_tried_{kind}"] = outcome.tried
            self.figures[f"honest_answered_{kind}"] = len(outcome.took_s)
            self.figures["limited_by_cgroup"] = int(group is not None)
            if not os.environ.get("BENCH_BROKER"):
                self.figures[f"honest_counted_{kind}"] = counted
            if group is not None:
                self.figures[f"group_most_mib_{kind}"] = group.most_bytes / MIB
                self.figures[f"group_kills_{kind}"] = group.kills


@contextmanager
def sit_there(place: tuple[str, int], index: int, *, in_tls: bool) -> Iterator[None]:
    """A client that reads the banner, goes to TLS where that is asked, and says no more."""
    with socket.socket() as client:
        client.bind((f"127.9.{index // 10}.1", 0))
        client.connect(place)
        assert client.recv(1000)[:3] == b"220"
        if not in_tls:
            yield
            return
        client.sendall(b"STARTTLS\r\n")
        assert client.recv(1000)[:3] == b"220"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(client):
            yield


def main() -> None:
    """Measure, print, and write the figures where BENCH_OUT says."""
    with tempfile.TemporaryDirectory() as folder, many_files():
        bench = Bench(Path(folder))
        for kind, tls in (("plain", "off"), ("tls", "made")):
            stage(f"STARTTLS {tls}: {REST_S} s at rest, and connections")
            bench.at_rest(kind, tls)
            stage(f"STARTTLS {tls}: {ATTACK_S} s of attack")
            bench.attacked(kind, tls)
    report(bench.figures)
    lost = [
        kind
        for kind in ("plain", "tls")
        if bench.figures.get(f"honest_counted_{kind}", bench.figures[f"honest_answered_{kind}"])
        < bench.figures[f"honest_answered_{kind}"]
    ]
    sys.exit(f"answered and not counted: {', '.join(lost)}" if lost else 0)


if __name__ == "__main__":
    main()
