"""From several hundred SMTP clients to the published files, exactly, by RabbitMQ and by the spool.

Two sensors, IPv4 and IPv6; clients come again and overlap, by the PROXY protocol and in person.
Afterwards the database and every published file say what the clients' own ledger says: addresses,
first and last seen, hits, sensors and how many of their addresses, origin and AS name, events an
hour, and no data without a greet.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg

from acceptance.harness import Site, Truth, run_clients, wait_to_agree
from servers.fixtures import Vhost
from smtpfeeds_common.topology import REFUSED_QUEUE
from smtpfeeds_deploy.simulation import synthetic
from smtpfeeds_deploy.simulation.clients import KINDS
from smtpfeeds_deploy.simulation.ledger import Session
from smtpfeeds_deploy.simulation.simulate import Target, Visit
from smtpfeeds_deploy.single_host.home import Value

#: Addresses that must send a PROXY header; other loopback addresses are clients themselves.
PROXIES = ["127.0.0.1/32", "::1/128"]
#: A sensor's own addresses, as proxies name them: different bits of `targets`.
DESTINATIONS = ("192.0.2.1", "192.0.2.2", "2001:db8::1")
CLIENTS = 400
IN_PERSON = 60


def visits(targets: Sequence[Target], *, seed: int) -> list[Visit]:
    """Plan proxied visits of every kind, and direct ones from 127.0.0.2 and following."""
    chance = random.Random(seed)
    proxied = [
        replace(visit, destination=DESTINATIONS[chance.randrange(2)])
        if ":" not in visit.source
        else visit
        for visit in synthetic.visits(CLIENTS, targets, seed=seed)
    ]
    ipv4 = [target for target in targets if ":" not in target.host]
    in_person = [
        Visit(chance.choice([*KINDS]), chance.choice(ipv4), bind_to=f"127.0.0.{2 + number % 20}")
        for number in range(IN_PERSON)
    ]
    both = proxied + in_person
    chance.shuffle(both)
    return both


def aggregator(
    site: Site, dsn: str, broker: str, origins: dict[str, str], name: str = "aggregator"
) -> dict[str, Value]:
    """Return settings of an aggregator that publishes every two seconds."""
    return {
        "dsn": dsn,
        "broker": [broker],
        "feeds_dir": str(site.folder / name),
        "publish_interval_s": 2,
        "publish_non_global": True,
        "publish_exact_counts": True,
        **origins,
    }


def truth_of(sessions: Sequence[Session]) -> Truth:
    origins = {session.source: synthetic.origin_of(session.source) for session in sessions}
    return Truth(sessions, origins, synthetic.AS_NAMES)


def test_two_sensors_by_rabbitmq(
    site: Site, vhost: Vhost, database: str, synthetic_origins: dict[str, str]
) -> None:
    settings = aggregator(
        site,
        database,
        vhost.add_account(
            "centre",
            configure=r"^smtpfeeds(\..*)?$",
            write=r"^(smtpfeeds(\..*)?|amq\.default)$",
            read=r"^smtpfeeds(\..*)?$",
        ),
        synthetic_origins,
    )
    config = site.settings("aggregator", settings)
    site.migrate(config)
    site.start("aggregator", "aggregator", "run", "--config", str(config))
    targets: list[Target] = []
    for name in ("sensor-a", "sensor-b"):
        url = vhost.add_account(
            name, write="^smtpfeeds$", topics={"smtpfeeds": rf"^observations\.{name}$"}
        )
        targets += site.sensor(name, broker=[url], trusted_proxies=PROXIES)

    first = run_clients(visits(targets, seed=11))
    second = run_clients(visits(targets, seed=12))

    truth = truth_of(first + second)
    assert len({(s.source, s.sensor) for s in truth.sessions}) > 200
    wait_to_agree(lambda: truth.database(database), "the database")
    wait_to_agree(lambda: truth.behaviours(database), "behaviours, days and targets")
    wait_to_agree(lambda: truth.published(site.folder / "aggregator" / "feeds"), "the files")
    with psycopg.connect(database) as connection:
        sensors = connection.execute("SELECT name, drops FROM sensor ORDER BY name").fetchall()
    assert sensors == [("sensor-a", 0), ("sensor-b", 0)]
    assert vhost.node.admin.queue(vhost.name, REFUSED_QUEUE).get("messages", 0) == 0


def test_two_sensors_by_their_spools(
    site: Site, database: str, synthetic_origins: dict[str, str]
) -> None:
    """Without a broker: the aggregator reads both sensors' spools in one folder."""
    spools = site.folder / "spools"
    spools.mkdir()
    settings = aggregator(site, database, f"spool:{spools}", synthetic_origins)
    config = site.settings("aggregator", settings)
    site.migrate(config)
    targets: list[Target] = []
    for name in ("sensor-a", "sensor-b"):
        targets += site.sensor(name, spool_dir=str(spools), trusted_proxies=PROXIES)
    site.start("aggregator", "aggregator", "run", "--config", str(config))

    truth = truth_of(run_clients(visits(targets, seed=13)))

    wait_to_agree(lambda: truth.database(database), "the database")
    wait_to_agree(lambda: truth.behaviours(database), "behaviours, days and targets")
    wait_to_agree(lambda: truth.published(site.folder / "aggregator" / "feeds"), "the files")


def test_addresses_that_are_not_publicly_routable_are_left_out_and_counted(
    site: Site, database: str, synthetic_origins: dict[str, str]
) -> None:
    """By default, documentation addresses are in the database but in no published file."""
    spools = site.folder / "spools"
    spools.mkdir()
    settings = aggregator(site, database, f"spool:{spools}", synthetic_origins)
    del settings["publish_non_global"]
    config = site.settings("aggregator", settings)
    site.migrate(config)
    targets = site.sensor("sensor-a", spool_dir=str(spools), trusted_proxies=PROXIES)
    site.start("aggregator", "aggregator", "run", "--config", str(config))
    plan = synthetic.visits(60, targets, seed=14)
    public = replace(plan[0], kind="mailer", source="8.8.8.8")

    truth = truth_of(run_clients([*plan, public]))

    wait_to_agree(lambda: truth.database(database), "the database")
    only = Truth([s for s in truth.sessions if s.source == public.source], truth.origins, {})
    feeds = site.folder / "aggregator" / "feeds"
    wait_to_agree(lambda: only.published(feeds), "the files")
    assert left_out(feeds) == {
        feed: {
            "not_global": len(
                {s.source for s in truth.sessions for e in s.events if e.feed == feed}
                - {public.source}
            ),
            "excluded": 0,
        }
        for feed in ("smtpgreet", "smtpdata")
    }


def left_out(feeds: Path) -> object:
    """Return the counts of left-out addresses from the current manifest."""
    return json.loads((feeds / "manifest.json").read_text())["left_out"]
