"""Open listening sockets: a list, a prefix, wildcards, or sockets from systemd.

Twisted adopts the sockets, because its own ``tcp:`` and ``tcp6:`` endpoints cannot share a port
(EADDRINUSE), report IPv4 clients as ``::ffff:a.b.c.d``, and do not support SO_REUSEPORT. IPv6
sockets accept only IPv6. The address of each socket is known, or None for a wildcard.
"""

import errno
import hashlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.errors import AddressError, SettingsError
from smtpfeeds_common.host_port import HostPort, parse_host_port

from ..settings import SensorSettings

#: The most addresses of one prefix; each needs its own socket.
MAX_ADDRESSES: Final = 4096
_FIRST_SYSTEMD_FD: Final = 3
#: From asm-generic/socket.h and linux/in.h; not in Python's socket module.
_IP_FREEBIND: Final = 15


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """An address to listen on."""

    host: str
    port: int
    #: Index of a socket that systemd passes, or -1.
    systemd: int = -1

    def __str__(self) -> str:
        return str(HostPort(self.host, self.port))

    @property
    def wildcard(self) -> "Place":
        """Return the place of all addresses of this family, with the same port."""
        return Place("::" if ":" in self.host else "0.0.0.0", self.port)  # noqa: S104 - compared


@dataclass(frozen=True, slots=True)
class Opened:
    """A listening socket; Twisted takes a copy of it, and this one is closed."""

    socket: socket.socket
    #: The packed address, or None for a wildcard.
    local: bytes | None
    #: The address with the real port.
    where: str


def passed_sockets(environ: Mapping[str, str]) -> int | None:
    """Return how many sockets systemd passes to this process (sd_listen_fds(3)); None: none."""
    number = environ.get("LISTEN_FDS", "")
    if not number.isdecimal() or environ.get("LISTEN_PID") not in {str(os.getpid()), None}:
        return None
    return int(number)


def parse_listen(texts: Iterable[str], passed: int | None) -> list[Place]:
    """Read the setting ``listen``.

    Args:
        texts: the items of the setting.
        passed: how many sockets systemd passes; None: unknown, so any index is accepted.

    Raises:
        SettingsError: an item is not an address with a port, or occurs twice.
    """
    places: list[Place] = []
    for text in texts:
        places += _systemd(text, passed) if text.startswith("systemd:") else _addresses(text)
    if not places:
        raise SettingsError('listen: give at least one address, such as "192.0.2.1:25"')
    seen: set[Place] = set()
    for place in places:
        if place in seen and place.port:
            raise SettingsError(f"listen: {place} occurs twice")
        seen.add(place)
    return places


def check_overlap(places: Iterable[Place], settings: SensorSettings) -> None:
    """Check that no two sockets of the sensor need the same address and port.

    Workers share their ports (SO_REUSEPORT), so they can listen on a wildcard and on an address.
    Their metrics never share a port.

    Raises:
        SettingsError: the kernel would refuse the second socket.
    """
    chosen = {place for place in places if place.systemd < 0 and place.port}
    if settings.workers == 1:
        for place in sorted(chosen):
            if place != place.wildcard and place.wildcard in chosen:
                raise SettingsError(f"listen: {place.wildcard} includes {place}; remove one")
    for metrics in _metrics_places(settings):
        for place in sorted(chosen):
            if metrics in {place, place.wildcard} or metrics.wildcard == place:
                raise SettingsError(
                    f"metrics_listen: {metrics} is an address of `listen` ({place}); "
                    "give another port"
                )


def _metrics_places(settings: SensorSettings) -> list[Place]:
    """Return where the workers serve their metrics; none for a name or a port of the kernel."""
    if not settings.metrics_listen:
        return []
    host, port = parse_host_port(settings.metrics_listen, setting="metrics_listen")
    try:
        host = format_address(pack_address(host))
    except AddressError:
        return []
    return [Place(host, port + worker) for worker in range(settings.workers)] if port else []


def _addresses(text: str) -> list[Place]:
    host, port = parse_host_port(text, setting="listen")
    if host == "*":
        return [Place("0.0.0.0", port), Place("::", port)]  # noqa: S104 - asked for
    try:
        if "/" not in host:
            return [Place(format_address(pack_address(host)), port)]
        network = ip_network(host)
    except (AddressError, ValueError) as exc:
        raise SettingsError(f"listen: {text!r}: {exc}") from exc
    if network.num_addresses > MAX_ADDRESSES:
        raise SettingsError(
            f"listen: {text!r} has more than {MAX_ADDRESSES} addresses; "
            f'listen on "*:{port}" instead; the sensor still knows the address of each connection'
        )
    return [Place(str(address), port) for address in network]


def _systemd(text: str, passed: int | None) -> list[Place]:
    index = text.removeprefix("systemd:")
    if index == "*":
        # Their number is unknown: one place represents all of them.
        wanted: Sequence[int] = range(1 if passed is None else passed)
    elif index.isdecimal() and index.isascii():
        wanted = [int(index)]
    else:
        raise SettingsError(f'listen: {text!r}: write "systemd:0", by index, or "systemd:*"')
    if passed is not None and (not wanted or max(wanted) >= passed):
        raise SettingsError(
            f"listen: {text!r}, but systemd passes {passed} sockets to this process"
        )
    return [Place("", 0, number) for number in wanted]


def target_bit(packed: bytes) -> int:
    """Return the bit of ``targets`` for a sensor's address, 0 to 63, the same at every start.

    BLAKE2b with a digest of 8 octets, read as a little-endian number, modulo 64. It does not depend
    on the sensor's other addresses, so bits stay when the list grows.
    """
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") % 64


def count_addresses(places: Sequence[bytes | None], public: Mapping[bytes, bytes]) -> int:
    """Return how many addresses clients can connect to; 0 for a wildcard, which makes it unknown.

    Args:
        places: the packed address of each listening socket; None: a wildcard.
        public: behind a NAT, the address that clients connect to, by local address.
    """
    if None in places:
        return len(set(public.values()))
    return len({public.get(place, place) for place in places if place is not None})


def has_ipv6() -> bool:
    """Return whether this kernel supports IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as exc:
        return exc.errno != errno.EAFNOSUPPORT
    return True


def without_absent_ipv6(places: Sequence[Place]) -> list[Place]:
    """Return the places without ``[::]`` if the kernel has no IPv6 and another place is left.

    A single IPv6 address stays: opening it gives an error with the reason.
    """
    kept = [place for place in places if place.host != "::"]
    if not kept or len(kept) == len(places) or has_ipv6():
        return list(places)
    return kept


def open_sockets(
    places: Sequence[Place], *, backlog: int, shared: bool = False, free: bool = False
) -> list[Opened]:
    """Open all sockets, or none.

    Args:
        places: the addresses.
        backlog: the length of the kernel's queue of each socket.
        shared: whether to set SO_REUSEPORT, so that several processes can use the same address.
        free: whether to listen on addresses that the host does not have yet.

    Raises:
        SettingsError: the sensor cannot listen on an address.
    """
    opened: list[Opened] = []
    try:
        for place in places:
            opened.append(_open(place, backlog, shared, free))  # noqa: PERF401 - all or none
    except BaseException:
        for one in opened:
            one.socket.close()
        raise
    return opened


def _open(place: Place, backlog: int, shared: bool, free: bool) -> Opened:  # noqa: FBT001 - private
    if place.systemd >= 0:
        return _opened(socket.socket(fileno=_FIRST_SYSTEMD_FD + place.systemd))
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as exc:
        raise SettingsError(f"cannot listen on {place}: {exc.strerror}{_advice(exc)}") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if free:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        # Accepted connections inherit this: a reply is one segment, sent at once.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((place.host, place.port))
        listener.listen(backlog)
    except OSError as exc:
        listener.close()
        raise SettingsError(f"cannot listen on {place}: {exc.strerror}{_advice(exc)}") from exc
    return _opened(listener)


def _opened(listener: socket.socket) -> Opened:
    listener.settimeout(0)
    host, port, *_ = listener.getsockname()
    host = host.partition("%")[0]
    local = pack_address(host)
    return Opened(listener, local if any(local) else None, str(HostPort(host, port)))


def _advice(exc: OSError) -> str:
    return {
        errno.EACCES: "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        errno.EAFNOSUPPORT: "; this kernel has no IPv6: leave the address out",
        errno.EMFILE: "; more files are needed than this process may open (`smtpfeeds sensor "
        "check-config` says how many, LimitNOFILE in the unit allows them)",
        errno.EADDRINUSE: "; another program listens there (ss -ltnp shows which)",
        errno.EADDRNOTAVAIL: "; this host does not have the address (listen_free = true waits "
        "for it)",
    }.get(exc.errno or 0, "")
