"""End connections: after the last reply, at a bound, and when the sensor stops."""

from typing import Final

from .connection import Connection, State, discard_octets
from .sender import UNREAD

#: How long a client that still sends or reads has for the last reply.
LINGER_S: Final = 5


def close(connection: Connection) -> None:
    """End the connection once everything is sent."""
    if connection.state is CLOSING or connection.state is CLOSED:
        return
    connection.state = CLOSING
    if connection.end():
        _give_up_later(connection)


def close_after_reading(connection: Connection) -> None:
    """End the connection, but continue reading for a while: the client is still sending."""
    connection.state = CLOSING
    connection.end_sending()
    _give_up_later(connection)


def _give_up_later(connection: Connection) -> None:
    deadlines = connection.reception.deadlines
    deadlines.discard(connection)
    deadlines.add(connection, deadlines.now + LINGER_S)


def abort(connection: Connection) -> None:
    """End the connection at once."""
    connection.state = CLOSING
    connection.transport.abortConnection()


def reply(connection: Connection, octets: bytes) -> None:
    """Send a reply; drop a client that leaves too many replies unread."""
    outcome = connection.send(octets, connection.reception.max_unsent_bytes)
    if outcome:
        drop(connection, outcome)


def drop(connection: Connection, outcome: int) -> None:
    """End the connection at once: the client has disconnected, or does not read its replies."""
    if outcome == UNREAD:
        connection.count["limit_unsent"] += 1
    abort(connection)


def reply_too_slow(connection: Connection) -> None:
    """End the connection of a client that has spoken SMTP and is too slow."""
    assert connection.dialogue is not None
    _reply_last(connection, connection.dialogue.persona.too_slow)


def reply_stopping(connection: Connection) -> None:
    """End the connection because the sensor stops."""
    assert connection.dialogue is not None
    _reply_last(connection, connection.dialogue.persona.shutting_down)


def _reply_last(connection: Connection, octets: bytes) -> None:
    """End the connection with a reply, unless earlier ones are unread; drop held replies."""
    connection.held = b""
    if connection.has_unsent:
        abort(connection)
        return
    reply(connection, octets)
    close(connection)


def finish(connection: Connection) -> None:
    """Enter the last state; only a banner's delay or a commit may still arrive."""
    connection.state = CLOSED


CLOSING: Final = State(octets=discard_octets, timed_out=abort, disconnected=finish, lingers=True)
CLOSED: Final = State(lingers=True)
