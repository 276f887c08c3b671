"""The behaviours of each kind of client: the bits in its rows.

They follow from what the client sends (`smtpfeeds_deploy.simulation.clients`) and the meanings of
the bits, not from the sensor's code. The sensor has the default answers: it refuses DATA and offers
neither TLS nor AUTH.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.feeds import DATA, GREET


@dataclass(frozen=True, slots=True)
class Shown:
    """Behaviours of one kind."""

    #: Stored before the event was answered, by feed.
    answered: Mapping[str, Flags]
    #: All of them, as soon as the sensor has noticed its end.
    whole: Flags


_NOTHING: Final = Flags(0)


def _shown(greet: Flags, data: Flags = _NOTHING, rest: Flags = _NOTHING) -> Shown:
    """Return behaviours with the greet, until DATA, and after DATA or without it."""
    answered: dict[str, Flags] = {GREET.name: greet, DATA.name: greet | data}
    return Shown(answered, greet | data | rest)


_NAME: Final = Flags.FULL_HOST_NAME
_ENVELOPE: Final = Flags.SENDER | Flags.RECIPIENT
_ORDER: Final = _ENVELOPE | Flags.MESSAGE
#: It pipelines, as the sensor offers, and continues after the refusal.
_BULK: Final = _shown(_NAME, rest=_ORDER | Flags.UNHEEDING | Flags.EXTENSION)
#: Kinds that never greet have no row, and show nothing.
BY_KIND: Final[Mapping[str, Shown]] = {
    "scanner": _shown(_NAME, rest=Flags.QUIT),
    "bare_ehlo": _shown(Flags.NO_ARGUMENT, rest=Flags.QUIT),
    "mailer": _shown(_NAME, _ORDER, Flags.QUIT),
    "spammer": _BULK,
    "early_spammer": _BULK,
    "bare_lf_bot": _shown(Flags.HELO | Flags.SHORT_NAME | Flags.BARE_LF, _ORDER, Flags.QUIT),
    "bdat_sender": _shown(_NAME, _ORDER | Flags.UNOFFERED, Flags.QUIT),
    "data_out_of_order": _shown(_NAME, rest=_ENVELOPE | Flags.QUIT),
    "helo_twice": _shown(_NAME | Flags.HELO, rest=_ENVELOPE | Flags.QUIT),
    "vanisher": _shown(_NAME, rest=Flags.SENDER),
    "hasty": _shown(_NAME | Flags.HELO),
    "password_guesser": _shown(_NAME, rest=Flags.AUTH | Flags.UNOFFERED | Flags.QUIT),
    "slow_one": _shown(_NAME | Flags.LOWER_CASE, rest=Flags.QUIT),
    **dict.fromkeys(
        ("data_without_greet", "http_request", "half_word", "banner_grabber", "tls_hello"),
        _shown(_NOTHING),
    ),
}


def target_of(address: str) -> int:
    """The bit of a sensor's address, as docs/how-to/many-addresses.md defines it."""
    digest = hashlib.blake2b(ip_address(address).packed, digest_size=8).digest()
    return 1 << int.from_bytes(digest, "little") % 64
