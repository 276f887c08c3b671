"""A connection to PostgreSQL with a time limit for every wait.

psycopg waits as long as the socket is open. Behind a pooler, a load balancer or a
firewall that drops packets instead of resetting, the socket stays open and keepalives
are answered, but no data arrives. psycopg waits in one place, ``Connection.wait``, which
wakes ten times a second for Ctrl-C; this class checks the time there too. After a
timeout it closes the connection, because a late answer would be taken for the answer to
the next statement.
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
    """Waits for the server at most ``limit_s``, for each wait or within ``with one_limit()``."""

    #: None: no limit.
    limit_s: float | None = None
    _deadline_s: float | None = None

    @contextmanager
    def one_limit(self) -> Iterator[None]:
        """Apply the limit to all waits in the block together."""
        if self.limit_s is not None:
            self._deadline_s = time.monotonic() + self.limit_s
        try:
            yield
        finally:
            self._deadline_s = None

    def wait(self, gen: Generator[Any, Any, _T], *args: Any, **kwargs: Any) -> _T:
        """Run a generator of psycopg that waits for the server.

        Raises:
            ServerSilent: the limit is reached; the connection is closed.
        """
        # Usually the answer is here already: a COPY calls this for each row.
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
        """Forward to and from psycopg's generator until the deadline."""
        try:
            while True:
                wanted = gen.send((yield wanted))
                if time.monotonic() >= deadline_s:
                    # Close before the error: its clean-up would wait for the limit again.
                    self.pgconn.finish()
                    raise ServerSilent(f"no answer within {self.limit_s:g} s; connection closed")
        except StopIteration as end:
            value: _T = end.value
            return value


def _resumed(gen: Generator[Any, Any, _T], wanted: Any) -> Generator[Any, Any, _T]:
    """Continue a started generator, from the first value that it yielded."""
    try:
        while True:
            wanted = gen.send((yield wanted))
    except StopIteration as end:
        value: _T = end.value
        return value
