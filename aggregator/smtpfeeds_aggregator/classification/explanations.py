"""What each class, reason and step of a count means, in words for readers.

The page, the documentation and the command line take the words from here.
"""

from bisect import bisect_right
from itertools import count, takewhile
from typing import Final

from smtpfeeds_common.behaviours import MEANINGS

from .classes import BREADTH_SENSORS, GUESSES_HITS, Class

CLASSES: Final[dict[Class, str]] = {
    Class.SURVEY: "a listed scanner that only looks",
    Class.RELAY_TEST: "tests whether a host relays mail for strangers",
    Class.PASSWORD_GUESS: "tries logins",
    Class.CLIENT: "a mail program with a saved login",
    Class.USER_PROBE: "asks which users exist",
    Class.MAIL_SERVER: "looks like a mail server that strayed here; not proof of innocence",
    Class.DELIVERY: "tries to deliver a message",
    Class.RELAY_CHECK: "goes as far as a recipient, and sends no message",
    Class.PROBE: "greets, and does little else",
}

#: By the code, or by the part of it before the colon.
REASONS: Final[dict[str, str]] = {
    **{str(flag.name).lower(): meaning for flag, meaning in MEANINGS.items()},
    "greet": "it greeted",
    "listed": "a list of scanners contains it",
    "listed-old": "a list of scanners contains it; the entry is too old to decide",
    "mailer": "a list of large mailers contains it: a hint, never enough alone",
    "one_sensor": "only one sensor saw it",
    "many_sensors": "more than one sensor saw it",
    "many_hits": f"{GUESSES_HITS} connections or more",
    "only_bounces": "its senders were null: bounces of mail that someone else forged",
    "no_early_talk": "it waited for a delayed banner",
    "breadth_unknown": (
        f"fewer than {BREADTH_SENSORS} sensors are alive, so it is unknown whether only one sees it"
    ),
}

_LARGEST: Final = 2**62
#: Exact counts would let a scanner map the sensors by probing with a pattern (Bethencourt,
#: Franklin, Vernon, 2005), so feeds publish the lower bound of a step.
STEPS: Final[tuple[int, ...]] = (
    *(0, 1, 2, 3, 6, 11),
    *takewhile(lambda step: step < _LARGEST, (10**power + 1 for power in count(2))),
)


def step_index(number: int) -> int:
    """Return the index in ``STEPS`` of the step that contains a count."""
    return bisect_right(STEPS, number) - 1


def step(number: int) -> int:
    """Return the lower bound of the step that contains a count."""
    return STEPS[step_index(number)]
