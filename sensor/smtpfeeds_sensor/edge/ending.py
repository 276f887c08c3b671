"""How a connection ends: after its last reply, at a bound, when the sensor stops."""

from typing import Final

from .connection import Connection, State, throw_away
from .sending import UNREAD

#: A client that is still sending, or reading, has this long for the last reply.
LINGER_S: Final = 5


def close(connection: Connection) -> None:
    """End it once what was sent has left."""
    if connection.state is CLOSING or connection.state is OVER:
        return
    connection.state = CLOSING
    if connection.end():
        _give_up_later(connection)


def close_after_reading(connection: Connection) -> None:
    """End it, but read on for a while: its client is still sending."""
    connection.state = CLOSING
    connection.end_sending()
    _give_up_later(connection)


def _give_up_later(connection: Connection) -> None:
    deadlines = connection.reception.deadlines
    deadlines.discard(connection)
    deadlines.add(connection, deadlines.now + LINGER_S)


def abort(connection: Connection) -> None:
    """End it at once."""
    connection.state = CLOSING
    connection.transport.abortConnection()


def reply(connection: Connection, octets: bytes) -> None:
    """Send a reply; a client that leaves too many unread is dropped."""
    outcome = connection.send(octets, connection.reception.max_unsent_bytes)
    if outcome:
        drop(connection, outcome)


def drop(connection: Connection, outcome: int) -> None:
    """End it at once: it is gone, or leaves its replies unread."""
    if outcome == UNREAD:
        connection.count["limit_unsent"] += 1
    abort(connection)


def say_too_slow(connection: Connection) -> None:
    """Time is up for a client that knows that it speaks SMTP."""
    assert connection.dialogue is not None
    _say_last(connection, connection.dialogue.persona.too_slow)


def say_stopping(connection: Connection) -> None:
    """The sensor stops."""
    assert connection.dialogue is not None
    _say_last(connection, connection.dialogue.persona.shutting_down)


def _say_last(connection: Connection, octets: bytes) -> None:
    """End it with a reply, unless earlier ones are still unread; held ones are not sent."""
    connection.held = b""
    if connection.has_unsent:
        abort(connection)
        return
    reply(connection, octets)
    close(connection)


def be_over(connection: Connection) -> None:
    """Nothing comes any more but what was on its way: a banner's delay, a commit."""
    connection.state = OVER


CLOSING: Final = State(octets=throw_away, too_late=abort, gone=be_over, lingers=True)
OVER: Final = State(lingers=True)
