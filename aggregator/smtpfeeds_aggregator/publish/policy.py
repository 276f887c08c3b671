"""The policy of the feeds: what lists an address, how it is removed, what the feeds are for.

The page shows it, and ``policy.json`` has it for programs. The questions are those of catalogues of
feeds and of listed networks.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from smtpfeeds_common import __version__
from smtpfeeds_common.feeds import WINDOW_DAYS

from .entries import NOTICE, Frame

POLICY: Final = "policy.json"
#: Increased if a field changes its meaning or is removed.
VERSION: Final = 1

ANSWERS: Final[Mapping[str, tuple[str, str]]] = {
    "listing": (
        "What lists an address?",
        (
            "A HELO or EHLO to a sensor lists it in smtpgreet; DATA or BDAT after that lists it "
            "in smtpdata as well. One event is enough. Sensors are hosts that nobody advertises, "
            "that no MX record names, and that never take a message."
        ),
    ),
    "removal": (
        "How does it leave?",
        (
            f"By itself, {WINDOW_DAYS} days after its last event. Nobody needs to ask. Past "
            "editions, where they are kept as archive/ and misp/, show it for some weeks "
            "more. A network that does not want to be published asks the contact below: it then "
            "leaves the feeds and those past editions at once."
        ),
    ),
    "intended_use": (
        "What are the feeds for?",
        (
            "To put an address that you see in your own logs into context, to study scanning and "
            "abuse of mail, and as one observation among others in a score."
        ),
    ),
    "not_intended_use": (
        "What are they not for?",
        (
            "Not for refusing mail or traffic on their own: they record observations, and make no "
            "judgement of who is behind an address."
        ),
    ),
    "false_positives": (
        "Who is here without harm in mind?",
        (
            "Survey projects; mail servers that were led astray by a mistyped or old name; the "
            "next user of a shared or dynamic address. Surveys that a "
            "list names have the class survey; "
            "what looks like a stray mail server has the class mail-server."
        ),
    ),
    "poisoning": (
        "Can somebody put an address in?",
        (
            "A completed TCP connection is needed, so an address cannot be forged from elsewhere. "
            "Anybody who can use an address can list it. Somebody who steals a sensor's account "
            "could report events that never were, until the account is revoked; what it reported "
            "is then removed."
        ),
    ),
    "privacy": (
        "What is kept of a client?",
        (
            "Its address, times, counts, and which kinds of things it did. No sender, recipient, "
            "argument, password or content is kept."
        ),
    ),
}


def policy_document(frame: Frame) -> bytes:
    """Return ``policy.json``; it changes only with policy, licence and contact."""
    document: dict[str, Any] = {
        "version": VERSION,
        "software": f"smtpfeeds {__version__}",
        "publisher": frame.publisher,
        "contact": frame.contact,
        "licence": frame.licence,
        "notice": NOTICE,
        **{name: answer for name, (_, answer) in ANSWERS.items()},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
