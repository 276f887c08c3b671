"""The class of an address: what it most likely is, and the reasons. Pure.

A class is derived from the stored row whenever it is needed, so that a rule can
change without a migration. It never hides a row. The first rule that holds
decides; rules go from the strongest evidence of intent to the weakest, except that
a listed scanner that only looks is a survey before all others.

`mail-server` says what a client looks like, not that it is innocent: a spammer
behind a real mail server sends the same octets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from smtpfeeds_common.behaviours import Flags


class Class(StrEnum):
    """The classes, in the order in which their rules are tried."""

    SURVEY = "survey"
    RELAY_TEST = "relay-test"
    PASSWORD_GUESS = "password-guess"  # noqa: S105 - the name of a class
    CLIENT = "client"
    USER_PROBE = "user-probe"
    MAIL_SERVER = "mail-server"
    DELIVERY = "delivery"
    RELAY_CHECK = "relay-check"
    PROBE = "probe"


class Listing(NamedTuple):
    """A list entry that contains the address."""

    kind: Literal["scanner", "mailer"]
    #: The organisation, such as ``shodan``; for a mailer the list's name.
    actor: str
    #: Whether the entry is young enough to decide; see `listings.is_fresh`.
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known about one address."""

    #: Behaviours of both feeds in this epoch week and the one before.
    flags: int
    #: Stored greets and data events.
    hits: int
    #: Sensors that saw it in the window.
    sensors: int
    #: Sensors that are alive; with fewer than three, breadth is not evidence.
    sensors_alive: int
    #: Best first: the longest prefix, then the newest list.
    listings: Sequence[Listing] = ()


class Judgement(NamedTuple):
    """A class, the codes of its reasons, and the listed scanner if there is one."""

    cls: Class
    why: tuple[str, ...]
    actor: str | None


#: A mail program tries its saved login at one host. Two sensors, or this many
#: connections, mean that someone guesses passwords.
GUESSES_SENSORS: Final = 2
GUESSES_HITS: Final = 10
#: With one or two sensors, "seen by one sensor only" is not evidence.
BREADTH_SENSORS: Final = 3
#: A misdirected mail server gets 554 and seldom returns: 60 % of refused sources try once,
#: 17 % twice, 7 % three times. A sender at one sensor with more connections than this
#: ignores refusals. Bounces do not count: their sender does not choose the destination.
MAIL_SERVER_HITS: Final = 50

#: Lower bounds of the ranges of hits that the rules distinguish.
HITS_FROM: Final = (0, GUESSES_HITS, MAIL_SERVER_HITS + 1)

# Plain integers: an operation on Flags takes about a microsecond, and a judgement has dozens.
_ADDRESS_LITERAL: Final = Flags.ADDRESS_LITERAL.value
_AUTH: Final = Flags.AUTH.value
_AUTH_AGAIN: Final = Flags.AUTH_AGAIN.value
_AUTH_RESPONSE: Final = Flags.AUTH_RESPONSE.value
_BANNER_DELAYED: Final = Flags.BANNER_DELAYED.value
_BARE_LF: Final = Flags.BARE_LF.value
_EARLY_TALKER: Final = Flags.EARLY_TALKER.value
_EXTENSION: Final = Flags.EXTENSION.value
_FULL_HOST_NAME: Final = Flags.FULL_HOST_NAME.value
_HELO: Final = Flags.HELO.value
_LOOSE_PATH: Final = Flags.LOOSE_PATH.value
_LOWER_CASE: Final = Flags.LOWER_CASE.value
_MANY_ENVELOPES: Final = Flags.MANY_ENVELOPES.value
_MANY_RECIPIENTS: Final = Flags.MANY_RECIPIENTS.value
_MESSAGE: Final = Flags.MESSAGE.value
_NAMED_SENSOR: Final = Flags.NAMED_SENSOR.value
_NO_ARGUMENT: Final = Flags.NO_ARGUMENT.value
_NULL_SENDER: Final = Flags.NULL_SENDER.value
_PROBED_USERS: Final = Flags.PROBED_USERS.value
_QUIT: Final = Flags.QUIT.value
_RECIPIENT: Final = Flags.RECIPIENT.value
_RELAY_PROBE: Final = Flags.RELAY_PROBE.value
_ROUTED_RECIPIENT: Final = Flags.ROUTED_RECIPIENT.value
_SENDER: Final = Flags.SENDER.value
_SHORT_NAME: Final = Flags.SHORT_NAME.value
_UNHEEDING: Final = Flags.UNHEEDING.value
_UNOFFERED: Final = Flags.UNOFFERED.value
_NAMES: Final = tuple((flag.value, str(flag.name).lower()) for flag in Flags)

#: A survey does none of these; a listed address that does is classified by them.
_BEYOND_SURVEY: Final = _AUTH | _PROBED_USERS | _MESSAGE | _RELAY_PROBE
#: None of the tested mail transfer agents from Debian and PyPI does one of these.
_NOT_A_MAIL_SERVER: Final = (
    _BARE_LF
    | _EARLY_TALKER
    | _ADDRESS_LITERAL
    | _NO_ARGUMENT
    | _NAMED_SENSOR
    | _UNHEEDING
    | _SHORT_NAME
    | _HELO
    | _LOWER_CASE
    | _LOOSE_PATH
)
_MAIL_SERVER: Final = _FULL_HOST_NAME | _QUIT | _EXTENSION


def judge(evidence: Evidence) -> Judgement:
    """Classify an address.

    Returns:
        The first class whose rule holds, the codes of its reasons (behaviours by name, then
        breadth and lists), and the actor of the best scanner entry, a fresh one if there is one.
    """
    scanner = next((item for item in evidence.listings if item.kind == "scanner"), None)
    fresh = next(
        (item for item in evidence.listings if item.kind == "scanner" and item.fresh), None
    )
    lists = _list_codes(evidence.listings)
    actor = fresh.actor if fresh else scanner.actor if scanner else None
    if fresh and not evidence.flags & _BEYOND_SURVEY:
        return Judgement(Class.SURVEY, lists, actor)
    unknown = _breadth_is_unknown(evidence) and _behaves_as_mail_server(evidence)
    for cls, rule in _RULES:
        why = rule(evidence)
        if why:
            breadth = ("breadth_unknown",) if unknown else ()
            return Judgement(cls, (*why, *breadth, *lists), actor)
    return Judgement(Class.PROBE, lists or ("greet",), actor)


def _list_codes(listings: Sequence[Listing]) -> tuple[str, ...]:
    """Return the codes of all entries, best first, each once."""
    codes = (
        f"mailer:{item.actor}"
        if item.kind == "mailer"
        else f"listed:{item.actor}"
        if item.fresh
        else f"listed-old:{item.actor}"
        for item in listings
        if item.fresh or item.kind == "scanner"
    )
    return tuple(dict.fromkeys(codes))


def _names(flags: int) -> tuple[str, ...]:
    return tuple(name for bit, name in _NAMES if flags & bit) if flags else ()


def _relay_test(evidence: Evidence) -> tuple[str, ...]:
    return _names(evidence.flags & (_RELAY_PROBE | _MANY_ENVELOPES | _ROUTED_RECIPIENT))


def _password_guess(evidence: Evidence) -> tuple[str, ...]:
    flags = evidence.flags
    why: tuple[str, ...] = ()
    if flags & _AUTH and flags & _UNOFFERED:
        why = _names(flags & (_AUTH | _UNOFFERED))
    if flags & _AUTH_AGAIN:
        why += _names(_AUTH_AGAIN)
    if flags & _AUTH_RESPONSE:
        if evidence.sensors >= GUESSES_SENSORS:
            why += ("auth_response", "many_sensors")
        elif evidence.hits >= GUESSES_HITS:
            why += ("auth_response", "many_hits")
    return why


def _client(evidence: Evidence) -> tuple[str, ...]:
    return _names(evidence.flags & _AUTH_RESPONSE)


def _user_probe(evidence: Evidence) -> tuple[str, ...]:
    flags = evidence.flags
    why = _names(flags & _PROBED_USERS)
    if flags & _MANY_RECIPIENTS and not flags & _MESSAGE:
        why += _names(_MANY_RECIPIENTS)
    return why


def _behaves_as_mail_server(evidence: Evidence) -> bool:
    """Whether it behaves like a mail server, regardless of breadth."""
    flags = evidence.flags
    return bool(
        flags & (_MESSAGE | _RECIPIENT)
        and flags & _MAIL_SERVER == _MAIL_SERVER
        and not flags & _NOT_A_MAIL_SERVER
    )


def _breadth_is_unknown(evidence: Evidence) -> bool:
    return evidence.sensors_alive < BREADTH_SENSORS


def _mail_server(evidence: Evidence) -> tuple[str, ...]:
    flags = evidence.flags
    only_bounces = bool(flags & _NULL_SENDER) and not flags & _SENDER
    if (
        _breadth_is_unknown(evidence)
        or not _behaves_as_mail_server(evidence)
        or evidence.sensors > 1
        or (evidence.hits > MAIL_SERVER_HITS and not only_bounces)
    ):
        return ()
    why = _names(flags & (_MAIL_SERVER | _MESSAGE | _RECIPIENT))
    # Early talk is evidence only where a sensor measured it.
    measured = ("no_early_talk",) if flags & _BANNER_DELAYED else ()
    return (*why, *measured, *(("only_bounces",) if only_bounces else ()), "one_sensor")


def _delivery(evidence: Evidence) -> tuple[str, ...]:
    return _names(evidence.flags & _MESSAGE)


def _relay_check(evidence: Evidence) -> tuple[str, ...]:
    return _names(evidence.flags & _RECIPIENT)


_RULES: Final[tuple[tuple[Class, Callable[[Evidence], tuple[str, ...]]], ...]] = (
    (Class.RELAY_TEST, _relay_test),
    (Class.PASSWORD_GUESS, _password_guess),
    (Class.CLIENT, _client),
    (Class.USER_PROBE, _user_probe),
    (Class.MAIL_SERVER, _mail_server),
    (Class.DELIVERY, _delivery),
    (Class.RELAY_CHECK, _relay_check),
)
