"""A TCP proxy between a program and its broker or database, which a test cuts on purpose."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

_CHUNK_BYTES = 65_536
_ORDER_LIMIT_S = 60.0

Target = tuple[str, int] | Path
"""Host and port, or the path of a Unix socket."""

_T = TypeVar("_T")


class Wire(Enum):
    """What the proxy does with bytes; it accepts connections in each case."""

    FORWARDS = "forwards"
    PAUSED = "paused"  # bytes wait, in a small buffer of the proxy and in the kernel's
    BLACKHOLE = "blackhole"  # bytes are discarded, both ways


class CuttingProxy:
    """A TCP proxy with an event loop in its own thread.

    It forwards at first. When a method returns, its change is in effect. `port` never changes.
    """

    host = "127.0.0.1"

    def __init__(self, target: Target) -> None:
        self.port = 0
        #: Connections accepted so far.
        self.accepted = 0
        self._target = target
        self._wire = Wire.FORWARDS
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._order(self._listen())

    def forward(self) -> None:
        """Forward again: existing connections continue, and new ones are accepted."""
        self._order(self._set(Wire.FORWARDS))
        self._order(self._listen())

    def pause(self) -> None:
        """Hold back all bytes; neither side is notified."""
        self._order(self._set(Wire.PAUSED))

    def blackhole(self) -> None:
        """Discard bytes both ways, as a firewall that drops packets; neither side is notified.

        The bytes are lost, so call `cut` before `forward`.
        """
        self._order(self._set(Wire.BLACKHOLE))

    def aim(self, target: Target) -> None:
        """Forward new connections to another target; they are reset if nothing listens there."""
        self._target = target

    def cut(self) -> int:
        """Reset every connection and return their number; new ones are accepted."""
        return self._order(self._reset_all())

    def refuse(self) -> int:
        """Reset every connection, refuse new ones, and return the number of those reset."""
        self._order(self._stop_listening())
        return self.cut()

    def close(self) -> None:
        """Stop the proxy and its thread."""
        if self._loop.is_closed():
            return
        self.refuse()
        self._order(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ORDER_LIMIT_S)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _order(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ORDER_LIMIT_S)

    async def _set(self, wire: Wire) -> None:
        self._wire = wire
        if wire is Wire.PAUSED:
            self._flows.clear()
        else:
            self._flows.set()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._take, self.host, self.port, backlog=512)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset_all(self) -> int:
        writers = list(self._writers)
        self._writers.clear()
        for writer in writers:
            _reset(writer)
        await asyncio.sleep(0)  # the sockets close in the loop's next turn
        return len(writers) // 2

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is served by a task")
        self._tasks.add(task)
        try:
            await self._forward_both_ways(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _forward_both_ways(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            _reset(writer)
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection(*self._target)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(_CHUNK_BYTES):
                await self._flows.wait()
                if self._wire is not Wire.BLACKHOLE:
                    sink.write(chunk)
                    await sink.drain()
            await self._flows.wait()
            if self._wire is not Wire.BLACKHOLE and not sink.is_closing():
                sink.write_eof()
        except OSError:
            # One end was reset; the other must be reset too, as it would be without a proxy.
            if self._wire is not Wire.BLACKHOLE:
                _reset(sink)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as the kernel of a dead peer does; no more data is delivered."""
    end: socket.socket = writer.get_extra_info("socket")
    if end.family != socket.AF_UNIX and end.fileno() >= 0:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
