"""Personas: the sensor's appearance to a client, as prepared replies.

A default banner is a fingerprint, so banner, host name, keywords and the text of each reply are
settings, also by local address. The built-in styles look like common servers. Every reply is
created once, at start. RFC 5321 section 4.2 gives the codes; ``docs/explanation/what-counts.md``
has the table of replies. The refusal at DATA is the same in every style, because a person must be
able to understand it.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError, SettingsError

_STARTTLS: Final = "STARTTLS"
_AUTH: Final = "AUTH PLAIN LOGIN"

#: Extensions in a reply to EHLO whose use a session shows.
PIPELINING, SIZE, EIGHT_BIT, STARTTLS, AUTH = (1 << bit for bit in range(5))
_OFFERS: Final = {
    "PIPELINING": PIPELINING,
    "SIZE": SIZE,
    "8BITMIME": EIGHT_BIT,
    "STARTTLS": STARTTLS,
    "AUTH": AUTH,
}
#: Bound of personas that refer to each other, which ends a cycle of names.
_MAX_NAMES: Final = 4


@dataclass(frozen=True, slots=True)
class Style:
    """The texts of one kind of server; ``{host}`` is its name."""

    banner: str
    helo: str
    ehlo: str
    keywords: tuple[str, ...]
    mail_ok: str
    rcpt_ok: str
    ok: str
    help: str
    vrfy: str
    quit: str
    go_ahead: str
    unknown: str
    not_implemented: str
    bad_line: str
    bad_order: str
    tls_ready: str
    auth_failed: str
    auth_unknown: str


_PLAIN: Final = Style(
    banner="{host} ESMTP",
    helo="{host}",
    ehlo="{host}",
    keywords=("PIPELINING", "SIZE {size}", "8BITMIME", "ENHANCEDSTATUSCODES"),
    mail_ok="2.1.0 Sender OK",
    rcpt_ok="2.1.5 Recipient OK",
    ok="2.0.0 OK",
    help="2.0.0 See RFC 5321",
    vrfy="2.5.2 Cannot verify, send mail to find out",
    quit="2.0.0 Bye",
    go_ahead="End data with <CR><LF>.<CR><LF>",
    unknown="5.5.2 Command not recognized",
    not_implemented="5.5.1 Command not implemented",
    bad_line="5.5.2 Syntax error",
    bad_order="5.5.1 Bad sequence of commands",
    tls_ready="2.0.0 Ready to start TLS",
    auth_failed="5.7.8 Authentication failed",
    auth_unknown="5.5.4 Unrecognized authentication type",
)
_POSTFIX: Final = Style(
    banner="{host} ESMTP Postfix",
    helo="{host}",
    ehlo="{host}",
    keywords=(
        "PIPELINING",
        "SIZE {size}",
        "VRFY",
        "ETRN",
        "ENHANCEDSTATUSCODES",
        "8BITMIME",
        "DSN",
    ),
    mail_ok="2.1.0 Ok",
    rcpt_ok="2.1.5 Ok",
    ok="2.0.0 Ok",
    help="2.0.0 https://www.postfix.org/",
    vrfy="2.0.0 postmaster",
    quit="2.0.0 Bye",
    go_ahead="End data with <CR><LF>.<CR><LF>",
    unknown="5.5.2 Error: command not recognized",
    not_implemented="5.5.1 Error: command not implemented",
    bad_line="5.5.2 Error: bad syntax",
    bad_order="5.5.1 Error: need RCPT command",
    tls_ready="2.0.0 Ready to start TLS",
    auth_failed="5.7.8 Error: authentication failed: (reason unavailable)",
    auth_unknown="5.5.4 Error: unrecognized authentication type",
)
_EXIM: Final = Style(
    banner="{host} ESMTP Exim 4.98",
    helo="{host} Hello",
    ehlo="{host} Hello",
    keywords=("SIZE {size}", "LIMITS MAILMAX=1000 RCPTMAX=50000", "8BITMIME", "PIPELINING", "HELP"),
    mail_ok="OK",
    rcpt_ok="Accepted",
    ok="OK",
    help="Commands supported: HELO EHLO MAIL RCPT DATA NOOP QUIT RSET HELP",
    vrfy="VRFY not available",
    quit="{host} closing connection",
    go_ahead='Enter message, ending with "." on a line by itself',
    unknown="unrecognized command",
    not_implemented="command not available",
    bad_line="syntax error",
    bad_order="valid RCPT command must precede DATA",
    tls_ready="TLS go ahead",
    auth_failed="Incorrect authentication data",
    auth_unknown="authentication mechanism not supported",
)
_EXCHANGE: Final = Style(
    banner="{host} Microsoft ESMTP MAIL Service ready",
    helo="{host} Hello",
    ehlo="{host} Hello",
    keywords=("SIZE {size}", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME"),
    mail_ok="2.1.0 Sender OK",
    rcpt_ok="2.1.5 Recipient OK",
    ok="2.0.0 OK",
    help="This server supports the following commands: HELO EHLO RCPT DATA RSET MAIL QUIT HELP",
    vrfy="2.1.5 Cannot VRFY user",
    quit="2.0.0 Service closing transmission channel",
    go_ahead="Start mail input; end with <CRLF>.<CRLF>",
    unknown="5.3.3 Unrecognized command",
    not_implemented="5.3.3 Unrecognized command",
    bad_line="5.5.4 Invalid domain name or syntax",
    bad_order="5.5.2 Need rcpt command",
    tls_ready="2.0.0 SMTP server ready",
    auth_failed="5.7.3 Authentication unsuccessful",
    auth_unknown="5.7.4 Unrecognized authentication type",
)
STYLES: Final = {"plain": _PLAIN, "postfix": _POSTFIX, "exim": _EXIM, "exchange": _EXCHANGE}


@dataclass(frozen=True, slots=True)
class Persona:
    """Every reply that a client can get, as octets."""

    hostname: str
    banner: bytes
    helo: bytes
    ehlo: bytes
    #: The same without STARTTLS, which is not offered again in TLS.
    ehlo_in_tls: bytes
    mail_ok: bytes
    rcpt_ok: bytes
    ok: bytes
    help: bytes
    vrfy: bytes
    quit: bytes
    go_ahead: bytes
    refused: bytes
    content_too_big: bytes
    unknown: bytes
    not_implemented: bytes
    bad_line: bytes
    bad_order: bytes
    tls_ready: bytes
    tls_busy: bytes
    #: Challenges of PLAIN and LOGIN, the latter's by the number of responses that are awaited.
    auth_go_on: bytes
    auth_challenges: tuple[bytes, ...]
    auth_failed: bytes
    auth_unknown: bytes
    auth_syntax: bytes
    auth_cancelled: bytes
    not_smtp: bytes
    too_many_errors: bytes
    too_many_connections: bytes
    too_slow: bytes
    shutting_down: bytes
    #: What ``ehlo`` offers, as bits; in TLS the same without STARTTLS.
    offers: int
    offers_in_tls: int


def make_persona(
    style: Style,
    *,
    hostname: str,
    policy_url: str = "",
    max_content_bytes: int = 10 * 1024 * 1024,
    offer_tls: bool = False,
    offer_auth: bool = False,
    banner: str | None = None,
    keywords: tuple[str, ...] | None = None,
) -> Persona:
    """Create a style's replies for one host name.

    Raises:
        SettingsError: a banner lacks the word ESMTP, or a line is not a reply.
    """
    banner_text = style.banner if banner is None else banner
    if "ESMTP" not in banner_text.split():
        raise SettingsError(
            f"the banner {banner_text!r} lacks the word ESMTP: "
            "some scanners send EHLO only after a banner that has it"
        )
    offered = style.keywords if keywords is None else keywords
    if offer_auth and not any(word.split()[:1] == ["AUTH"] for word in offered):
        offered = (*offered, _AUTH)
    offered_now = (*offered, _STARTTLS) if offer_tls else offered

    def line(code: int, text: str, mark: str = " ") -> bytes:
        full = text.replace("{host}", hostname).replace("{size}", str(max_content_bytes))
        if len(full) > 500 or any(not " " <= char <= "~" for char in full):
            raise SettingsError(f"{full!r} must be printable ASCII, 500 octets at most")
        return f"{code}{mark}{full}\r\n".encode()

    def many(texts: tuple[str, ...]) -> bytes:
        return b"".join(line(250, t, "-") for t in texts[:-1]) + line(250, texts[-1])

    url = f"; see {policy_url}" if policy_url else ""
    return Persona(
        hostname=hostname,
        banner=line(220, banner_text),
        helo=line(250, style.helo),
        ehlo=many((style.ehlo, *offered_now)),
        ehlo_in_tls=many((style.ehlo, *offered)),
        mail_ok=line(250, style.mail_ok),
        rcpt_ok=line(250, style.rcpt_ok),
        ok=line(250, style.ok),
        help=line(214, style.help),
        vrfy=line(252, style.vrfy),
        quit=line(221, style.quit),
        go_ahead=line(354, style.go_ahead),
        refused=line(554, f"5.7.1 This host takes no mail{url}"),
        content_too_big=line(554, f"5.7.1 This host takes no mail, and no more content{url}"),
        unknown=line(500, style.unknown),
        not_implemented=line(502, style.not_implemented),
        bad_line=line(500, style.bad_line),
        bad_order=line(503, style.bad_order),
        tls_ready=line(220, style.tls_ready),
        auth_go_on=b"334 \r\n",
        auth_challenges=(b"", line(334, "UGFzc3dvcmQ6"), line(334, "VXNlcm5hbWU6")),
        auth_failed=line(535, style.auth_failed),
        auth_unknown=line(504, style.auth_unknown),
        auth_syntax=line(501, "5.5.4 Syntax: AUTH mechanism"),
        auth_cancelled=line(501, "5.7.0 Authentication cancelled"),
        tls_busy=line(454, "4.7.0 TLS not available now"),
        not_smtp=line(221, "2.7.0 {host} This is not SMTP"),
        too_many_errors=line(421, "4.7.0 {host} Too many errors"),
        too_many_connections=line(421, "4.7.0 {host} Too many connections"),
        too_slow=line(421, "4.4.2 {host} Timeout"),
        shutting_down=line(421, "4.3.2 {host} Service shutting down"),
        offers=_offers(offered_now),
        offers_in_tls=_offers(offered),
    )


def _offers(keywords: tuple[str, ...]) -> int:
    """Return the bits of what keywords offer."""
    return sum({_OFFERS.get(word.split()[0].upper(), 0) for word in keywords if word.split()})


class Personas:
    """The persona of each local address."""

    def __init__(
        self,
        default: str,
        table: Mapping[str, Any],
        *,
        hostname: str,
        policy_url: str,
        max_content_bytes: int,
        offer_tls: bool,
        offer_auth: bool = False,
    ) -> None:
        """Create the replies of all personas.

        Raises:
            SettingsError: a name or key is unknown, or a banner cannot be used.
        """
        self._make_persona = functools.partial(
            make_persona,
            policy_url=policy_url,
            max_content_bytes=max_content_bytes,
            offer_tls=offer_tls,
        )
        self._hostname, self._table, self._offer_auth = hostname, table, offer_auth
        with _about("persona"):
            self.default = self._make(default)
        self._by_address: dict[bytes, Persona] = {}
        for key, value in table.items():
            with _about(f"personas: {key}"):
                persona = self._make(value)
            # One with another key than an address is used where its name is given.
            with suppress(AddressError):
                self._by_address[pack_address(key)] = persona

    def at(self, local: bytes) -> Persona:
        """Return the persona for a packed local address."""
        return self._by_address.get(local, self.default)

    def _make(self, value: Any, depth: int = 0) -> Persona:
        """Return a persona from its setting: a name, or a table."""
        if isinstance(value, str):
            if value in self._table and value not in STYLES and depth < _MAX_NAMES:
                return self._make(self._table[value], depth + 1)
            value = {"like": value}
        if not isinstance(value, Mapping):
            raise SettingsError(f"{value!r} is neither a name nor a table")
        unknown = set(value) - {"like", "hostname", "banner", "keywords", "offer_auth"}
        if unknown:
            raise SettingsError(f"unknown {', '.join(sorted(unknown))}")
        like = str(value.get("like", "plain"))
        if like not in STYLES:
            raise SettingsError(f"{like!r} is not one of {', '.join(STYLES)}")
        keywords = value.get("keywords")
        offer_auth = value.get("offer_auth", self._offer_auth)
        if not isinstance(offer_auth, bool):
            raise SettingsError(f"offer_auth is {offer_auth!r}; write true or false")
        return self._make_persona(
            STYLES[like],
            hostname=str(value.get("hostname", self._hostname)),
            banner=value.get("banner"),
            offer_auth=offer_auth,
            keywords=None if keywords is None else tuple(str(word) for word in keywords),
        )


@contextmanager
def _about(what: str) -> Iterator[None]:
    """Put the setting before the message of an error."""
    try:
        yield
    except SettingsError as exc:
        raise SettingsError(f"{what}: {exc.message}") from exc
