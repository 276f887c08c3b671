"""What a sensor's account at the broker may do, and whether an account is like that. Pure.

It is separate because the same definition creates accounts and checks them. An account may
publish to the exchange under its own routing key, and nothing else; it may have a bounded
number of connections and channels.

https://www.rabbitmq.com/docs/access-control
https://www.rabbitmq.com/docs/user-limits
"""

import base64
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smtpfeeds_common.topology import EXCHANGE, routing_key

#: 256 bits: too many to guess.
PASSWORD_BYTES: Final = 32
_SALT_BYTES: Final = 4
ALGORITHM: Final = "rabbit_password_hashing_sha256"
_NOTHING: Final = "^$"
#: A sensor's worker has one connection with one channel. Two more are for a check and a
#: replay beside it, one for a spool that an older run left behind, one for a connection whose end
#: the broker has not noticed.
SPARE_CONNECTIONS: Final = 4
_CHANNELS: Final = 2
#: Tells our accounts from an operator's own.
TAG: Final = "smtpfeeds-sensor"


@dataclass(frozen=True, slots=True)
class SensorAccount:
    """A sensor's account as it is created.

    ``password`` is None for an account that logs in with a client certificate alone.
    """

    name: str
    password: str | None
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccount:
    """An account as the broker has it."""

    name: str
    #: False: it logs in with a client certificate alone.
    has_password: bool
    tags: tuple[str, ...]
    #: By virtual host: what it may configure, write and read.
    permissions: Mapping[str, Mapping[str, str]]
    #: By virtual host and exchange: which routing keys it may write and read.
    topics: Mapping[tuple[str, str], Mapping[str, str]]
    #: None: no bound.
    max_connections: int | None
    max_channels: int | None

    @property
    def is_ours(self) -> bool:
        """Whether `fleet enroll` created it."""
        return TAG in self.tags

    @property
    def workers(self) -> int | None:
        """The number of workers that it was created for; None if it has no bound."""
        if self.max_connections is None:
            return None
        return max(1, self.max_connections - SPARE_CONNECTIONS)


def new_password() -> str:
    """Return a random password without characters that a URL must escape."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def password_hash(password: str, salt: bytes | None = None) -> str:
    """Return the broker's form of a password: base64 of a salt and of SHA-256 over both."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def permission() -> dict[str, str]:
    """Return the permission of a sensor's account in the virtual host: publish to the exchange."""
    return {"configure": _NOTHING, "write": f"^{EXCHANGE}$", "read": _NOTHING}


def topic_permission(name: str) -> dict[str, str]:
    """Return its topic permission: to publish with its own routing key."""
    return {"write": f"^{routing_key(name).replace('.', '[.]')}$", "read": _NOTHING}


def limits(workers: int) -> dict[str, int]:
    """Return the limits of its connections and channels."""
    connections = workers + SPARE_CONNECTIONS
    return {"max-connections": connections, "max-channels": connections * _CHANNELS}


def definitions(vhost: str, accounts: Sequence[SensorAccount]) -> dict[str, Any]:
    """Accounts with rights and limits, as the broker imports them.

    Users carry their limits on RabbitMQ 3.10 and later, which the documentation does not say.
    """
    users = [
        {
            "name": account.name,
            # Nothing matches an empty hash: such an account logs in with a certificate alone.
            "password_hash": "" if account.password is None else password_hash(account.password),
            "hashing_algorithm": ALGORITHM,
            "tags": [TAG],
            "limits": limits(account.workers),
        }
        for account in accounts
    ]
    return {"users": users, **rights(vhost, [account.name for account in accounts])}


def exchange(vhost: str) -> dict[str, Any]:
    """Return the sensors' exchange, for an import; an existing one is not changed.

    RabbitMQ 4.3 refuses topic permissions in an exchange that does not exist.
    """
    declared = {"durable": True, "auto_delete": False, "internal": False, "arguments": {}}
    return {"exchanges": [{"name": EXCHANGE, "vhost": vhost, "type": "topic", **declared}]}


def rights(vhost: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the rights of existing accounts, for an import by the broker."""
    return {
        "permissions": [{"user": name, "vhost": vhost, **permission()} for name in names],
        "topic_permissions": [
            {"user": name, "vhost": vhost, "exchange": EXCHANGE, **topic_permission(name)}
            for name in names
        ],
    }


def wrong_rights(account: BrokerAccount, vhost: str) -> Iterator[str]:
    """Return the rights that an account has and a sensor does not need, or lacks and needs."""
    here = account.permissions.get(vhost)
    if here is None:
        yield f"no permissions in the virtual host {vhost}"
    elif dict(here) != permission():
        yield f"other permissions in {vhost} than to publish: {_shown(here)}"
    topic = account.topics.get((vhost, EXCHANGE))
    if topic is None:
        yield "any routing key: it can publish under other sensors' names"
    elif not _same_key(topic, account.name):
        yield f"other routing keys than its own: {_shown(topic)}"
    for other in sorted(set(account.permissions) - {vhost}):
        yield f"permissions in the virtual host {other}"
    if power := sorted(set(account.tags) - {TAG}):
        yield f"tags: {', '.join(power)}"


def wrong_limits(account: BrokerAccount) -> Iterator[str]:
    """Return how its limits differ from those of a sensor."""
    if account.max_connections is None:
        yield "no limit of connections"
    if account.max_channels is None:
        yield "no limit of channels"
    elif account.workers is not None:
        expected = limits(account.workers)["max-channels"]
        if account.max_channels != expected:
            yield f"{account.max_channels} channels instead of {expected}"


def _same_key(topic: Mapping[str, str], name: str) -> bool:
    """Scripts for hosts without the management plugin escape the dot in the other way."""
    wanted = topic_permission(name)
    write = topic.get("write", "").replace(r"\.", "[.]")
    return {**topic, "write": write} == wanted


def _shown(granted: Mapping[str, str]) -> str:
    return ", ".join(f"{what} {pattern}" for what, pattern in sorted(granted.items()))
