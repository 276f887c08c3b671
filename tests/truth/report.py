"""Counts which class each kind of client got, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from smtpfeeds_aggregator.classification.classes import Class

from .kinds import Kind

_Z = 1.96
_PAGE = """# How accurate the classes are

`make truth` wrote this page on {day:%Y-%m-%d}. {clients} clients of {kinds} kinds talked to five
real sensors; each client had an address of its own. Every address got its class by the rules of a
publication. Each share has its 95 % interval (Wilson).

Limits of these figures:

* The kinds are those that we thought of. On the Internet there are others, in other numbers.
* Engines are simulated from published transcripts: a real one changes from month to month.
* Clients of one kind differ little, so the true intervals are wider than those printed.
* All visits take place within minutes: these runs do not test how bits age.
* A bot that sends what Postfix sends, once, to one sensor, is indistinguishable from Postfix.

## Aims

{aims}

{missed}## First set

We had transcripts of these kinds when we chose the rules.

{first}

## Held-out set

We added these kinds later, and changed no rule after their run.

{held_out}

## Precision

The share of mail servers among `mail-server` entries depends on the mixture of sources, which is
unknown. With the shares above, and engines in the proportions of the tables:

{mixture}
"""

_MISSED = """## The aim that is missed

At most {percent} % of the engines should get the class `mail-server`. These get it:

{kinds}

A condition that excludes them, such as a second visit, would be chosen because of a kind in the
held-out set. That set would then measure nothing, and the condition would be worth nothing on the
Internet, where the next bot comes twice. It would also exclude mail servers that strayed here: most
of what is refused comes only once. So the rule is as it was before the run, with these errors:

* Such a bot gets `mail-server`, always. How many there are on the Internet is unknown, so the share
  of engines above is not a rate of errors in the wild: the last table shows how far it can move.
* `mail-server` is not evidence of innocence. Never put an address on an allow list because of it.

"""
#: Of engines, with the class `mail-server`.
_MOST_PERCENT = 5


@dataclass
class Result:
    """The classes that the clients of a kind got; None: it is in no feed."""

    kind: Kind
    classes: Counter[Class | None] = field(default_factory=Counter)

    @property
    def clients(self) -> int:
        return self.classes.total()

    @property
    def right(self) -> int:
        return sum(self.classes[cls] for cls in self.kind.right)


def interval(part: int, whole: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, z2 = part / whole, _Z * _Z
    middle = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = _Z / (1 + z2 / whole) * math.sqrt(share * (1 - share) / whole + z2 / (4 * whole * whole))
    return max(0.0, middle - half), min(1.0, middle + half)


def _share(part: int, whole: int) -> str:
    if whole == 0:
        return "none"
    low, high = interval(part, whole)
    return f"{part} of {whole} ({100 * low:.0f} to {100 * high:.0f} %)"


def _table(results: Iterable[Result]) -> list[str]:
    lines = ["| kind of client | right class | classes it got |", "|---|---|---|"]
    for result in results:
        got = ", ".join(
            f"{cls or 'in no feed'} {count}" for cls, count in result.classes.most_common()
        )
        lines.append(f"| {result.kind.name} | {_share(result.right, result.clients)} | {got} |")
    return lines


def _of(results: Sequence[Result], group: str, cls: Class) -> str:
    mine = [result for result in results if result.kind.group == group]
    return _share(sum(r.classes[cls] for r in mine), sum(r.clients for r in mine))


def _aims(results: Sequence[Result]) -> list[str]:
    hostile = [result for result in results if result.kind.group in {"hostile", "engine"}]
    surveys = sum(result.classes[Class.SURVEY] for result in hostile)
    clients = sum(result.clients for result in hostile)
    servers = _of(results, "mail server", Class.MAIL_SERVER)
    engines = _of(results, "engine", Class.MAIL_SERVER)
    return [
        f"* Hostile clients and engines with the class `survey`: {_share(surveys, clients)}.",
        f"* Mail servers with the class `mail-server`: {servers}.",
        f"* Engines with the class `mail-server`: {engines}.",
    ]


def _missed(results: Sequence[Result]) -> str:
    """What is wrong where too many engines are taken for mail servers, and why that stays."""
    engines = [result for result in results if result.kind.group == "engine"]
    wrong = [result for result in engines if result.classes[Class.MAIL_SERVER]]
    taken = sum(result.classes[Class.MAIL_SERVER] for result in wrong)
    if 100 * taken <= _MOST_PERCENT * sum(result.clients for result in engines):
        return ""
    kinds = "\n".join(
        f"* {result.kind.name} ({result.kind.where}): {result.classes[Class.MAIL_SERVER]}"
        f" of {result.clients}"
        for result in wrong
    )
    return _MISSED.format(percent=_MOST_PERCENT, kinds=kinds)


def _mixture(results: Sequence[Result]) -> list[str]:
    """Precision of `mail-server` for stated mixtures of engines and strays."""
    lines = [
        "| mail servers in 100 sources that send | mail servers in 100 `mail-server` entries |",
        "|---|---|",
    ]
    servers = [r for r in results if r.kind.group == "mail server"]
    engines = [r for r in results if r.kind.group == "engine"]
    hit = sum(r.classes[Class.MAIL_SERVER] for r in servers) / sum(r.clients for r in servers)
    false = sum(r.classes[Class.MAIL_SERVER] for r in engines) / sum(r.clients for r in engines)
    for strays in (1, 5, 20, 50):
        right, wrong = strays * hit, (100 - strays) * false
        precision = 100 * right / (right + wrong) if right + wrong else 0.0
        lines.append(f"| {strays} | {precision:.0f} |")
    return lines


def page(results: Sequence[Result], day: date) -> str:
    """The whole page, as Markdown."""
    first = [result for result in results if result.kind.where == "first"]
    held_out = [result for result in results if result.kind.where == "held-out"]
    return _PAGE.format(
        day=day,
        clients=sum(result.clients for result in results),
        kinds=len(results),
        aims="\n".join(_aims(results)),
        missed=_missed(results),
        first="\n".join(_table(first)),
        held_out="\n".join(_table(held_out)),
        mixture="\n".join(_mixture(results)),
    )
