"""Twisted's epoll reactor, without what the sensor has no use for.

For every ready socket Twisted copies a dictionary and enters a context, so that a line logged
meanwhile could bear the connection's name; then it asks which of several events came. The sensor's
log names no connection, and nearly always there is something to read and nothing else. This is a
tenth of the sensor's time. Apart from the rest because it reaches into Twisted's own parts.

Twisted's own reactors count time by the wall clock: a step back stops every timer, a step forward
makes all of them due at once. This one counts by the monotonic clock.
"""

import time
from select import EPOLLIN

from twisted.internet.epollreactor import EPollReactor
from twisted.python import log


class SensorReactor(EPollReactor):
    """Serves what is ready, and no more.

    An error in a connection is caught where Twisted reads and writes for it; one in its end by
    the reactor's main loop, and what else was ready is ready again at the next turn.
    """

    seconds = staticmethod(time.monotonic)

    def doPoll(self, timeout: float | None) -> None:
        """Run one turn: wait for sockets and serve them."""
        selectables = self._selectables
        try:
            ready = self._poller.poll(-1 if timeout is None else timeout, len(selectables))
        except InterruptedError:
            return
        for descriptor, event in ready:
            # One that was served before it may have closed it.
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
