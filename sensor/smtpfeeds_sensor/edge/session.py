"""A connection after its banner: pass octets to the dialogue, hold replies, start TLS."""

from typing import Final

from ..smtp.dialogue import CLOSE, DATA, GREET, OPEN, Dialogue
from ..smtp.erase import Octets
from .connection import Connection, State
from .sender import UNREAD
from .termination import (
    abort,
    close,
    close_after_reading,
    drop,
    finish,
    reply,
    reply_stopping,
    reply_too_slow,
)

#: Event of the dialogue, feed index in ``feeds.FEEDS``, counter.
_FEEDS: Final = ((GREET, 0, "greets"), (DATA, 1, "datas"))
#: Bound of replies that wait for a banner or a commit; a client with more is dropped.
MAX_HELD_BYTES: Final = 16_384


def receive(connection: Connection, dialogue: Dialogue, octets: Octets) -> bytes:
    """Pass octets to the dialogue; a reply or content means that the client is not idle."""
    replies = dialogue.receive(octets)
    if replies or dialogue.reads_content:
        connection.heard_at = connection.reception.deadlines.now
    return replies


def _receive_and_reply(connection: Connection, octets: Octets) -> None:
    dialogue = connection.dialogue
    assert dialogue is not None
    replies = receive(connection, dialogue, octets)
    if dialogue.heard and record(connection, dialogue):
        connection.state = HOLDING
        hold(connection, replies)
        return
    if replies:
        reply(connection, replies)
    if dialogue.closing != OPEN or dialogue.wants_tls:
        _continue_after_reply(connection, dialogue)


def _receive_and_hold(connection: Connection, octets: Octets) -> None:
    dialogue = connection.dialogue
    assert dialogue is not None
    replies = receive(connection, dialogue, octets)
    if dialogue.heard:
        record(connection, dialogue)
    hold(connection, replies)


def record(connection: Connection, dialogue: Dialogue) -> bool:
    """Pass events to the recorder; return True if replies must wait for the commit."""
    heard = dialogue.take()
    if not connection.recorded:
        return False
    reception = connection.reception
    recorder = reception.recorder
    for bit, feed, counter in _FEEDS:
        if heard & bit:
            reception.count[counter] += 1
            event = recorder.hear(
                connection, feed, connection.ip, dialogue.flags, connection.target
            )
            connection.events += (event,)
    return recorder.holds_replies


def hold(connection: Connection, replies: bytes) -> None:
    """Hold replies until they may be sent."""
    assert connection.dialogue is not None
    connection.held += replies
    connection.dialogue.owes_reply = bool(connection.held)
    if len(connection.held) > MAX_HELD_BYTES:
        drop(connection, UNREAD)


def _release(connection: Connection) -> None:
    connection.state = IN_SESSION
    send_held(connection)


def send_held(connection: Connection) -> None:
    """Send held replies in order; then do what the dialogue requires next."""
    held, connection.held = connection.held, b""
    if held:
        reply(connection, held)
    dialogue = connection.dialogue
    assert dialogue is not None
    dialogue.owes_reply = False
    if dialogue.closing != OPEN or dialogue.wants_tls:
        _continue_after_reply(connection, dialogue)


def _continue_after_reply(connection: Connection, dialogue: Dialogue) -> None:
    if connection.state is not IN_SESSION:
        return  # dropped: the reply could not be sent
    if dialogue.wants_tls:
        connection.state = IN_HANDSHAKE
        connection.reception.in_tls += 1
        dialogue.tls_started()
        connection.start_tls(connection.reception.tls_context)
    elif dialogue.closing == CLOSE:
        close(connection)
    else:
        close_after_reading(connection)


def _continue_in_tls(connection: Connection) -> None:
    connection.count["tls_handshakes"] += 1
    connection.state = IN_SESSION


def _disconnected_in_handshake(connection: Connection) -> None:
    connection.count["tls_failures"] += 1
    finish(connection)


IN_SESSION: Final = State(
    octets=_receive_and_reply,
    timed_out=reply_too_slow,
    stopping=reply_stopping,
    disconnected=finish,
)
#: Replies wait until events are committed.
HOLDING: Final = State(
    octets=_receive_and_hold,
    committed=_release,
    timed_out=reply_too_slow,
    stopping=reply_stopping,
    disconnected=finish,
)
IN_HANDSHAKE: Final = State(
    tls_up=_continue_in_tls,
    timed_out=abort,
    stopping=abort,
    disconnected=_disconnected_in_handshake,
)
