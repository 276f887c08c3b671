"""A connection to PostgreSQL whose every wait has an end.

It stands alone because psycopg waits for as long as the socket lives: behind a
pooler, a load balancer or a firewall that swallows what it should reset, the
socket stays open, keepalives are answered, and no data arrives. psycopg waits in
one place, ``Connection.wait``, and looks up ten times a second, so that Ctrl-C
works; here it also looks at the clock. A statement that is out of time costs its
connection: a late answer would be read as the answer to the next statement.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

_T = TypeVar("_T")


class ServerSilent(psycopg.OperationalError):
    """The database did not answer in time."""


class LimitedConnection(psycopg.Connection[tuple[Any, ...]]):
    """Waits for the server for ``limit_s`` at most, each time or over a ``with one_limit()``."""

    #: Seconds; None: as long as it takes.
    limit_s: float | None = None
    _deadline_s: float | None = None

    @contextmanager
    def one_limit(self) -> Iterator[None]:
        """Apply the limit to everything inside together."""
        if self.limit_s is not None:
            self._deadline_s = time.monotonic() + self.limit_s
        try:
            yield
        finally:
            self._deadline_s = None

    def wait(self, gen: Generator[Any, Any, _T], *args: Any, **kwargs: Any) -> _T:
        """Run what psycopg does on the wire.

        Raises:
            ServerSilent: out of time; the connection is closed.
        """
        # Most often the answer is here already: a COPY asks once for each row.
        try:
            wanted = next(gen)
        except StopIteration as end:
            value: _T = end.value
            return value
        if self.limit_s is None:
            return super().wait(_resumed(gen, wanted), *args, **kwargs)
        deadline_s = self._deadline_s or time.monotonic() + self.limit_s
        return super().wait(self._until(deadline_s, gen, wanted), *args, **kwargs)

    def _until(
        self, deadline_s: float, gen: Generator[Any, Any, _T], wanted: Any
    ) -> Generator[Any, Any, _T]:
        """Pass on what psycopg waits for and what arrives, until the deadline."""
        try:
            while True:
                wanted = gen.send((yield wanted))
                if time.monotonic() >= deadline_s:
                    # Before the error: what cleans up after it would wait as long again.
                    self.pgconn.finish()
                    raise ServerSilent(f"no answer within {self.limit_s:g} s; connection given up")
        except StopIteration as end:
            value: _T = end.value
            return value


def _resumed(gen: Generator[Any, Any, _T], wanted: Any) -> Generator[Any, Any, _T]:
    """A generator that has begun, from the first thing that it waits for."""
    try:
        while True:
            wanted = gen.send((yield wanted))
    except StopIteration as end:
        value: _T = end.value
        return value
