"""Waits until no connection of a deleted account can publish.

RabbitMQ closes the connections of an account that is deleted. It stops reading from each, sends
Connection.Close, and lists the connection until the client has answered, for 30 s at most. A
second request ends such a connection at once, so a client that does not answer costs no time. The
broker answers a request after it has stopped reading, which takes up to 3 s for each channel whose
client does not read.

The broker registers the start and the end of a connection independently. Its list of an account's
connections then sometimes keeps one that has ended, until it restarts; its list of all connections,
which describes them, does not have that one.
"""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from smtpfeeds_common.errors import FleetError

if TYPE_CHECKING:
    from .management import Management

#: More than the broker's own 30 s.
LIMIT_S: Final = 60.0
_LOOK_S: Final = 0.5
#: Ordinary clients answer sooner.
_WORTH_A_NOTE_S: Final = 3.0


def wait_until_closed(
    management: "Management",
    accounts: Iterable[str],
    note: Callable[[str], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Close the connections of deleted accounts until the broker lists none.

    Args:
        management: the broker's.
        accounts: their names; the broker has none of them any more.
        note: shows what this waits for.
        clock: seconds that only increase.
        sleep: waits for so many seconds.

    Raises:
        FleetError: the broker still describes one as open after `LIMIT_S`.
    """
    start_s = clock()
    remaining, is_noted = list(accounts), False
    while remaining := [name for name in remaining if management.close_connections(name)]:
        waited_s = clock() - start_s
        if waited_s >= LIMIT_S:
            _check_ended(management, remaining, note)
            return
        if waited_s >= _WORTH_A_NOTE_S and not is_noted:
            note(f"waiting until the broker has closed the connections of {', '.join(remaining)}")
            is_noted = True
        sleep(_LOOK_S)


def _check_ended(
    management: "Management", accounts: list[str], note: Callable[[str], object]
) -> None:
    """Refuse connections that the broker still describes; note those that it only lists."""
    described = {connection.name for connection in management.connections()}
    for account in accounts:
        listed = {connection.name for connection in management.connections(account)}
        if open_still := sorted(listed & described):
            raise FleetError(
                f"{account} has no account any more, but the broker does not close "
                f"{', '.join(open_still)}: run `rabbitmqctl close_all_user_connections {account} "
                "revoked` on its host, or restart it"
            )
        if listed:
            note(
                f"the broker lists connections of {account} that have ended: "
                f"{', '.join(sorted(listed))}; it does so until it restarts"
            )
