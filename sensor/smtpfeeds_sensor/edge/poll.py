"""Twisted's epoll reactor, without the parts that the sensor does not need.

For every ready socket Twisted copies a dictionary and enters a context, so that log lines can have
the connection's name; then it checks which of several events occurred. The sensor's log names no
connection, and nearly always a socket can be read and has no other event. This saves a tenth of the
sensor's time. The module is separate because it uses private parts of Twisted.

Twisted's own reactors count time by the wall clock: a step back stops every timer, a step forward
makes all of them due at once. This one counts by the monotonic clock.
"""

import time
from select import EPOLLIN

from twisted.internet.epollreactor import EPollReactor
from twisted.python import log


class SensorReactor(EPollReactor):
    """Serves the ready sockets.

    An error while a connection reads or writes ends that connection alone. The reactor's main loop
    catches an error in ``connectionLost``; the other ready sockets are served in the next turn.
    """

    seconds = staticmethod(time.monotonic)

    def doPoll(self, timeout: float | None) -> None:
        """Run one turn: wait for sockets and serve them."""
        selectables = self._selectables
        ready = self._poller.poll(-1 if timeout is None else timeout, len(selectables))
        for descriptor, event in ready:
            # Another socket of this turn may have closed it.
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if event != EPOLLIN:
                self._doReadOrWrite(selectable, descriptor, event)
                continue
            try:
                why_over = selectable.doRead()
            except Exception as exc:  # noqa: BLE001 - logged; it ends this connection alone
                log.err()
                why_over = exc
            if why_over:
                self._disconnectSelectable(selectable, why_over, isRead=True)

    doIteration = doPoll  # noqa: N815 - Twisted's name
