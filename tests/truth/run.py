"""Run every kind of client against five sensors, judge each address, and report.

usage: python -m truth.run [REPORT]    (PYTHONPATH=tests; REPORT is the page that is written)
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from sensor_support import SensorProcess
from smtpfeeds_aggregator.classification.classes import Class, Evidence, judge

from .catalogue import KINDS
from .kinds import Kind, Visit
from .relay import Relays
from .report import Result, page

SENSORS = 5
_AT_ONCE = 4
_QUIET_LIMIT_S = 120.0
#: One sensor of each: content is read at two, passwords at one, TLS at two.
_SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {},
    {"tls": "made"},
    {"data_policy": "drain"},
    {"data_policy": "drain", "tls": "made", "offer_auth": True},
)


@dataclass
class Heard:
    """What all sensors recorded of one address."""

    flags: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    sensors: dict[str, set[str]] = field(default_factory=dict)


def _address(number: int) -> str:
    """An address of its own for every client, of the network for benchmarks."""
    return str(ipaddress.IPv4Address("198.18.0.0") + number + 1)


def _banner(sensor: int) -> str:
    return f"mx{sensor}.sensors.example"


def _talk(relays: Relays, sensors: Sequence[SensorProcess], kind: Kind, number: int) -> None:
    """One client's week: its visits to its sensors."""
    random = Random(number)
    chosen = random.sample(range(len(sensors)), kind.sensors)
    for _ in range(kind.visits):
        for index in chosen:
            dialled = f"203.0.113.{index + 1}"
            with relays.relay(sensors[index].place(), _address(number), dialled) as relay:
                kind.visit(Visit(relay.place, dialled, _banner(index), random, number))


def _heard(sensors: Sequence[SensorProcess]) -> dict[str, Heard]:
    heard: dict[str, Heard] = {}
    for sensor in sensors:
        for (feed, address), (hits, flags, _) in sensor.rows().items():
            of = heard.setdefault(address, Heard())
            of.flags |= flags
            of.hits[feed] += hits
            of.sensors.setdefault(feed, set()).add(sensor.name)
    return heard


def _class(kind: Kind, heard: Heard | None) -> Class | None:
    if heard is None:
        return None
    evidence = Evidence(
        flags=heard.flags,
        hits=max(heard.hits.values()),
        sensors=max(map(len, heard.sensors.values())),
        sensors_alive=SENSORS,
        listings=kind.listings,
    )
    return judge(evidence).cls


def run(kinds: Sequence[Kind]) -> list[Result]:
    """Let every client talk, then judge it as a publication does."""
    clients = [(kind, index) for kind in kinds for index in range(kind.clients)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smtpfeeds-truth-")))
        sensors = []
        for index, settings in enumerate(_SETTINGS):
            place = folder / str(index)
            place.mkdir()
            sensor = SensorProcess(
                place, name=f"s{index}", listen=["127.0.0.1:0"], hostname=_banner(index),
                trusted_proxies=["127.0.0.0/8"], **settings,
            )  # fmt: skip
            sensor.start()
            stack.callback(sensor.kill)
            sensors.append(sensor)
        relays = stack.enter_context(Relays())
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running = [
                pool.submit(_talk, relays, sensors, kind, number)
                for number, (kind, _) in enumerate(clients)
            ]
            for done, talk in enumerate(running, 1):
                talk.result()
                if done % 20 == 0 or done == len(running):
                    print(
                        f"\r{done} of {len(running)} clients have talked ", end="", file=sys.stderr
                    )
        print(file=sys.stderr)
        assert relays.until_idle(_QUIET_LIMIT_S), "a connection is still open"
        for sensor in sensors:
            assert sensor.stop() == 0, sensor.log.read_text()
        heard = _heard(sensors)
    results: dict[str, Result] = {kind.name: Result(kind) for kind in kinds}
    for number, (kind, _) in enumerate(clients):
        results[kind.name].classes[_class(kind, heard.get(_address(number)))] += 1
    return list(results.values())


def main(words: Sequence[str]) -> int:
    """Run all kinds and write the page."""
    text = page(run(KINDS), dt.datetime.now(dt.UTC).date())
    if words:
        Path(words[0]).write_text(text)
        print(f"{words[0]} is written")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
