"""The broker of a fault run: one node or three, with the accounts of a real site."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from servers.rabbitmq import RabbitCluster, RabbitHome, RabbitNode
from servers.rabbitmq_admin import AdminError
from smtpfeeds_common.topology import EXCHANGE, QUEUE

VHOST = "smtpfeeds"
AGGREGATOR = "smtpfeeds-aggregator"
_PASSWORD = "password"
_OWN = r"^smtpfeeds(\..*)?$"
_OWN_AND_DEFAULT = r"^(smtpfeeds(\..*)?|amq\.default)$"
#: Counts of the management interface are fresh enough to wait for.
_SETTINGS = {"collect_statistics_interval": "1000"}


class Carrier(Protocol):
    """The transport of batches from the sensors to the aggregators."""

    nodes: Sequence[RabbitNode]

    def start(self, sensors: Iterable[str]) -> None:
        """Start it, with accounts."""

    def stop(self) -> None:
        """End it for good."""

    def urls(self, account: str, ports: Iterable[int] | None = None) -> list[str]:
        """Return the `broker` setting of an account."""
        ...

    def empty(self) -> bool:
        """Return whether no batch waits or is unacknowledged, as far as it knows."""
        ...

    def whole(self) -> bool:
        """Whether every node is up and has the queue's data."""
        ...


class SpoolFolder:
    """The transport of a single host: aggregators read the sensors' spools, without a broker."""

    def __init__(self, folder: Path) -> None:
        self.nodes: Sequence[RabbitNode] = ()
        self._folder = folder

    def start(self, sensors: Iterable[str]) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to end."""

    def urls(self, account: str, ports: Iterable[int] | None = None) -> list[str]:
        """Return the folder for the aggregator; a sensor has none."""
        return [f"spool:{self._folder}"] if account == AGGREGATOR else []

    def empty(self) -> bool:
        """Return True: all waiting batches are in the spools."""
        return True

    def whole(self) -> bool:
        """Always."""
        return True


class Brokers:
    """One RabbitMQ node, or a cluster of three; a context manager."""

    def __init__(self, folder: Path, *, cluster: bool) -> None:
        folder.mkdir(parents=True)
        self._cluster: RabbitCluster | None = None
        self._home: RabbitHome | None = None
        if cluster:
            self._cluster = RabbitCluster(folder, settings=_SETTINGS)
            self.nodes: Sequence[RabbitNode] = self._cluster.nodes
        else:
            self._home = RabbitHome.make(folder)
            self.nodes = [RabbitNode(self._home, settings=_SETTINGS)]

    def start(self, sensors: Iterable[str]) -> None:
        """Start the nodes, and create the accounts as `deploy/rabbitmq` does."""
        admin = self.nodes[0].admin
        if self._cluster is not None:
            self._cluster.start()
            self._cluster.add_vhost(VHOST)
        else:
            self.nodes[0].start()
            admin.add_vhost(VHOST)
        administrator = self.nodes[0].home.user
        admin.permit(administrator, VHOST, configure=".*", write=".*", read=".*")
        admin.add_user(AGGREGATOR, _PASSWORD)
        admin.permit(AGGREGATOR, VHOST, configure=_OWN, write=_OWN_AND_DEFAULT, read=_OWN)
        for sensor in sensors:
            admin.add_user(sensor, _PASSWORD)
            admin.permit_topic(sensor, VHOST, EXCHANGE, write=rf"^observations\.{sensor}$")
            admin.permit(sensor, VHOST, write=f"^{EXCHANGE}$")

    def stop(self) -> None:
        if self._cluster is not None:
            self._cluster.stop()
            return
        assert self._home is not None
        for node in self.nodes:
            node.discard()
        self._home.epmd.stop()

    def urls(self, account: str, ports: Iterable[int] | None = None) -> list[str]:
        """Return the addresses for an account: every node, or the ports of these proxies."""
        where = [node.port for node in self.nodes] if ports is None else ports
        return [f"amqp://{account}:{_PASSWORD}@127.0.0.1:{port}/{VHOST}" for port in where]

    def leader(self) -> RabbitNode:
        """Return the node that leads the queue of batches."""
        if self._cluster is None:
            return self.nodes[0]
        return self._cluster.leader_of(VHOST, QUEUE)

    def empty(self) -> bool:
        """Return whether no batch waits or is unacknowledged, as far as the broker knows."""
        return any(self._queue(node).get("messages") == 0 for node in self.nodes)

    def whole(self) -> bool:
        """Whether every node is up and has the queue's data."""
        everyone = len(self.nodes)
        return all(len(self._queue(node).get("online", [])) == everyone for node in self.nodes)

    def _queue(self, node: RabbitNode) -> dict[str, Any]:
        """Return a node's data about the queue; empty while the node starts."""
        try:
            return node.admin.queue(VHOST, QUEUE)
        except (AdminError, OSError, http.client.HTTPException):
            return {}
