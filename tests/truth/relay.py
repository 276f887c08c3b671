"""Stands between a client and a sensor, and names the client by the PROXY protocol.

A real program cannot choose the address that a sensor sees. It connects to a relay on loopback;
the relay connects to the sensor and says first for whom it speaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

from smtpfeeds_deploy.simulation.proxy_header import version_1

_CHUNK = 65_536
_START_LIMIT_S = 30.0


class Relays:
    """Relays to sensors, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open = 0
        self._idle = threading.Event()
        self._idle.set()
        #: asyncio holds its tasks weakly, and a server that is closed holds nothing.
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_LIMIT_S)
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        """End what a client that failed has left open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def relay(self, sensor: tuple[str, int], client: str, dialled: str) -> Relay:
        """A listening relay that speaks for this client, which dialled this address."""
        return Relay(self, sensor, client, dialled)

    def until_idle(self, limit_s: float) -> bool:
        """Wait until no connection is open any more; whether that came to be."""
        return self._idle.wait(limit_s)

    def count(self, change: int) -> None:
        """A connection was opened or closed; in the loop's thread."""
        self._open += change
        (self._idle.set if self._open == 0 else self._idle.clear)()

    def hold(self, task: asyncio.Task[None]) -> None:
        """Keep a connection's task until it has ended."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def start(self, relay: Relay) -> asyncio.Server:
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(relay.carry, "127.0.0.1", 0), self._loop
        )
        return started.result(_START_LIMIT_S)

    def close(self, server: asyncio.Server) -> None:
        self._loop.call_soon_threadsafe(server.close)


class Relay:
    """One listening place, for one client."""

    def __init__(self, relays: Relays, sensor: tuple[str, int], client: str, dialled: str) -> None:
        self._relays, self._sensor = relays, sensor
        self._header = version_1(client, dialled, 40_000, 25)
        self._server = relays.start(self)
        self.place: tuple[str, int] = self._server.sockets[0].getsockname()[:2]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._relays.close(self._server)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection in both directions until both have ended."""
        task = asyncio.current_task()
        assert task is not None
        self._relays.hold(task)
        self._relays.count(1)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._sensor)
            far_writer.write(self._header)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
            for end in (far_writer, writer):
                end.close()
        finally:
            self._relays.count(-1)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
