"""A short `make truth`: a few simulated kinds against its five real sensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date

from smtpfeeds_aggregator.classification.classes import Class
from truth.catalogue import KINDS
from truth.report import Result, interval, page
from truth.run import run

_SHORT = {
    "survey by EHLO, listed": Class.SURVEY,
    "guesser: AUTH PLAIN": Class.PASSWORD_GUESS,
    "relay tester: names us": Class.RELAY_TEST,
    "backscatter of a mail server": Class.MAIL_SERVER,
    "bot: as Postfix, at many sensors": Class.DELIVERY,
}


def test_known_clients_get_the_classes_that_are_right_for_them() -> None:
    kinds = [replace(kind, clients=2) for kind in KINDS if kind.name in _SHORT]
    results = run(kinds)
    assert {result.kind.name: dict(result.classes) for result in results} == {
        name: {cls: 2} for name, cls in _SHORT.items()
    }
    text = page(results, date(2026, 1, 2))
    assert "wrote this page on 2026-01-02. 10 clients of 5 kinds" in text
    assert "Engines with the class `mail-server`: 0 of 2 (0 to 66 %)" in text
    assert "The aim that is missed" not in text


def test_page_names_the_engines_with_the_class_of_mail_servers() -> None:
    engine = next(kind for kind in KINDS if kind.name == "bot: as Postfix, at one sensor, once")
    server = next(kind for kind in KINDS if kind.name == "Exim")
    results = [
        Result(server, Counter({Class.MAIL_SERVER: 20})),
        Result(engine, Counter({Class.MAIL_SERVER: 2, Class.DELIVERY: 18})),
    ]
    text = page(results, date(2026, 1, 2))
    assert "These get it:\n\n* bot: as Postfix, at one sensor, once (held-out): 2 of 20\n" in text
    results[1].classes = Counter({Class.MAIL_SERVER: 1, Class.DELIVERY: 19})
    assert "The aim that is missed" not in page(results, date(2026, 1, 2))


def test_interval_is_wilsons() -> None:
    low, high = interval(65, 68)
    assert (round(low, 4), round(high, 4)) == (0.8781, 0.9849)
