"""Runs a plan of client visits against sensors and returns their ledger.

Visits are real TCP connections, a bounded number at once. A visit with a source address sends it
in a PROXY header, for which the sensor must trust this host. Without one, the address of the
socket counts.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from smtpfeeds_common.addresses import normalise_address

from . import proxy_header
from .clients import KINDS, Client
from .ledger import Session
from .talk import ANSWER_LIMIT_S, ClientTrouble, Now, Talk, now_ms

#: Connections at once, fewer than a sensor accepts from one address by default.
PARALLEL: Final = 32
#: The destination in the PROXY header if the visit has none; the key is whether it is IPv6.
_DESTINATION: Final = {False: "192.0.2.1", True: "2001:db8::1"}


@dataclass(frozen=True, slots=True)
class Target:
    """An address of a sensor, and the sensor's name."""

    host: str
    port: int
    sensor: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One planned connection."""

    kind: str
    target: Target
    #: The client's address in the PROXY header; empty: send no header.
    source: str = ""
    #: The sensor's address in the PROXY header, of the same family.
    destination: str = ""
    #: Version of the PROXY protocol, 1 or 2.
    proxy_version: int = 1
    #: Local address of the socket; empty: the kernel's choice.
    bind_to: str = ""


async def simulate(
    visits: Iterable[Visit],
    *,
    parallel: int = PARALLEL,
    clock: Now = now_ms,
    on_done: Callable[[Session], None] = lambda _: None,
) -> list[Session]:
    """Make every visit and return the sessions in the same order.

    A client that gets an unexpected answer notes it in its session; the others continue.
    """
    slots = asyncio.Semaphore(parallel)

    async def within_bound(number: int, visit: Visit) -> Session:
        async with slots:
            session = await _visit(visit, number, clock)
        on_done(session)
        return session

    return await asyncio.gather(*(within_bound(*pair) for pair in enumerate(visits)))


async def _visit(visit: Visit, number: int, clock: Now) -> Session:
    source = normalise_address(visit.source) if visit.source else ""
    session = Session(visit.kind, source, visit.target.sensor, _hit(visit))
    began = clock()
    try:
        talk = await _connect(visit)
    except (OSError, TimeoutError) as exc:
        session.trouble = f"cannot connect: {str(exc) or 'no answer in time'}"
        return session
    try:
        session.source = source or normalise_address(talk.local_address)
        header = _header(visit, number)
        if header:
            talk.send(header)
        await KINDS[visit.kind](Client(talk, session, clock, began))
    except ClientTrouble as exc:
        session.trouble = exc.message
    finally:
        talk.close()
    return session


async def _connect(visit: Visit) -> Talk:
    loop = asyncio.get_running_loop()
    bind_to = (visit.bind_to, 0) if visit.bind_to else None
    _, talk = await asyncio.wait_for(
        loop.create_connection(
            Talk, visit.target.host, visit.target.port, local_addr=bind_to, flags=_NUMERIC
        ),
        ANSWER_LIMIT_S,
    )
    return talk


_NUMERIC: Final = socket.AI_NUMERICHOST


def _header(visit: Visit, number: int) -> bytes:
    if not visit.source:
        return b""
    write = proxy_header.version_2 if visit.proxy_version == 2 else proxy_header.version_1
    return write(visit.source, _destination(visit), 1024 + number % 64_000, 25)


def _destination(visit: Visit) -> str:
    return visit.destination or _DESTINATION[":" in visit.source]


def _hit(visit: Visit) -> str:
    """Return the sensor's address that this visit hits."""
    return normalise_address(_destination(visit) if visit.source else visit.target.host)
