"""Manages accounts, virtual hosts and queues of a test's broker by RabbitMQ's management API.

A call takes milliseconds. rabbitmqctl starts an Erlang VM for each call, which takes 1-2 s.
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any, Final
from urllib.parse import quote

CALL_LIMIT_S: Final = 60.0
#: Adding a virtual host ends when all nodes have it; busy nodes can take more than 30 s.
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
        """Send a request to /api/<path>, each part quoted; return the decoded answer or None."""
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
        """Return whether the node serves the management API."""
        try:
            self.call("GET", "overview")
        except (OSError, http.client.HTTPException, AdminError):
            return False
        return True

    def add_vhost(self, vhost: str) -> None:
        self.call("PUT", "vhosts", vhost, body={}, limit_s=_VHOST_LIMIT_S)

    def vhost_runs_on(self, vhost: str) -> set[str]:
        """Return the names of the nodes on which a virtual host runs."""
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
        """Set the user's permissions, each a regular expression; the defaults permit nothing."""
        body = {"configure": configure, "write": write, "read": read}
        self.call("PUT", "permissions", vhost, user, body=body)

    def permit_topic(
        self, user: str, vhost: str, exchange: str, *, write: str, read: str = "^$"
    ) -> None:
        """Set the user's routing keys; RabbitMQ 4.3 needs the exchange before them.

        A topic exchange is declared if there is none.
        """
        declared = {"durable": True, "auto_delete": False, "internal": False, "arguments": {}}
        exchanges = [{"name": exchange, "vhost": vhost, "type": "topic", **declared}]
        self.call("POST", "definitions", body={"exchanges": exchanges})
        body = {"exchange": exchange, "write": write, "read": read}
        self.call("PUT", "topic-permissions", vhost, user, body=body)

    def queue(self, vhost: str, name: str) -> dict[str, Any]:
        """Return the broker's description of a queue: arguments, type, members, leader, counts.

        The counts lag by up to the statistics interval (5 s). Those of a passive declaration are
        newer, but also come from statistics, and are 0 just after a broker's start. Only consuming
        is reliable.
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
        """Close every client's connection, as an operator would; return their number."""
        names = [connection["name"] for connection in self.connections()]
        for name in names:
            try:
                self.call("DELETE", "connections", name)
            except AdminError as exc:
                if " 404 " not in str(exc):
                    raise
        return len(names)
