"""RabbitMQ's management API, as far as a fleet of sensors needs it.

It stands alone because it is the only module that knows the API's paths and
documents. Accounts are imported as definitions, many in one request: each account
with its rights and limits is then there as a whole, and an import that is repeated
changes nothing. A password leaves this program only as the salted hash that the
broker keeps.

https://www.rabbitmq.com/docs/http-api-reference
https://www.rabbitmq.com/docs/passwords#computing-password-hash
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

import msgspec
import urllib3

from smtpfeeds_common.errors import FleetError, SettingsError
from smtpfeeds_common.service_address import parse_address
from smtpfeeds_common.topology import EXCHANGE, routing_key

#: An import of a thousand accounts takes a broker some seconds.
_TIMEOUT: Final = urllib3.Timeout(connect=5, read=60)
_ACCOUNTS_AT_ONCE: Final = 250
#: 256 bits: nobody guesses it, and no dictionary holds it.
PASSWORD_BYTES: Final = 32
_SALT_BYTES: Final = 4
_ALGORITHM: Final = "rabbit_password_hashing_sha256"
_NOTHING: Final = "^$"
_FORM: Final = (
    "the address of the management API is not of the form https://ACCOUNT@HOST:15671; its password "
    "stands in a file"
)
_PORTS: Final = {"http": 80, "https": 443}
#: A sensor's worker has one connection with one channel. Two more are for a check and a
#: replay beside it, and a connection that the broker has not noticed the end of is one more.
_SPARE_CONNECTIONS: Final = 4
_CHANNELS: Final = 2
#: Tells our accounts from an operator's own.
TAG: Final = "smtpfeeds-sensor"
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class SensorAccount:
    """A sensor's account as it is made.

    ``password`` is None for an account that shows a client certificate alone.
    """

    name: str
    password: str | None
    workers: int = 1


@dataclass(frozen=True, slots=True)
class BrokerConnection:
    """A connection that an account has open at the broker."""

    name: str
    account: str
    peer: str


def new_password() -> str:
    """A password that nobody guesses, without a character that an address must escape."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def password_hash(password: str, salt: bytes | None = None) -> str:
    """What the broker keeps of a password: base64 of a salt and of SHA-256 over both."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class Management:
    """One broker's management API, for one virtual host."""

    def __init__(self, url: str, password: str, *, vhost: str, ca_file: str | None = None) -> None:
        """Connect at the first request.

        Args:
            url: such as ``https://fleet@broker.example:15671``; the account has the tag
                ``administrator``.
            password: the account's.
            vhost: the virtual host of the sensors.
            ca_file: PEM file of the authority that vouches for the server.

        Raises:
            FleetError: the address cannot be used.
        """
        try:
            address = parse_address(url, _PORTS, name="the address of the management API")
        except SettingsError:
            raise FleetError(_FORM) from None
        if not address.account:
            raise FleetError(_FORM)
        self._where = f"{address.scheme}://{address.host_port}"
        self._base = f"{self._where}{address.path}/api"
        self._vhost = vhost
        self._headers = urllib3.make_headers(basic_auth=f"{address.account}:{password}")
        self._pool = urllib3.PoolManager(
            timeout=_TIMEOUT, retries=urllib3.Retry(2, redirect=0), ca_certs=ca_file
        )

    def close(self) -> None:
        """Close what is open."""
        self._pool.clear()

    def put_sensors(self, accounts: Iterable[SensorAccount]) -> Iterator[int]:
        """Make accounts, or give those that exist their password, rights and limits again.

        Yields:
            How many are done, after each request.
        """
        done = 0
        remaining = iter(accounts)
        while part := list(islice(remaining, _ACCOUNTS_AT_ONCE)):
            self._request("POST", "definitions", body=self._definitions(part))
            for account in part:
                self.put_limits(account)
            done += len(part)
            yield done

    def _definitions(self, accounts: list[SensorAccount]) -> dict[str, Any]:
        """Accounts and rights; an account may publish under its own key, and nothing else."""
        return {
            "users": [
                {
                    "name": account.name,
                    "password_hash": ""
                    if account.password is None
                    else password_hash(account.password),
                    "hashing_algorithm": _ALGORITHM,
                    "tags": [TAG],
                }
                for account in accounts
            ],
            "permissions": [
                {
                    "user": account.name,
                    "vhost": self._vhost,
                    "configure": _NOTHING,
                    "write": f"^{EXCHANGE}$",
                    "read": _NOTHING,
                }
                for account in accounts
            ],
            "topic_permissions": [
                {
                    "user": account.name,
                    "vhost": self._vhost,
                    "exchange": EXCHANGE,
                    "write": f"^{routing_key(account.name).replace('.', '[.]')}$",
                    "read": _NOTHING,
                }
                for account in accounts
            ],
        }

    def put_limits(self, account: SensorAccount) -> None:
        """Set how many connections and channels an account may have; the password stays.

        Definitions of 3.10 carry no limits of accounts: a request for each.
        """
        connections = account.workers + _SPARE_CONNECTIONS
        for name, value in (
            ("max-connections", connections),
            ("max-channels", connections * _CHANNELS),
        ):
            self._request("PUT", "user-limits", account.name, name, body={"value": value})

    def workers(self, name: str) -> int | None:
        """For how many workers an account was made; None where it has no limit."""
        rows = self._request("GET", "user-limits", name, missing=True) or []
        most = next((row["value"].get("max-connections") for row in rows), None)
        return None if most is None else max(1, int(most) - _SPARE_CONNECTIONS)

    def sensors(self) -> list[str]:
        """The names of our accounts, sorted."""
        users = self._request("GET", "users")
        return sorted(user["name"] for user in users if TAG in _tags(user))

    def exists(self, name: str) -> bool:
        """Whether there is an account of this name, ours or not."""
        return self._request("GET", "users", name, missing=True) is not None

    def delete(self, name: str) -> bool:
        """Delete an account and close its connections. Returns False where there was none.

        The account goes first: a connection that is closed cannot come again.
        """
        existed = self._request("DELETE", "users", name, missing=True) is not None
        for connection in self.connections(name):
            self._request("DELETE", "connections", connection.name, missing=True)
        return existed

    def close_connections(self, name: str) -> int:
        """Close an account's connections; returns how many there were."""
        connections = self.connections(name)
        for connection in connections:
            self._request("DELETE", "connections", connection.name, missing=True)
        return len(connections)

    def connections(self, account: str | None = None) -> list[BrokerConnection]:
        """The open connections, of one account or of all."""
        path = ("connections",) if account is None else ("connections", "username", account)
        rows = self._request("GET", *path, missing=True) or []
        return [
            BrokerConnection(row["name"], row.get("user", ""), str(row.get("peer_host", "")))
            for row in rows
        ]

    def version(self) -> str:
        """The broker's version."""
        return str(self._request("GET", "overview")["rabbitmq_version"])

    def add_vhost(self) -> None:
        """Make the virtual host; one that is there stays as it is."""
        self._request("PUT", "vhosts", self._vhost, body={})

    def put_account(self, name: str, password: str, rights: dict[str, str]) -> None:
        """Make an account that is not a sensor's, with its rights in the virtual host."""
        body = {"password_hash": password_hash(password), "hashing_algorithm": _ALGORITHM}
        self._request("PUT", "users", name, body={**body, "tags": ""})
        self._request("PUT", "permissions", self._vhost, name, body=rights)

    def _request(self, method: str, *path: str, body: Any = None, missing: bool = False) -> Any:
        """One request; what the broker answers as JSON, and an empty answer as ``{}``.

        Args:
            missing: give None for what is not there.
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
        if answer.status >= 300:
            raise FleetError(self._refusal(method, path, answer.status, answer.data))
        return msgspec.json.decode(answer.data) if answer.data else {}

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
    """A list since RabbitMQ 3.9, before a text with commas."""
    tags = user.get("tags") or []
    return tags.split(",") if isinstance(tags, str) else list(tags)


def _reason(error: Exception) -> str:
    """The innermost cause, without addresses of objects."""
    reason = getattr(error, "reason", None)
    return _reason(reason) if isinstance(reason, Exception) else str(error).split(": ", 1)[-1]
