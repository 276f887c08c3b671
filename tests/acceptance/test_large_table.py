"""The whole pipeline once against a real origin table, with public addresses by the PROXY protocol.

    make acceptance ASN_DATA=FOLDER

FOLDER holds a pyasn table `ipasn-*.dat.gz` and a list of names `asnames-*.json.gz`. The table is
read here apart from pyasn: a dictionary for each prefix length, the longest one wins.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from acceptance.harness import Site, Truth, run_clients, wait_to_agree
from servers.fixtures import Vhost
from smtpfeeds_aggregator.names import clean_name
from smtpfeeds_deploy.simulation import synthetic
from smtpfeeds_deploy.simulation.simulate import Target

#: Python's `is_global` accepts these.
NOT_GLOBAL = [
    ip_network(text) for text in ("192.88.99.0/24", "2002::/16", "224.0.0.0/4", "ff00::/8")
]
#: Other parts of the registries that need care are avoided by taking IPv6 from here alone.
IPV6 = [
    ip_network(text) for text in ("2400::/12", "2600::/12", "2800::/12", "2a00::/12", "2c00::/12")
]
ADDRESSES = 1_500
CLIENTS = 4_000


class Table:
    """A pyasn table, by prefix length."""

    def __init__(self, path: Path) -> None:
        self.lengths: dict[tuple[int, int], dict[int, int]] = {}
        with gzip.open(path, "rt") as lines:
            for line in lines:
                if not line.startswith(";"):
                    prefix, asn = line.split()
                    network = ip_network(prefix)
                    key = (network.version, network.prefixlen)
                    self.lengths.setdefault(key, {})[int(network.network_address)] = int(asn)

    def origin(self, text: str) -> int | None:
        ip = ip_address(text)
        for length in range(ip.max_prefixlen, -1, -1):
            shift = ip.max_prefixlen - length
            asn = self.lengths.get((ip.version, length), {}).get(int(ip) >> shift << shift)
            if asn is not None:
                return asn
        return None

    def addresses(self, chance: random.Random) -> Iterator[str]:
        """Return public addresses, most of them in prefixes of the table."""
        networks = [(key, base) for key, table in self.lengths.items() for base in table]
        while True:
            (version, length), base = chance.choice(networks)
            bits = 32 if version == 4 else 128
            if version == 4 and chance.random() < 0.1:
                base, length = chance.getrandbits(32), 32
            ip = ip_address((base + chance.randrange(1 << (bits - length))).to_bytes(bits // 8))
            within = ip.version == 4 or any(ip in network for network in IPV6)
            if within and ip.is_global and not any(ip in network for network in NOT_GLOBAL):
                yield str(ip)


def one_file(pattern: str) -> Path:
    folder = os.environ.get("SMTPFEEDS_ASN_DATA")
    assert folder, "name the folder of the large tables: make acceptance ASN_DATA=FOLDER"
    paths = sorted(path for path in Path(folder).glob(pattern) if "scaled" not in path.name)
    assert paths, f"no {pattern} in {folder}"
    return paths[-1]


@pytest.mark.large
@pytest.mark.timeout(900)
def test_public_addresses_against_a_real_table(site: Site, vhost: Vhost, database: str) -> None:
    table_file, names_file = one_file("ipasn-*.dat.gz"), one_file("asnames-*.json.gz")
    table = Table(table_file)
    with gzip.open(names_file, "rt", encoding="utf-8") as stream:
        raw = json.load(stream)
    config = site.settings(
        "aggregator",
        {
            "dsn": database,
            "broker": [
                vhost.add_account(
                    "centre",
                    configure=r"^smtpfeeds(\..*)?$",
                    write=r"^(smtpfeeds(\..*)?|amq\.default)$",
                    read=r"^smtpfeeds(\..*)?$",
                )
            ],
            "feeds_dir": str(site.folder / "published"),
            "publish_interval_s": 5,
            "origin_table": str(table_file),
            "as_names": str(names_file),
        },
    )
    site.migrate(config)
    site.start("aggregator", "aggregator", "run", "--config", str(config))
    targets: list[Target] = []
    for name in ("sensor-a", "sensor-b"):
        url = vhost.add_account(
            name, write="^smtpfeeds$", topics={"smtpfeeds": rf"^observations\.{name}$"}
        )
        targets += site.sensor(name, broker=[url], trusted_proxies=["127.0.0.0/8", "::1/128"])

    chance = random.Random(1)
    drawn = table.addresses(chance)
    sources = sorted({next(drawn) for _ in range(ADDRESSES)})
    sessions = run_clients(synthetic.visits(CLIENTS, targets, seed=1, sources=sources))

    origins = {session.source: table.origin(session.source) for session in sessions}
    names = {
        asn: clean_name(raw[str(asn)], has_country=False)
        for asn in set(origins.values())
        if asn is not None and str(asn) in raw
    }
    print(
        f"{len(sessions)} clients, {len(origins)} addresses, {len(set(origins.values()))} origins, "
        f"{sum(asn is None for asn in origins.values())} addresses without one"
    )
    truth = Truth(sessions, origins, names)
    wait_to_agree(lambda: truth.database(database), "the database", 120)
    wait_to_agree(lambda: truth.published(site.folder / "published" / "feeds"), "the files", 120)
