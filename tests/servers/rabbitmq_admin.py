"""Accounts, virtual hosts and queues of a test's broker, by the management plugin's HTTP API.

rabbitmqctl starts an Erlang machine for every call (1-2 s); this takes milliseconds.
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any, Final
from urllib.parse import quote

CALL_LIMIT_S: Final = 30.0
#: A virtual host is added when all nodes have it, which busy ones took over 30 s for.
_VHOST_LIMIT_S: Final = 120.0


class AdminError(RuntimeError):
    """The broker's HTTP API refused a request."""


class RabbitAdmin:
    """One administrator of one broker node."""

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        self._host, self._port = host, port
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}

    def call(
        self, method: str, *path: str, body: object = None, limit_s: float = CALL_LIMIT_S
    ) -> Any:
        """One request to /api/<path>, each part quoted; the decoded answer or None."""
        target = "/api/" + "/".join(quote(part, safe="") for part in path)
        connection = http.client.HTTPConnection(self._host, self._port, timeout=limit_s)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, target, payload, self._headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            msg = f"{method} {target}: {answer.status} {text.decode(errors='replace')[:500]}"
            raise AdminError(msg)
        return json.loads(text) if text else None

    def answers(self) -> bool:
        """Whether the node is up to serving administrators."""
        try:
            self.call("GET", "overview")
        except (OSError, http.client.HTTPException, AdminError):
            return False
        return True

    def add_vhost(self, vhost: str) -> None:
        self.call("PUT", "vhosts", vhost, body={}, limit_s=_VHOST_LIMIT_S)

    def vhost_runs_on(self, vhost: str) -> set[str]:
        """The names of the nodes on which a virtual host runs; empty where there is none."""
        try:
            state = self.call("GET", "vhosts", vhost).get("cluster_state", {})
        except AdminError as exc:
            if " 404 " not in str(exc):
                raise
            return set()
        return {node for node, what in state.items() if what == "running"}

    def delete_vhost(self, vhost: str) -> None:
        self.call("DELETE", "vhosts", vhost)

    def add_user(self, user: str, password: str, *, tags: str = "") -> None:
        self.call("PUT", "users", user, body={"password": password, "tags": tags})

    def delete_user(self, user: str) -> None:
        self.call("DELETE", "users", user)

    def permit(
        self, user: str, vhost: str, *, configure: str = "^$", write: str = "^$", read: str = "^$"
    ) -> None:
        """Set the user's permissions: each a regular expression; the default permits nothing."""
        body = {"configure": configure, "write": write, "read": read}
        self.call("PUT", "permissions", vhost, user, body=body)

    def permit_topic(
        self, user: str, vhost: str, exchange: str, *, write: str, read: str = "^$"
    ) -> None:
        body = {"exchange": exchange, "write": write, "read": read}
        self.call("PUT", "topic-permissions", vhost, user, body=body)

    def queue(self, vhost: str, name: str) -> dict[str, Any]:
        """What the broker says of a queue: arguments, type, members, leader, and counts.

        The counts lag by up to the statistics interval (5 s). Those of a passive declaration are
        fresher, and still those of statistics: 0 just after a broker's start. To be sure, consume.
        """
        answer: dict[str, Any] = self.call("GET", "queues", vhost, name)
        return answer

    def delete_queue(self, vhost: str, name: str) -> None:
        self.call("DELETE", "queues", vhost, name)

    def set_policy(
        self, vhost: str, name: str, pattern: str, definition: dict[str, object]
    ) -> None:
        body = {"pattern": pattern, "definition": definition, "apply-to": "queues"}
        self.call("PUT", "policies", vhost, name, body=body)

    def connections(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.call("GET", "connections")
        return answer

    def close_connections(self) -> int:
        """Close every client's connection, as an operator would; how many there were."""
        names = [connection["name"] for connection in self.connections()]
        for name in names:
            try:
                self.call("DELETE", "connections", name)
            except AdminError as exc:
                if " 404 " not in str(exc):
                    raise
        return len(names)
