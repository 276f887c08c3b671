"""Every kind of client that takes part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smtpfeeds_aggregator.classification.classes import Class, Listing

from . import engines, real
from .kinds import Group, Kind, Visit, Where

_SURVEY: Final = frozenset({Class.SURVEY})
_MAIL_SERVER: Final = frozenset({Class.MAIL_SERVER})
#: A program of a host that strayed: each of these says so.
_MAIL_PROGRAM: Final = frozenset({Class.MAIL_SERVER, Class.DELIVERY, Class.CLIENT})
#: Where no AUTH is offered it only looks.
_SAVED_LOGIN: Final = frozenset({Class.CLIENT, Class.PROBE})
_GUESS: Final = frozenset({Class.PASSWORD_GUESS})
_RELAY: Final = frozenset({Class.RELAY_TEST})
_USERS: Final = frozenset({Class.USER_PROBE})
_SENDS: Final = frozenset({Class.DELIVERY, Class.RELAY_CHECK, Class.RELAY_TEST, Class.USER_PROBE})
_LOOKS: Final = frozenset({Class.PROBE})
_LISTED: Final = (Listing("scanner", "example-survey", fresh=True),)


def _kind(
    name: str,
    group: Group,
    where: Where,
    right: frozenset[Class],
    visit: Callable[[Visit], None],
    *,
    sensors: int = 1,
    visits: int = 1,
    clients: int = 20,
    listings: tuple[Listing, ...] = (),
) -> Kind:
    return Kind(
        name=name,
        group=group,
        where=where,
        right=right,
        visit=visit,
        sensors=sensors,
        visits=visits,
        clients=clients,
        listings=listings,
    )


_FIRST: Final = (
    _kind("Postfix", "mail server", "first", _MAIL_SERVER, real.postfix_message, clients=8),
    _kind("Postfix's smtp-source", "mail program", "first", _MAIL_PROGRAM, real.smtp_source),
    _kind("swaks, one message", "mail program", "first", _MAIL_PROGRAM, real.swaks()),
    _kind(
        "swaks, quits after EHLO",
        "looker",
        "first",
        _LOOKS,
        real.swaks("--quit-after", "EHLO"),
        sensors=5,
    ),
    _kind("smtplib, one message", "mail program", "first", _MAIL_PROGRAM, real.smtplib_message),
    _kind(
        "smtplib with a saved login",
        "mail program",
        "first",
        _SAVED_LOGIN,
        real.smtplib_login,
    ),
    _kind(
        "nmap smtp-commands",
        "looker",
        "first",
        _LOOKS,
        real.nmap("smtp-commands"),
        sensors=2,
        clients=6,
    ),
    _kind(
        "nmap smtp-enum-users",
        "hostile",
        "first",
        _USERS,
        real.nmap("smtp-enum-users"),
        sensors=2,
        clients=6,
    ),
    _kind(
        "nmap smtp-open-relay",
        "hostile",
        "first",
        _RELAY,
        real.nmap("smtp-open-relay"),
        sensors=2,
        clients=6,
    ),
    _kind(
        "nmap smtp-ntlm-info",
        "looker",
        "first",
        _LOOKS,
        real.nmap("smtp-ntlm-info"),
        sensors=2,
        clients=6,
    ),
    _kind("hydra", "hostile", "first", _GUESS, real.hydra, sensors=2, clients=10),
    _kind(
        "survey by EHLO, listed",
        "survey",
        "first",
        _SURVEY,
        engines.survey(),
        sensors=5,
        listings=_LISTED,
    ),
    _kind(
        "survey by STARTTLS, listed",
        "survey",
        "first",
        _SURVEY,
        engines.survey(starttls=True),
        sensors=5,
        listings=_LISTED,
    ),
    _kind("survey by EHLO, not listed", "looker", "first", _LOOKS, engines.survey(), sensors=5),
    _kind(
        "bot: HELO with a short name",
        "engine",
        "first",
        _SENDS,
        engines.short_helo_bot,
        sensors=4,
        visits=2,
    ),
    _kind("bot: all in one segment", "engine", "first", _SENDS, engines.blaster, sensors=4),
    _kind("bot: bare LF", "engine", "first", _SENDS, engines.bare_lf_bot, sensors=3),
    _kind("relay tester: names us", "hostile", "first", _RELAY, engines.relay_tester, sensors=5),
    _kind(
        "guesser: AUTH LOGIN",
        "hostile",
        "first",
        _GUESS,
        engines.login_guesser,
        sensors=4,
        visits=3,
    ),
    _kind("VRFY and EXPN", "hostile", "first", _USERS, engines.user_enumerator, sensors=3),
)
_HELD_OUT: Final = (
    _kind("Exim", "mail server", "held-out", _MAIL_SERVER, real.exim),
    _kind("nullmailer", "mail program", "held-out", _MAIL_PROGRAM, real.nullmailer),
    _kind("callout of a mail server", "mail server", "held-out", _MAIL_SERVER, engines.callout),
    _kind(
        "backscatter of a mail server",
        "mail server",
        "held-out",
        _MAIL_SERVER,
        engines.bounce,
        visits=8,
    ),
    _kind("msmtp", "mail program", "held-out", _MAIL_PROGRAM, real.msmtp()),
    _kind(
        "msmtp with a saved login",
        "mail program",
        "held-out",
        _SAVED_LOGIN,
        real.msmtp("--auth=plain", "--user=one", "--passwordeval=echo secret", "--tls=off"),
    ),
    _kind("curl", "mail program", "held-out", _MAIL_PROGRAM, real.curl),
    _kind("Net::SMTP", "mail program", "held-out", _MAIL_PROGRAM, real.net_smtp),
    _kind("s-nail", "mail program", "held-out", _MAIL_PROGRAM, real.s_nail),
    _kind("esmtp", "mail program", "held-out", _MAIL_PROGRAM, real.esmtp),
    _kind("ssmtp", "mail program", "held-out", _MAIL_PROGRAM, real.ssmtp),
    _kind(
        "openssl s_client -starttls",
        "looker",
        "held-out",
        _LOOKS,
        real.openssl,
        sensors=5,
        clients=10,
    ),
    _kind("nmap -sV", "looker", "held-out", _LOOKS, real.nmap_version, sensors=1, clients=4),
    _kind(
        "survey by HELO and HELP, listed",
        "survey",
        "held-out",
        _SURVEY,
        engines.survey("HELO", more="HELP"),
        sensors=5,
        listings=_LISTED,
    ),
    _kind("EHLO without a name", "looker", "held-out", _LOOKS, engines.bare_greet, sensors=5),
    _kind(
        "many protocols at one port",
        "looker",
        "held-out",
        _LOOKS,
        engines.web_after_greet,
        sensors=5,
    ),
    _kind("bot: address literal", "engine", "held-out", _SENDS, engines.literal_bot, sensors=3),
    _kind(
        "bot: lower case, loose paths", "engine", "held-out", _SENDS, engines.loose_bot, sensors=3
    ),
    _kind("bot: as Postfix, hangs up", "engine", "held-out", _SENDS, engines.imitator_without_quit),
    _kind(
        "bot: as Postfix, at many sensors",
        "engine",
        "held-out",
        _SENDS,
        engines.imitator,
        sensors=4,
        visits=2,
    ),
    _kind("bot: as Postfix, at one sensor, once", "engine", "held-out", _SENDS, engines.imitator),
    _kind("bot: MAIL and RCPT alone", "engine", "held-out", _SENDS, engines.half_probe, sensors=3),
    _kind(
        "listed address that sends mail",
        "engine",
        "held-out",
        _SENDS,
        engines.loose_bot,
        sensors=2,
        listings=_LISTED,
    ),
    _kind(
        "relay checker: many forms", "hostile", "held-out", _RELAY, engines.relay_forms, sensors=2
    ),
    _kind("guesser: AUTH PLAIN", "hostile", "held-out", _GUESS, engines.plain_guesser, sensors=3),
    _kind(
        "recipients without a message",
        "hostile",
        "held-out",
        _USERS,
        engines.recipient_enumerator,
        sensors=3,
    ),
)
KINDS: Final = (*_FIRST, *_HELD_OUT)
