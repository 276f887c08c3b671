"""Sessions per second of server CPU: the sensor, aiosmtpd, Twisted's stock ESMTP, smtp-sink.

``floor`` is the sensor's sockets alone, with fixed replies (`bench_servers`); what the sensor takes
beyond it is the dialogue, the behaviours and the spool.

One load for all: Postfix's ``smtp-source``, 50 sessions at once, one message of 1 kB each. The
sensor runs with everything on: ``drain``, every event in the spool before its reply. Rounds
alternate, so that a busy machine is busy for all; medians are compared. Also: memory of an idle
connection at 10,000, events a spool takes in a second, sessions a second with 1 and 2 workers.

``python tests/benchmarks/bench_sensor.py`` prints a table, and writes JSON to ``$BENCH_OUT``;
with ``BENCH_SHORT=1`` all takes some seconds (`sizes`).
"""

import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import report, stage
from benchmarks.sizes import size

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PARALLEL = 50
SESSIONS = size(6000, 800, "BENCH_SESSIONS")
ROUNDS = size(5, 1, "BENCH_ROUNDS")
IDLE = size(10_000, 200, "BENCH_IDLE")
EVENTS = size(200_000, 10_000)
LOAD = f"-A -s {PARALLEL} -l 1024 -M client.example -f a@client.example -t b@bench.example".split()
TICKS = os.sysconf("SC_CLK_TCK")
KINDS = ("sensor", "aiosmtpd", "stock", "smtp-sink", "floor")


def program(name: str) -> str:
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/lib/postfix/sbin")
    if path is None:
        raise SystemExit(f"{name} is missing: run deploy/setup/test-programs.sh")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if server.poll() is not None:
            raise SystemExit(f"server ended with {server.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                probe.recv(100)
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("server does not listen")


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_s(pid: int) -> float:
    total = 0
    for one in family(pid):
        words = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(words[11]) + int(words[12])
    return total / TICKS


def memory_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no Pss")


@contextmanager
def serving(kind: str, folder: Path, **settings: object) -> Iterator[tuple[int, int]]:
    """A server; gives its pid and port."""
    port = free_port()
    if kind == "sensor":
        config = folder / "sensor.toml"
        config.write_text(
            f'name = "bench"\nlisten = ["127.0.0.1:{port}"]\nspool_dir = "{folder}/spool"\n'
            'hostname = "bench.example"\ndata_policy = "drain"\nlog_level = "warning"\n'
            f"max_connections_per_source = 1000000\nmax_connections = {IDLE + 100}\n"
            + "".join(f"{key} = {value}\n" for key, value in settings.items())
        )
        command = [sys.executable, "-m", "smtpfeeds_common.cli", "sensor", "run"]
        command += ["--config", str(config)]
    elif kind == "smtp-sink":
        # Run by root it becomes another user, and as another user it needs no more.
        command = [program("smtp-sink")]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        command += [f"127.0.0.1:{port}", "1024"]
    else:
        command = [sys.executable, str(HERE / "bench_servers.py"), kind, str(port)]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for(port, server)
        yield server.pid, port
    finally:
        server.terminate()
        server.wait(20)


def load(port: int, sessions: int) -> float:
    """Run the load; gives the seconds it took."""
    began = time.monotonic()
    subprocess.run(
        [program("smtp-source"), *LOAD, "-m", str(sessions), f"127.0.0.1:{port}"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - began


def measure(kind: str, folder: Path) -> float:
    """Sessions per second of server CPU."""
    with serving(kind, folder) as (pid, port):
        load(port, SESSIONS // 10)
        before = cpu_s(pid)
        load(port, SESSIONS)
        return SESSIONS / (cpu_s(pid) - before)


def measure_workers(folder: Path, workers: int) -> float:
    """Sessions per second, clients on the same machine."""
    with serving("sensor", folder / str(workers), workers=workers) as (_, port):
        load(port, SESSIONS // 10)
        return SESSIONS / load(port, SESSIONS)


def measure_idle(folder: Path) -> float:
    """Octets of the server's memory for each connection that just sits there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 1000), hard))
    with serving("sensor", folder) as (pid, port):
        load(port, 500)
        before = memory_bytes(pid)
        clients = []
        for index in range(IDLE):
            client = socket.socket()
            client.bind((f"127.0.{1 + index // 250}.1", 0))
            client.connect(("127.0.0.1", port))
            clients.append(client)
        for client in clients:
            if not client.recv(100).startswith(b"220"):
                raise SystemExit("a client got no banner")
        used = memory_bytes(pid) - before
        for client in clients:
            client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return used / IDLE


def measure_spool(folder: Path) -> float:
    """Events a second that a spool takes: 50 to a commit, a million addresses."""
    from smtpfeeds_common.clock import Clock
    from smtpfeeds_common.spool import Event, Spool

    clock = Clock()
    spool = Spool(folder / "events.spool", sensor="bench")
    began = time.perf_counter()
    for index in range(EVENTS):
        address = (index * 2_654_435_761 % 1_000_000 + 0x0A00_0000).to_bytes(4)
        utc_ms, _, _ = clock.read()
        assert utc_ms is not None
        spool.fold(Event(index % 2, address, utc_ms))
        if index % 50 == 49:
            spool.commit()
    spool.commit()
    took = time.perf_counter() - began
    spool.close()
    return EVENTS / took


def main() -> None:
    measured: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for turn in range(ROUNDS):
            for kind in KINDS:
                stage(f"round {turn + 1} of {ROUNDS}: {kind}")
                place = folder / f"{turn}"
                place.mkdir(exist_ok=True)
                measured[kind].append(measure(kind, place))
        median = {kind: statistics.median(values) for kind, values in measured.items()}
        workers = {}
        for number in (1, 2):
            stage(f"{number} workers")
            (folder / str(number)).mkdir(exist_ok=True)
            workers[number] = measure_workers(folder, number)
        stage("connections that wait, and the spool alone")
        (folder / "idle").mkdir()
        idle = measure_idle(folder / "idle")
        spool = measure_spool(folder)
    print(f"{'server':<12}{'sessions per CPU second':>26}   rounds")
    for kind in KINDS:
        rounds = " ".join(f"{value:.0f}" for value in measured[kind])
        print(f"{kind:<12}{median[kind]:>26.0f}   {rounds}")
    figures: dict[str, float] = {
        f"sensor_vs_{kind.replace('-', '_')}": round(median["sensor"] / median[kind], 3)
        for kind in KINDS[1:]
    }
    figures["floor_vs_smtp_sink"] = round(median["floor"] / median["smtp-sink"], 3)
    figures |= {
        "idle_connection_bytes": round(idle),
        "spool_events_per_s": round(spool),
        "sensor_sessions_per_cpu_s": round(median["sensor"]),
        "sessions_per_s_1_worker": round(workers[1]),
        "sessions_per_s_2_workers": round(workers[2]),
    }
    report(figures)


if __name__ == "__main__":
    main()
