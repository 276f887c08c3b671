"""The parts that all connections of a sensor share: limits, replies, counters, recorder."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from ..counters import new_counters
from ..delivery.recorder import Recorder
from ..delivery.timer import Timer
from ..smtp.dialogue import Rules
from ..smtp.names import SensorNames
from ..smtp.personas import Persona, Personas
from .limits import Deadlines, Networks, SourceLimits
from .listen import target_bit

if TYPE_CHECKING:
    # A sensor without STARTTLS may not have it installed.
    from .tls import TlsContext

#: Local addresses whose names are kept; past it they are written again.
MAX_NAMES: Final = 4096


class Open(Protocol):
    """An open connection, as the service sees it."""

    def stop(self) -> None:
        """End it with 421: the sensor stops."""

    def abort(self) -> None:
        """End it at once."""


@dataclass(kw_only=True)
class Reception:
    """One for each process."""

    reactor: Timer
    recorder: Recorder
    personas: Personas
    rules: Rules
    count: MutableMapping[str, int]
    limits: SourceLimits
    deadlines: Deadlines
    #: Behind a NAT: by packed local address, the address that clients connect to.
    public_addresses: Mapping[bytes, bytes] = field(default_factory=dict)
    trusted_proxies: Networks = field(default_factory=lambda: Networks(()))
    ignore: Networks = field(default_factory=lambda: Networks(()))
    idle_timeout_s: int = 60
    session_timeout_s: int = 180
    banner_delay_s: float = 0.0
    max_connections: int = 10_000
    max_unsent_bytes: int = 16_384
    max_tls_connections: int = 1000
    tls_context: "TlsContext | None" = None
    in_tls: int = 0
    #: When the last client connected, on the reactor's clock; None: not since the start.
    last_client_s: float | None = None
    open: "set[Open]" = field(default_factory=set)
    #: Unused counters, for monitors and a proxy's own checks.
    uncounted: MutableMapping[str, int] = field(default_factory=new_counters)
    _targets: dict[bytes, int] = field(default_factory=dict)
    _names: dict[bytes, SensorNames] = field(default_factory=dict)

    def target(self, local: bytes) -> int:
        """Return the bit of ``targets`` for a local address, by the address that clients connect
        to.
        """
        bit = self._targets.get(local)
        if bit is None:
            if len(self._targets) >= MAX_NAMES:
                self._targets.clear()
            bit = target_bit(self.public_addresses.get(local, local))
            self._targets[local] = bit
        return bit

    def names(self, local: bytes, persona: Persona) -> SensorNames:
        """Return the names that a client of this local address may use for the sensor."""
        names = self._names.get(local)
        if names is None:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            public = self.public_addresses.get(local, local)
            names = self._names[local] = SensorNames(public, persona.hostname)
        return names

    def tls_free(self) -> bool:
        """Return whether one more connection may start TLS."""
        return self.in_tls < self.max_tls_connections
