"""The class of an address and its reasons, from a row."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.classification.classes import (
    GUESSES_HITS,
    MAIL_SERVER_HITS,
    Class,
    Evidence,
    Listing,
    judge,
)
from smtpfeeds_common.behaviours import MEANINGS, Flags

F = Flags
SHODAN = Listing("scanner", "shodan", fresh=True)
OLD = Listing("scanner", "shodan", fresh=False)
MAILER = Listing("mailer", "gmail", fresh=True)
POSTFIX = F.FULL_HOST_NAME | F.QUIT | F.EXTENSION | F.SENDER | F.RECIPIENT | F.MESSAGE


def evidence(
    flags: int, *, hits: int = 1, sensors: int = 1, alive: int = 3, lists: tuple[Listing, ...] = ()
) -> Evidence:
    return Evidence(flags=flags, hits=hits, sensors=sensors, sensors_alive=alive, listings=lists)


@pytest.mark.parametrize(
    ("given_evidence", "cls", "why"),
    [
        # A greet and nothing else.
        (evidence(F.SHORT_NAME), "probe", ("greet",)),
        # A survey that only looks; also with STARTTLS.
        (evidence(F.STARTTLS, lists=(SHODAN,)), "survey", ("listed:shodan",)),
        # What it did is stronger than the list, and the list is said beside it.
        (
            evidence(F.PROBED_USERS, lists=(SHODAN,)),
            "user-probe",
            ("probed_users", "listed:shodan"),
        ),
        (evidence(F.MESSAGE, lists=(SHODAN,)), "delivery", ("message", "listed:shodan")),
        # AUTH that is offered, and no response: a probe.
        (evidence(F.AUTH, lists=(SHODAN,)), "probe", ("listed:shodan",)),
        (evidence(F.AUTH), "probe", ("greet",)),
        # Past its age an entry is a reason and no class.
        (evidence(F.QUIT, lists=(OLD,)), "probe", ("listed-old:shodan",)),
        (evidence(F.RELAY_PROBE | F.MESSAGE), "relay-test", ("relay_probe",)),
        (evidence(F.MANY_ENVELOPES), "relay-test", ("many_envelopes",)),
        (evidence(F.ROUTED_RECIPIENT | F.RECIPIENT), "relay-test", ("routed_recipient",)),
        # NTLM's first message where it is not offered: no login, so a probe.
        (evidence(F.UNOFFERED), "probe", ("greet",)),
        (evidence(F.AUTH | F.UNOFFERED), "password-guess", ("auth", "unoffered")),
        (evidence(F.AUTH | F.AUTH_AGAIN), "password-guess", ("auth_again",)),
        (
            evidence(F.AUTH | F.AUTH_RESPONSE, sensors=2),
            "password-guess",
            ("auth_response", "many_sensors"),
        ),
        (
            evidence(F.AUTH | F.AUTH_RESPONSE, hits=GUESSES_HITS),
            "password-guess",
            ("auth_response", "many_hits"),
        ),
        # One below the bound: a mail program with a saved login.
        (evidence(F.AUTH | F.AUTH_RESPONSE, hits=GUESSES_HITS - 1), "client", ("auth_response",)),
        (evidence(F.MANY_RECIPIENTS | F.RECIPIENT), "user-probe", ("many_recipients",)),
        # With a message many recipients are a mailing.
        (evidence(F.MANY_RECIPIENTS | F.MESSAGE), "delivery", ("message",)),
        (
            evidence(POSTFIX),
            "mail-server",
            ("full_host_name", "message", "quit", "extension", "recipient", "one_sensor"),
        ),
        (
            evidence(POSTFIX | F.BANNER_DELAYED, lists=(MAILER,)),
            "mail-server",
            (
                *("full_host_name", "message", "quit", "extension", "recipient"),
                *("no_early_talk", "one_sensor", "mailer:gmail"),
            ),
        ),
        # Address verification: MAIL, RCPT, RSET, QUIT.
        (
            evidence(POSTFIX & ~F.MESSAGE),
            "mail-server",
            ("full_host_name", "quit", "extension", "recipient", "one_sensor"),
        ),
        # Seen by two sensors, it is not a stray.
        (evidence(POSTFIX, sensors=2), "delivery", ("message",)),
        (evidence(POSTFIX, hits=MAIL_SERVER_HITS + 1), "delivery", ("message",)),
        # Bounces are not of the server's own choosing: their number says nothing.
        (
            evidence((POSTFIX & ~F.SENDER) | F.NULL_SENDER, hits=10_000),
            "mail-server",
            (
                *("full_host_name", "message", "quit", "extension", "recipient"),
                *("only_bounces", "one_sensor"),
            ),
        ),
        # With two sensors alive nobody can say "at one sensor only".
        (evidence(POSTFIX, alive=2), "delivery", ("message", "breadth_unknown")),
        (
            evidence(POSTFIX & ~F.MESSAGE, alive=2),
            "relay-check",
            ("recipient", "breadth_unknown"),
        ),
        (evidence(F.RECIPIENT), "relay-check", ("recipient",)),
        # A list of mailers is a further reason, never enough.
        (evidence(F.MESSAGE, lists=(MAILER,)), "delivery", ("message", "mailer:gmail")),
    ],
)
def test_class_and_reasons(given_evidence: Evidence, cls: str, why: tuple[str, ...]) -> None:
    judgement = judge(given_evidence)
    assert (judgement.cls, judgement.why) == (cls, why)


@pytest.mark.parametrize(
    "flag",
    [
        *(F.BARE_LF, F.EARLY_TALKER, F.ADDRESS_LITERAL, F.NO_ARGUMENT, F.NAMED_SENSOR),
        *(F.UNHEEDING, F.SHORT_NAME, F.HELO, F.LOWER_CASE, F.LOOSE_PATH),
    ],
)
def test_client_with_one_foreign_habit_is_not_a_mail_server(flag: Flags) -> None:
    assert judge(evidence(POSTFIX | flag)).cls == "delivery"


@pytest.mark.parametrize("flag", [F.FULL_HOST_NAME, F.QUIT, F.EXTENSION])
def test_client_without_one_habit_is_not_a_mail_server(flag: Flags) -> None:
    assert judge(evidence(POSTFIX & ~flag)).cls == "delivery"


def test_best_current_entry_names_the_actor_and_why_lists_all() -> None:
    other = Listing("scanner", "censys", fresh=True)
    judgement = judge(evidence(0, lists=(OLD, other, MAILER)))
    assert judgement == (
        Class.SURVEY,
        ("listed-old:shodan", "listed:censys", "mailer:gmail"),
        "censys",
    )


FLAGS = st.integers(0, 2**29 - 1)
LISTINGS = st.lists(st.sampled_from([SHODAN, OLD, MAILER]), max_size=3)


@given(FLAGS, st.integers(1, 60), st.integers(1, 4), st.integers(0, 4), LISTINGS)
def test_every_address_has_a_class_and_a_reason(
    flags: int, hits: int, sensors: int, alive: int, lists: list[Listing]
) -> None:
    judgement = judge(evidence(flags, hits=hits, sensors=sensors, alive=alive, lists=tuple(lists)))
    assert judgement.cls in Class
    assert judgement.why
    assert len(set(judgement.why)) == len(judgement.why)


@given(st.lists(FLAGS, min_size=2, max_size=4))
def test_the_class_does_not_depend_on_the_order_of_visits(visits: list[int]) -> None:
    folded = set()
    for order in itertools.permutations(visits):
        flags = 0
        for visit in order:
            flags |= visit
        folded.add(judge(evidence(flags, hits=len(visits))))
    assert len(folded) == 1


def test_unknown_bits_do_not_change_the_class() -> None:
    assert judge(evidence(POSTFIX | 1 << 60)) == judge(evidence(POSTFIX))


def test_every_behaviour_has_a_bit_of_its_own_and_a_meaning() -> None:
    assert [flag.bit_length() - 1 for flag in Flags] == list(range(len(Flags)))
    assert set(MEANINGS) == set(Flags)
