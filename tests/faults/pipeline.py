"""A complete site under test: real sensors, broker, aggregators and database, all supervised.

A program that ends is started again after a short pause, like by a service manager. Programs are
started from the main thread, because the kernel ends them with that thread; so a caller that waits
must call `tend`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from servers.processes import NoReport, ServerFailedError, free_port
from servers.proxy import CuttingProxy
from smtpfeeds_common.spool import read_status
from smtpfeeds_common.supervision import State, describe_end, stop_all
from smtpfeeds_deploy.simulation import synthetic
from smtpfeeds_deploy.simulation.simulate import Target
from smtpfeeds_deploy.single_host.bounded_log import BoundedLog
from smtpfeeds_deploy.single_host.programs import Program

from .brokers import AGGREGATOR, Brokers, Carrier, SpoolFolder
from .databases import Database, Gauge, several_hosts

#: What a service manager waits before it starts a program again (RestartSec).
RESTART_S = 0.5
READY_LIMIT_S = 90.0
SENSORS = ("s1", "s2")
AGGREGATORS = ("a1", "a2")
#: Of a host that needs no broker: the sensor, and the aggregator that reads its spool.
SPOOL_SENSOR, SPOOL_AGGREGATOR = "s3", "a3"
#: What no program may ever say, whatever is broken around it.
_NEVER_SAID = ("Traceback", "part failed", "delivery failed")


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of the site that a run needs."""

    cluster: bool = False
    #: Without a broker: one aggregator reads the sensors' spools.
    single_host: bool = False
    #: Beside the broker's sensors one whose spool is read by an aggregator of its own.
    spool_too: bool = False
    standby: bool = False
    publishing: bool = False
    #: Wires that can be cut: sensors to broker, aggregators to broker, aggregators to database.
    proxies: bool = False
    database_folder: Path | None = None


class Pipeline:
    """One site in one folder; a context manager."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = folder, shape
        self.feeds = folder / "feeds"
        self.programs: dict[str, Program] = {}
        self.targets: list[Target] = []
        self.wires: dict[str, CuttingProxy] = {}
        #: Programs that ended without being killed by us, and how.
        self.ended: list[str] = []
        self._restart_at: dict[str, float] = {}
        self._killed: set[str] = set()
        #: When each program was killed (ms).
        self.kills: dict[str, list[int]] = {}
        self._down: set[str] = set()
        self._stack = ExitStack()
        self.brokers: Carrier = (
            SpoolFolder(folder / "spool")
            if shape.single_host
            else Brokers(folder / "rabbitmq", cluster=shape.cluster)
        )
        self.aggregators: tuple[str, ...] = AGGREGATORS[:1] if shape.single_host else AGGREGATORS
        self.sensors: tuple[str, ...] = SENSORS
        if shape.spool_too:
            self.aggregators += (SPOOL_AGGREGATOR,)
            self.sensors += (SPOOL_SENSOR,)
        base = shape.database_folder or folder
        self.databases = [Database(base / "one")]
        if shape.standby:
            self.databases.append(Database(base / "two"))
        self.primary = self.databases[0]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # Starting

    def _start(self) -> None:
        self._stack.callback(self.brokers.stop)
        for node in self.brokers.nodes:
            node.launch()  # it takes longest; the database starts meanwhile
        for database in self.databases:
            self._stack.callback(database.stop)
        self.primary.start()
        if self.shape.standby:
            self.databases[1].become_standby_of(self.primary)
            self.primary.set_up(synchronous_standby_names="ANY 1 (*)")
        self.brokers.start(SENSORS)
        if self.shape.proxies:
            self._lay_wires()
        self._stack.callback(self._stop_programs)
        self._write_settings()
        self.run("migrate", "aggregator", "migrate", "--config", str(self._file("a1")))
        for name in (*self.aggregators, *self.sensors):
            self._start_program(name)
        self.wait(lambda: all(map(_is_ready, self.programs.values())), "all programs are ready")

    def _lay_wires(self) -> None:
        targets: dict[str, Any] = {"aggregators-database": self.primary.socket_path}
        for node in self.brokers.nodes:
            place = ("127.0.0.1", node.port)
            targets |= {"sensors-broker": place, "aggregators-broker": place}
        for name, target in targets.items():
            self.wires[name] = self._stack.enter_context(CuttingProxy(target))

    def _write_settings(self) -> None:
        table, names = self.folder / "origin-table.txt", self.folder / "as-names.json"
        synthetic.write_origin_table(table)
        synthetic.write_as_names(names)
        common = {
            "origin_table": str(table),
            "as_names": str(names),
            "publish_non_global": True,
            "publish_exact_counts": True,
        }
        if self.shape.publishing:
            common |= {"feeds_dir": str(self.feeds), "publish_interval_s": 2}
            # So that none is removed while it is compared.
            common["generations_kept"] = 30
        for name in self.aggregators:
            broker = self._broker(AGGREGATOR)
            if name == SPOOL_AGGREGATOR:
                broker = [f"spool:{self.spools(SPOOL_SENSOR)}"]
            self._write(name, {"dsn": self._dsn(), "broker": broker, **common})
        for name in self.sensors:
            port = free_port()
            self.targets.append(Target("127.0.0.1", port, name))
            self._write(name, self._sensor_settings(name, port))

    def _sensor_settings(self, name: str, port: int) -> dict[str, Any]:
        return {
            "name": name,
            "listen": [f"127.0.0.1:{port}"],
            "hostname": "mail.example.org",
            "trusted_proxies": ["127.0.0.0/8"],
            "spool_dir": str(self.spools(name)),
            "broker": [] if name == SPOOL_SENSOR else self._broker(name),
            # A minute is right on the Internet; here it would be most of the run.
            "backoff_max_s": 2,
            "confirm_timeout_s": 5,
        }

    def _write(self, name: str, settings: Mapping[str, Any]) -> None:
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
        self._file(name).write_text("".join(lines), encoding="utf-8")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def _dsn(self) -> str:
        if self.shape.standby:
            return several_hosts(*self.databases)
        if "aggregators-database" in self.wires:
            port = self.wires["aggregators-database"].port
            return f"host=127.0.0.1 port={port} dbname=smtpfeeds user=smtpfeeds sslmode=disable"
        return self.primary.dsn

    def _broker(self, account: str) -> list[str]:
        wire = self.wires.get("aggregators-broker" if account == AGGREGATOR else "sensors-broker")
        return self.brokers.urls(account, None if wire is None else [wire.port])

    def spools(self, sensor: str) -> Path:
        return self.folder / ("spool" if self.shape.single_host else f"spool-{sensor}")

    # Programs

    def _start_program(self, name: str) -> None:
        kind = "sensor" if name in self.sensors else "aggregator"
        arguments = (kind, "run", "--config", str(self._file(name)))
        # One for each run: a run decides by itself when the next one begins.
        self.programs[name] = self._program(name, *arguments)
        self.programs[name].start()

    def _program(self, name: str, *arguments: str) -> Program:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SMTPFEEDS_")}
        log = BoundedLog(self.folder / "log" / f"{name}.log", max_bytes=1 << 30)
        return Program(name, arguments, log, environ, NoReport())

    def run(self, name: str, *arguments: str) -> None:
        """Run `smtpfeeds ARGUMENTS…` to its end; it must succeed."""
        program = self._program(name, *arguments)
        program.start()

        def has_ended() -> bool:
            program.look()
            return program.state is State.DOWN

        self.wait(has_ended, f"{name} has ended")
        assert program.exit_code == 0, program.last_lines()

    def kill(self, name: str) -> None:
        """Kill a program with SIGKILL; it is started again."""
        program = self.programs[name]
        if program.pid is not None:
            self._killed.add(name)
            self.kills.setdefault(name, []).append(time.time_ns() // 1_000_000)
            os.kill(program.pid, signal.SIGKILL)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send any other signal, such as SIGSTOP."""
        program = self.programs[name]
        assert program.pid is not None, f"{name} does not run"
        os.kill(program.pid, number)

    def down(self, *names: str) -> None:
        """Kill a program with SIGKILL, and do not start it again before `up`."""
        self._down |= set(names)
        for name in names:
            self.kill(name)

    def up(self, *names: str) -> None:
        self._down -= set(names)

    def tend(self) -> None:
        """Start ended programs again; call this several times a second."""
        for name, program in list(self.programs.items()):
            due = self._restart_at.get(name)
            if due is not None:
                if time.monotonic() >= due and name not in self._down:
                    del self._restart_at[name]
                    self._start_program(name)
                continue
            program.look()
            if program.state in {State.DOWN, State.BACKING_OFF}:
                if name not in self._killed:
                    self.ended.append(f"{name} {describe_end(program.exit_code or 0)}")
                self._killed.discard(name)
                self._restart_at[name] = time.monotonic() + RESTART_S

    def all_ready(self) -> bool:
        return not self._restart_at and all(map(_is_ready, self.programs.values()))

    def sleep(self, duration_s: float) -> None:
        """Let time pass while ended programs are started again."""
        until = time.monotonic() + duration_s
        while (left_s := until - time.monotonic()) > 0:
            self.tend()
            time.sleep(min(left_s, 0.05))

    def wait(
        self, condition: Callable[[], bool], what: str, limit_s: float = READY_LIMIT_S
    ) -> None:
        """Poll until the condition holds, while ended programs are started again.

        Raises:
            ServerFailedError: the condition did not hold within the limit; the message has the ends
                of all logs.
        """
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                msg = f"after {limit_s:g} s this is still not true: {what}\n{self.logs()}"
                raise ServerFailedError(msg)
            self.tend()
            time.sleep(0.05)

    def _stop_programs(self) -> None:
        for program in self.programs.values():
            program.send(signal.SIGCONT)
        stop_all(self.programs.values(), 10)

    # What it says of itself

    def gauge(self) -> Gauge:
        return Gauge(several_hosts(*self.databases) if self.shape.standby else self.primary.dsn)

    def dsn(self) -> str:
        """Return the DSN of a connection that no fault interrupts."""
        return several_hosts(*self.databases) if self.shape.standby else self.primary.dsn

    def nothing_waits(self) -> bool:
        """Return whether no spool contains undelivered data and the queue is empty."""
        for sensor in self.sensors:
            for path in self.spools(sensor).glob(f"{sensor}*.spool"):
                report = read_status(path)
                if report.batches_waiting or any(report.rows.values()):
                    return False
        return self.brokers.empty()

    def complaints(self) -> list[str]:
        """Return the lines in the programs' logs that must never appear."""
        problems: list[str] = []
        for path in sorted((self.folder / "log").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            for number, line in enumerate(lines):
                if any(word in line for word in _NEVER_SAID):
                    problems.append(f"{path.name}: " + "\n    ".join(lines[number : number + 30]))
        return problems

    def logs(self) -> str:
        """Return the end of every log."""
        return "\n\n".join(
            f"--- {path.name}\n{BoundedLog(path).tail()}"
            for path in sorted((self.folder / "log").glob("*.log"))
        )


def _is_ready(program: Program) -> bool:
    return program.state is State.RUNNING
