"""RabbitMQ's management API, as far as a fleet of sensors needs it.

It is separate because it is the only module that knows the API's paths and
documents. Accounts are imported as definitions, many in one request: each account
with its rights and limits is then there as a whole, and an import that is repeated
changes nothing. A password leaves this program only as the salted hash that the
broker keeps.

https://www.rabbitmq.com/docs/http-api-reference
https://www.rabbitmq.com/docs/passwords#computing-password-hash
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

import msgspec
import urllib3

from smtpfeeds_common.errors import FleetError, SettingsError
from smtpfeeds_common.service_address import parse_address

from .rights import (
    ALGORITHM,
    TAG,
    BrokerAccount,
    SensorAccount,
    definitions,
    exchange,
    limits,
    password_hash,
    rights,
)

#: An import of a thousand accounts takes a broker some seconds.
_TIMEOUT: Final = urllib3.Timeout(connect=5, read=60)
_ACCOUNTS_AT_ONCE: Final = 250
_FORM: Final = (
    "the address of the management API is not of the form https://ACCOUNT@HOST:15671; give "
    "its password in a file (--management-password-file)"
)
_PORTS: Final = {"http": 80, "https": 443}
_NOT_FOUND: Final = 404
_FAILED: Final = 500


@dataclass(frozen=True, slots=True)
class BrokerConnection:
    """A connection that an account has open at the broker."""

    name: str
    account: str
    peer: str
    is_tls: bool = False
    #: How it logged in: ``PLAIN``, or ``EXTERNAL`` with a client certificate.
    mechanism: str = ""


class Management:
    """One broker's management API, for one virtual host."""

    def __init__(self, url: str, password: str, *, vhost: str, ca_file: str | None = None) -> None:
        """Connect at the first request.

        Args:
            url: such as ``https://fleet@broker.example:15671``; the account has the tag
                ``administrator``.
            password: the account's.
            vhost: the virtual host of the sensors.
            ca_file: PEM file of the authority of the server's certificate.

        Raises:
            SettingsError: the address cannot be used.
        """
        try:
            address = parse_address(url, _PORTS, name="the address of the management API")
        except SettingsError:
            raise SettingsError(_FORM) from None
        if not address.account:
            raise SettingsError(_FORM)
        self._where = f"{address.scheme}://{address.host_port}"
        self._base = f"{self._where}{address.path}/api"
        self.vhost = vhost
        self._headers = urllib3.make_headers(basic_auth=f"{address.account}:{password}")
        self._pool = urllib3.PoolManager(
            timeout=_TIMEOUT, retries=urllib3.Retry(2, redirect=0), ca_certs=ca_file
        )

    def close(self) -> None:
        """Close what is open."""
        self._pool.clear()

    def put_sensors(self, accounts: Iterable[SensorAccount]) -> Iterator[int]:
        """Create accounts, or give those that exist their password, rights and limits again.

        Yields:
            How many are done, after each request.
        """
        done = 0
        remaining = iter(accounts)
        while part := list(islice(remaining, _ACCOUNTS_AT_ONCE)):
            self._import(definitions(self.vhost, part))
            done += len(part)
            yield done

    def put_rights(self, accounts: Sequence[tuple[str, int]]) -> None:
        """Give accounts that exist their rights and limits again; the password stays.

        Args:
            accounts: the name of each, and for how many workers it is.
        """
        for start in range(0, len(accounts), _ACCOUNTS_AT_ONCE):
            names = [name for name, _ in accounts[start : start + _ACCOUNTS_AT_ONCE]]
            self._import(rights(self.vhost, names))
        for name, workers in accounts:
            for limit, value in limits(workers).items():
                self._request("PUT", "user-limits", name, limit, body={"value": value})

    def _import(self, with_rights: dict[str, Any]) -> None:
        """Import the exchange and then what gives rights in it.

        In one document, some versions of RabbitMQ take the rights first.
        """
        for document in (exchange(self.vhost), with_rights):
            self._request("POST", "definitions", body=document)

    def accounts(self) -> dict[str, BrokerAccount]:
        """Return all accounts of the broker by name, also those that are not a sensor's."""
        permissions: dict[str, dict[str, dict[str, str]]] = {}
        for row in self._request("GET", "permissions"):
            granted = {key: row[key] for key in ("configure", "write", "read")}
            permissions.setdefault(row["user"], {})[row["vhost"]] = granted
        topics: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
        for row in self._request("GET", "topic-permissions"):
            granted = {key: row[key] for key in ("write", "read")}
            topics.setdefault(row["user"], {})[row["vhost"], row["exchange"]] = granted
        bounds = {row["user"]: row["value"] for row in self._request("GET", "user-limits")}
        return {
            user["name"]: BrokerAccount(
                name=user["name"],
                has_password=bool(user.get("password_hash")),
                tags=tuple(_tags(user)),
                permissions=permissions.get(user["name"], {}),
                topics=topics.get(user["name"], {}),
                max_connections=_bound(bounds.get(user["name"], {}), "max-connections"),
                max_channels=_bound(bounds.get(user["name"], {}), "max-channels"),
            )
            for user in self._request("GET", "users")
        }

    def sensors(self) -> list[str]:
        """Return the names of sensors' accounts, sorted."""
        users = self._request("GET", "users")
        return sorted(user["name"] for user in users if TAG in _tags(user))

    def accepts_certificates(self) -> bool:
        """Return whether each node lets clients log in with a certificate.

        A node that does not say how clients log in counts as one that does.
        """
        nodes = [node.get("auth_mechanisms") for node in self._request("GET", "nodes")]
        return all(
            any(one["name"] == "EXTERNAL" and one.get("enabled") for one in mechanisms)
            for mechanisms in nodes
            if mechanisms
        )

    def delete(self, name: str) -> bool:
        """Delete an account and close its connections. Returns False where there was none.

        The account goes first: a connection that is closed cannot come again.
        """
        existed = self._request("DELETE", "users", name, missing=True) is not None
        self.close_connections(name)
        return existed

    def close_connections(self, account: str) -> int:
        """Close an account's connections; returns how many there were.

        The broker closes some by itself when the account goes. It answers 404 or 500 for one that
        ends just then; the next request for the list shows whether it is gone. The request for all
        connections of an account also reaches one that the broker does not describe yet; the first
        releases of RabbitMQ 3.10 lack it.
        """
        connections = self.connections(account)
        every = ("connections", "username", account)
        if connections and self._request("DELETE", *every, missing=True, ending=True) is None:
            for connection in connections:
                one = ("connections", connection.name)
                self._request("DELETE", *one, missing=True, ending=True)
        return len(connections)

    def connections(self, account: str | None = None) -> list[BrokerConnection]:
        """Return the open connections of one account or of all.

        Those of one account are up to date, and lack `peer`, `is_tls` and `mechanism`. The list of
        all has a new connection some seconds later.
        """
        rows: list[dict[str, Any]] | None = None
        if account is not None:
            rows = self._request("GET", "connections", "username", account, missing=True)
        if rows is None:
            every = self._request("GET", "connections", missing=True) or []
            rows = [row for row in every if account in {None, row.get("user")}]
        return [
            BrokerConnection(
                row["name"],
                row.get("user", ""),
                str(row.get("peer_host", "")),
                is_tls=row.get("ssl") is True,
                mechanism=str(row.get("auth_mechanism", "")),
            )
            for row in rows
        ]

    def uncommitted(self) -> dict[str, int]:
        """Return how many messages each account has in open transactions.

        An account is named as soon as one of its channels is in a transaction.
        """
        held: dict[str, int] = {}
        for row in self._request("GET", "channels"):
            if row.get("transactional"):
                account = str(row.get("user", ""))
                held[account] = held.get(account, 0) + int(row.get("messages_uncommitted") or 0)
        return held

    def add_vhost(self) -> None:
        """Make the virtual host; one that is there stays as it is."""
        self._request("PUT", "vhosts", self.vhost, body={})

    def put_account(self, name: str, password: str, rights: dict[str, str]) -> None:
        """Make an account that is not a sensor's, with its rights in the virtual host."""
        body = {"password_hash": password_hash(password), "hashing_algorithm": ALGORITHM}
        self._request("PUT", "users", name, body={**body, "tags": ""})
        self._request("PUT", "permissions", self.vhost, name, body=rights)

    def _request(
        self,
        method: str,
        *path: str,
        body: Any = None,
        missing: bool = False,
        ending: bool = False,
    ) -> Any:
        """Send a request; return the broker's JSON, and ``{}`` for an empty answer.

        Args:
            missing: return None if it does not exist.
            ending: return None also if the broker fails, because the connection is just ending.
        """
        url = "/".join((self._base, *(quote(part, safe="") for part in path)))
        try:
            answer = self._pool.request(
                method,
                url,
                body=None if body is None else msgspec.json.encode(body),
                headers={**self._headers, "Content-Type": "application/json"},
            )
        except urllib3.exceptions.HTTPError as exc:
            raise FleetError(
                f"the management API at {self._where} does not answer: {_reason(exc)}; is the "
                "plugin rabbitmq_management enabled?"
            ) from exc
        if missing and answer.status == _NOT_FOUND:
            return None
        if ending and answer.status == _FAILED:
            return None
        if answer.status >= 300:
            raise FleetError(self._refusal(method, path, answer.status, answer.data))
        try:
            return msgspec.json.decode(answer.data) if answer.data else {}
        except ValueError as exc:
            raise FleetError(
                f"{self._where} answers {method} {'/'.join(path)} with something that is not JSON: "
                "is it the management API?"
            ) from exc

    def _refusal(self, method: str, path: tuple[str, ...], status: int, body: bytes) -> str:
        if status == 401:
            return (
                f"the management API at {self._where} refuses the account: check its password, "
                "and that it has the tag `administrator`"
            )
        text = body[:300].decode(errors="replace").strip()
        return (
            f"the management API at {self._where} refuses {method} {'/'.join(path)}: "
            f"{status} {text}"
        )


def _tags(user: dict[str, Any]) -> list[str]:
    """Return a user's tags: a list since RabbitMQ 3.9, before that a text with commas."""
    tags = user.get("tags") or []
    return tags.split(",") if isinstance(tags, str) else list(tags)


def _bound(limits_of: dict[str, Any], name: str) -> int | None:
    """Return a limit; a negative one means none."""
    value = limits_of.get(name)
    return value if isinstance(value, int) and value >= 0 else None


def _reason(error: Exception) -> str:
    """Return the innermost cause, without addresses of objects."""
    reason = getattr(error, "reason", None)
    return _reason(reason) if isinstance(reason, Exception) else str(error).split(": ", 1)[-1]
