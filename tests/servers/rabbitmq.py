"""A real RabbitMQ, and a cluster of three, on private ports in private folders.

Debian's wrapper in /usr/sbin changes to the user `rabbitmq` and its shared folders. The scripts in
/usr/lib/rabbitmq/bin follow the environment instead, for root and for an ordinary user. A node has
its own name, cookie, HOME, epmd, ports and plugins, so it does not touch a system-wide RabbitMQ.
The module is longer than usual because a node's folder, ports, start and end depend on each other.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.certificates import Certificates
from servers.processes import (
    HANG_LIMIT_S,
    ServerFailedError,
    bound_to_parent,
    end,
    free_port,
    wait_until,
)
from servers.rabbitmq_admin import AdminError, RabbitAdmin
from smtpfeeds_aggregator.fleet.broker import log_settings, login_settings

START_LIMIT_S = 180.0  # two busy cores take 10 s for one node, 25 s for a cluster of three
STOP_LIMIT_S = 20.0
CHANNEL_TICK_MS = 60_000  # RabbitMQ's own default

_SCRIPT_FOLDERS = (
    Path("/usr/lib/rabbitmq/bin"),  # Debian, Ubuntu, Fedora
    Path("/opt/rabbitmq/sbin"),  # the official images
    Path("/usr/local/sbin"),
)


def scripts_folder() -> Path:
    """Return the folder of RabbitMQ's own scripts, without a distribution's wrapper."""
    for folder in _SCRIPT_FOLDERS:
        if (folder / "rabbitmq-server").exists():
            return folder
    msg = "RabbitMQ is not installed: run deploy/setup/test-programs.sh as root"
    raise ServerFailedError(msg)


class Epmd:
    """A private epmd, Erlang's port mapper, which finds a node's distribution port by its name."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        epmd = shutil.which("epmd")
        if epmd is None:
            msg = "Erlang's epmd is not installed: run deploy/setup/test-programs.sh as root"
            raise ServerFailedError(msg)
        command = bound_to_parent([epmd, "-port", str(self.port), "-address", "127.0.0.1"])
        with (home / "epmd.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._listens, what="epmd listens")

    def _listens(self) -> bool:
        if self._process.poll() is not None:
            msg = f"epmd ended with {self._process.returncode}"
            raise ServerFailedError(msg)
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        end(self._process, limit_s=5)


@dataclass(frozen=True)
class RabbitHome:
    """The folder of the cookie, the port mapper and the accounts that nodes of a cluster share."""

    folder: Path
    epmd: Epmd
    user: str = "test-admin"
    password: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    @classmethod
    def make(cls, folder: Path) -> RabbitHome:
        folder.mkdir(parents=True, exist_ok=True)
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        return cls(folder, Epmd(folder))


class RabbitNode:
    """A broker that a test starts, stops and kills; its ports and data stay the same."""

    def __init__(
        self,
        home: RabbitHome,
        name: str = "node",
        *,
        certificates: Certificates | None = None,
        settings: dict[str, str] | None = None,
        peers: tuple[str, ...] = (),
        channel_tick_ms: int = CHANNEL_TICK_MS,
        host: str = "127.0.0.1",
    ) -> None:
        """Choose ports; `launch` starts the node.

        Args:
            home: what the nodes of one cluster share.
            name: unique within the home.
            certificates: if given, it also listens for TLS on `tls_port`.
            settings: further lines of rabbitmq.conf, such as `consumer_timeout`.
            peers: Erlang node names to form a cluster with.
            channel_tick_ms: how often channels check `consumer_timeout`.
            host: the address on which it listens for AMQP and for the management API.
        """
        self.home, self.host = home, host
        self.node_name = f"{name}@localhost"
        self.port, self.tls_port, self.admin_port = free_port(), free_port(), free_port()
        self._dist_port = free_port()
        self._folder = home.folder / name
        self._certificates = certificates
        self._settings = settings or {}
        self._peers = peers
        self._channel_tick_ms = channel_tick_ms
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = RabbitAdmin(self.host, self.admin_port, home.user, home.password)

    @property
    def pid(self) -> int:
        """The process id of the Erlang VM, for signals such as SIGSTOP."""
        return self._running().pid

    def url(self, vhost: str = "/", user: str | None = None, password: str | None = None) -> str:
        """Return an amqp:// address of this node, by default with the administrator's account."""
        who = f"{user or self.home.user}:{password or self.home.password}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"amqp://{who}@{host}:{self.port}/{vhost.replace('/', '%2F')}"

    def launch(self) -> None:
        """Start the process without waiting until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        self._write_configuration()
        server = str(scripts_folder() / "rabbitmq-server")
        with self._console().open("ab") as console:
            self._process = subprocess.Popen(
                bound_to_parent([server]),
                cwd=self._folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        wait_until(self._is_ready, limit_s=START_LIMIT_S, what=f"RabbitMQ {self.node_name} is up")

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        """Stop it with SIGTERM, as a service manager does; does nothing if it is not running."""
        if self._process is not None:
            end(self._process, limit_s=STOP_LIMIT_S)
            self._process = None

    def kill(self) -> None:
        """Kill it with SIGKILL, so that it closes no connection properly."""
        process = self._running()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._process = None

    def discard(self) -> None:
        """Kill it at the end of a test; nobody needs its data, and a proper stop takes 6 s."""
        if self._process is not None:
            self.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def ctl(self, *arguments: str, limit_s: float = 120) -> str:
        """Run rabbitmqctl on this node, for what the HTTP API cannot do; it takes 1-2 s."""
        command = [str(scripts_folder() / "rabbitmqctl"), "--node", self.node_name, *arguments]
        done = subprocess.run(
            command,
            env=self.environment(),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        if done.returncode != 0:
            msg = f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
            raise ServerFailedError(msg)
        return done.stdout

    def settle(self) -> None:
        """Make RabbitMQ write the table of its quorum queues to disk; call it before a kill.

        RabbitMQ keeps the names of the queues' logs in a table that it writes seconds later. A
        kill -9 before that leaves a declared queue without its log, and it never gets a leader.
        """
        # RabbitMQ's own timer writes the table after 0.5 s; a sync just before that can miss it.
        time.sleep(1.5)
        self.ctl("eval", "[ok = dets:sync(Table) || Table <- dets:all()].")

    @contextmanager
    def holding_queue(self, vhost: str, queue: str) -> Iterator[None]:
        """Suspend a quorum queue: publishers and consumers stay connected, and it does nothing."""
        self.ctl(
            "eval",
            "Caller = self(), spawn(fun() -> register(test_holder, self()),"
            f" erlang:suspend_process(whereis('{vhost}_{queue}')),"
            " Caller ! held, receive go -> ok end end), receive held -> ok end.",
        )
        try:
            yield
        finally:
            # Erlang resumes what an ended process has suspended.
            self.ctl("eval", "test_holder ! go.")

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the node's log and console."""
        tail = []
        for path in (*sorted(self._folder.glob("log/*.log")), self._console()):
            if path.exists():
                text = path.read_text(errors="replace").splitlines()[-lines:]
                tail.append(f"--- {path.name}\n" + "\n".join(text))
        return "\n".join(tail)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = f"RabbitMQ {self.node_name} is not running"
            raise ServerFailedError(msg)
        return self._process

    def _is_ready(self) -> bool:
        process = self._running()
        if process.poll() is not None:
            msg = f"RabbitMQ {self.node_name} ended with {process.returncode}\n{self.log_tail()}"
            raise ServerFailedError(msg)
        return self.admin.answers() and self._accepts(self.port)

    def _accepts(self, port: int) -> bool:
        try:
            socket.create_connection((self.host, port), timeout=1).close()
        except OSError:
            return False
        return True

    def _console(self) -> Path:
        return self._folder / "console"

    def _write_configuration(self) -> None:
        (self._folder / "log").mkdir(parents=True, exist_ok=True)
        (self._folder / "enabled_plugins").write_text(
            "[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n"
        )
        (self._folder / "advanced.config").write_text(
            f"[{{rabbit, [{{channel_tick_interval, {self._channel_tick_ms}}}]}}].\n"
        )
        lines = {
            "listeners.tcp.local": f"{self.host}:{self.port}",
            "management.tcp.ip": self.host,
            "management.tcp.port": str(self.admin_port),
            "default_user": self.home.user,
            "default_pass": self.home.password,
            "loopback_users": "none",
            # The tests must not depend on the machine's free disk space and memory.
            "disk_free_limit.absolute": "50MB",
            "vm_memory_high_watermark.absolute": "1GB",
            "management.rates_mode": "none",
            # How old the API's lists of connections and mechanisms may be; 5 s by default.
            "collect_statistics_interval": "1000",
            "log.file.level": "info",
            **log_settings(),
            **self._tls_settings(),
            **self._cluster_settings(),
            **self._settings,
        }
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self._folder / "rabbitmq.conf").write_text(text)

    def _tls_settings(self) -> dict[str, str]:
        if self._certificates is None:
            return {}
        certificates = self._certificates
        return {
            # The lines that `smtpfeeds fleet broker` writes.
            **login_settings(certificates.trusted, certificates.certificate, certificates.key),
            "listeners.ssl.local": f"{self.host}:{self.tls_port}",
        }

    def _cluster_settings(self) -> dict[str, str]:
        if not self._peers:
            return {}
        nodes = {
            f"cluster_formation.classic_config.nodes.{index}": peer
            for index, peer in enumerate(self._peers, 1)
        }
        return {"cluster_formation.peer_discovery_backend": "classic_config", **nodes}

    def environment(self) -> dict[str, str]:
        """Return the environment of the server and of `rabbitmqctl`."""
        erlang = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self.home.folder),
            "ERL_EPMD_PORT": str(self.home.epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script then execs the Erlang VM instead of waiting for it in a shell, so the child
            # process is the broker itself and gets the death signal.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self._dist_port + 1),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self._dist_port + 200),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_SCHEMA_DIR": str(self._folder / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._folder / "generated"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "no-rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": erlang,
        }


@contextmanager
def running(
    folder: Path,
    *,
    certificates: Certificates | None = None,
    settings: dict[str, str] | None = None,
    channel_tick_ms: int = CHANNEL_TICK_MS,
    host: str = "127.0.0.1",
) -> Iterator[RabbitNode]:
    """Run a broker in this folder, and end it after the block."""
    home = RabbitHome.make(folder)
    try:
        node = RabbitNode(
            home,
            certificates=certificates,
            settings=settings,
            channel_tick_ms=channel_tick_ms,
            host=host,
        )
        try:
            node.start()
            yield node
        finally:
            node.discard()
    finally:
        home.epmd.stop()


class RabbitCluster:
    """Three brokers that share quorum queues; a context manager that starts and stops them."""

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        self._home = RabbitHome.make(folder)
        names = ("one", "two", "three")
        peers = tuple(f"{name}@localhost" for name in names)
        self.nodes = [
            RabbitNode(self._home, name, settings=settings, peers=peers) for name in names
        ]

    def start(self) -> None:
        """Start all nodes and wait until each sees three running nodes, with `/` on each.

        Before that, adding a virtual host would wait for the nodes that are not ready.
        """
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        wait_until(self._is_whole, limit_s=START_LIMIT_S, what="three nodes form one cluster")

    def leader_of(self, vhost: str, queue: str) -> RabbitNode:
        """Return the node that leads a quorum queue, as the running nodes report it."""
        deadline = time.monotonic() + HANG_LIMIT_S
        while time.monotonic() < deadline:
            for node in self.nodes:
                if node.admin.answers():
                    name = node.admin.queue(vhost, queue).get("leader")
                    leaders = [other for other in self.nodes if other.node_name == name]
                    if leaders:
                        return leaders[0]
            time.sleep(0.2)
        msg = f"no leader is known for queue {queue} in {vhost}"
        raise ServerFailedError(msg)

    def stop(self) -> None:
        """Kill all nodes at the end of a test."""
        for node in self.nodes:
            node.discard()
        self._home.epmd.stop()

    def _is_whole(self) -> bool:
        return self._all_see(self._running_nodes) and self._all_see(
            lambda admin: admin.vhost_runs_on("/")
        )

    def add_vhost(self, vhost: str) -> None:
        """Add a virtual host, and wait until every node reports that it runs on every node."""
        self.nodes[0].admin.add_vhost(vhost)
        wait_until(
            lambda: self._all_see(lambda admin: admin.vhost_runs_on(vhost)),
            limit_s=START_LIMIT_S,
            what=f"virtual host {vhost} runs on three nodes",
        )

    def _all_see(self, nodes_seen: Callable[[RabbitAdmin], set[str]]) -> bool:
        """Return whether every node answers and names all nodes."""
        everyone = {node.node_name for node in self.nodes}
        with suppress(OSError, HTTPException, AdminError):
            return all(nodes_seen(node.admin) == everyone for node in self.nodes)
        return False

    @staticmethod
    def _running_nodes(admin: RabbitAdmin) -> set[str]:
        return {node["name"] for node in admin.call("GET", "nodes") if node.get("running")}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
