"""The fixtures of real servers, which start when a test first asks for one and always stop.

An interrupted run stops them as usual. If pytest is killed, the kernel ends its children (see
`processes` and `PrivatePostgres`).
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.certificates import Certificates
from servers.clock import SteppedClock, compile_library
from servers.postgres import PostgresServer, installed
from servers.proxy import CuttingProxy, Target
from servers.rabbitmq import RabbitNode, running

_vhost_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The newest embedded PostgreSQL, shared by all tests."""
    yield from _postgres(tmp_path_factory, None)


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """A connection string of a new, empty database that belongs to the connecting role."""
    dsn = postgres.create_database()
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture(scope="session", params=sorted(installed()))
def every_postgres(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """Each installed PostgreSQL in turn: the embedded versions, and the system's."""
    yield from _postgres(tmp_path_factory, request.param)


@pytest.fixture
def every_database(every_postgres: PostgresServer) -> Iterator[str]:
    """Like `database`, in each installed PostgreSQL in turn."""
    dsn = every_postgres.create_database()
    yield dsn
    every_postgres.drop_database(dsn)


def _postgres(
    tmp_path_factory: pytest.TempPathFactory, name: str | None
) -> Iterator[PostgresServer]:
    binaries = None if name is None else installed()[name]
    server = PostgresServer(tmp_path_factory.mktemp(name or "postgres"), binaries)
    with server.private:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority and a server certificate for loopback names."""
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[RabbitNode]:
    """A broker shared by all tests, with a TLS listener; a test must leave it unchanged.

    A test that kills or reconfigures its broker uses `own_rabbitmq`.
    """
    with running(tmp_path_factory.mktemp("rabbitmq"), certificates=certificates) as node:
        yield node


@pytest.fixture
def own_rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[RabbitNode]:
    """A broker of one test, which may restart and kill it; a start takes about 7 s."""
    with running(tmp_path_factory.mktemp("own-rabbitmq"), certificates=certificates) as node:
        yield node


@dataclass(frozen=True)
class Vhost:
    """One test's part of the broker."""

    node: RabbitNode
    name: str
    url: str

    def add_account(
        self,
        user: str,
        *,
        configure: str = "^$",
        write: str = "^$",
        read: str = "^$",
        topics: dict[str, str] | None = None,
    ) -> str:
        """Add an account with only these rights in this virtual host; return its amqp:// address.

        Users are global in a broker, so this replaces an account of the same name in another test.

        Args:
            topics: for each exchange, a regular expression of the routing keys it may write.
        """
        admin = self.node.admin
        admin.add_user(user, "password")
        admin.permit(user, self.name, configure=configure, write=write, read=read)
        for exchange, keys in (topics or {}).items():
            admin.permit_topic(user, self.name, exchange, write=keys)
        return self.node.url(self.name, user, "password")


@pytest.fixture
def vhost(rabbitmq: RabbitNode) -> Iterator[Vhost]:
    """An empty virtual host of the shared broker, with the administrator's URL."""
    vhost = _add_vhost(rabbitmq)
    yield vhost
    rabbitmq.admin.delete_vhost(vhost.name)


@pytest.fixture
def own_vhost(own_rabbitmq: RabbitNode) -> Vhost:
    """An empty virtual host of `own_rabbitmq`."""
    return _add_vhost(own_rabbitmq)


def _add_vhost(node: RabbitNode) -> Vhost:
    name = f"test-{next(_vhost_numbers)}"
    node.admin.add_vhost(name)
    node.admin.permit(node.home.user, name, configure=".*", write=".*", read=".*")
    return Vhost(node, name, node.url(name))


@pytest.fixture
def cutting_proxy() -> Iterator[Callable[[Target], CuttingProxy]]:
    """A function that creates proxies; they are closed after the test."""
    proxies: list[CuttingProxy] = []

    def make(target: Target) -> CuttingProxy:
        proxies.append(CuttingProxy(target))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture(scope="session")
def clock_library() -> Iterator[Path]:
    """The library behind `SteppedClock`, in a folder that a server of another user can enter."""
    with tempfile.TemporaryDirectory(prefix="smtpfeeds-clock-") as folder:
        Path(folder).chmod(0o755)
        yield compile_library(Path(folder))


@pytest.fixture
def make_clock(clock_library: Path) -> Iterator[Callable[[], SteppedClock]]:
    """A function that creates clocks, one for each host that a test simulates."""
    with tempfile.TemporaryDirectory(dir=clock_library.parent) as folder:
        Path(folder).chmod(0o755)
        numbers = itertools.count(1)

        def make() -> SteppedClock:
            return SteppedClock(clock_library, Path(folder) / f"clock-{next(numbers)}")

        yield make


@pytest.fixture
def clock(make_clock: Callable[[], SteppedClock]) -> SteppedClock:
    """A wall clock that shows the real time until the test steps it."""
    return make_clock()
