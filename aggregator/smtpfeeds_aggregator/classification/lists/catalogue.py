"""Maps the names of lists to actors, with their home pages.

The same organisation appears under several names, within an archive and across archives; this
module merges them. A list that is not named here is its own actor.
"""

import re
from typing import Final, NamedTuple

from .model import ListKind


class Actor(NamedTuple):
    """The organisation that a list belongs to."""

    #: A short word, as in the reason ``listed:shodan``.
    actor: str
    kind: ListKind
    home: str


#: Home pages of the actors, as the archives name them.
HOMES: Final = {
    "a10networks": "a10networks.com",
    "academyforinternetresearch": "academyforinternetresearch.org",
    "adscore": "adscore.com",
    "alphastrike": "alphastrike.io",
    "binaryedge": "binaryedge.io",
    "bitsight": "bitsight.com",
    "bufferover": "bufferover.run",
    "censys": "censys.io",
    "circl": "circl.lu",
    "coalition": "coalitioninc.com",
    "criminalip": "criminalip.com",
    "crowdstrike": "crowdstrike.com",
    "cybcube": "cybcube.com",
    "cybergreen": "cybergreen.net",
    "cyberok": "cyberok.ru",
    "cyberresilience": "cyberresilience.io",
    "cypex": "cypex.ai",
    "dataplane": "dataplane.org",
    "deepfield": "deepfield.net",
    "detectify": "detectify.com",
    "driftnet": "driftnet.io",
    "edgewatch": "edgewatch.com",
    "eset": "eset.com",
    "fofa": "fofa.info",
    "groupib": "rnd.group-ib.com",
    "hackertarget": "hackertarget.com",
    "hadrian": "hadrian.io",
    "hunter": "hunter.how",
    "infrawatch": "infrawatch.com",
    "internetcleanup": "internetcleanup.foundation",
    "internetmeasurementresearch": "internetmeasurementresearch.com",
    "internetmetrics": "internet-metrics.com",
    "internetresearchproject": "internet-research-project.net",
    "internettl": "internettl.org",
    "intrinsec": "intrinsec.com",
    "intruder": "intruder.io",
    "ipinfo": "ipinfo.io",
    "ipip": "ipip.net",
    "ki3": "ki3.org.cn",
    "knoq": "knoq.nl",
    "leakix": "leakix.net",
    "mandiant": "mandiant.com",
    "modat": "modat.io",
    "netlas": "netlas.io",
    "netscout": "internet-albedo.net",
    "netsecscan": "netsecscan.net",
    "odin": "odin.io",
    "onlyscans": "onlyscans.com",
    "onyphe": "onyphe.io",
    "paloaltonetworks": "paloaltonetworks.com",
    "pocnroll": "pocnroll.com",
    "probethenet": "probethenet.com",
    "quake": "quake.360.net",
    "rapid7": "rapid7.com",
    "recordedfuture": "securitytrails.com",
    "recyber": "recyber.net",
    "rootevidence": "rootevidence.com",
    "securityresearch": "securityresearch.net",
    "shadowforce": "shadowforce.io",
    "shadowserver": "shadowserver.org",
    "shodan": "shodan.io",
    "stretchoid": "stretchoid.com",
    "tenable": "tenable.com",
    "visionheight": "visionheight.com",
    "xmco": "xmco.fr",
    "zern": "zern.io",
    "zoomeye": "zoomeye.ai",
}

#: Other names of the same actor, without endings such as ``-scanning``.
_ALIASES: Final = {
    "alphastrike-research": "alphastrike",
    "bufferoverrun": "bufferover",
    "circl-security": "circl",
    "circl-ssh": "circl",
    "coalition-signals-intelligence": "coalition",
    "crowdstrikefalconsurface": "crowdstrike",
    "internet-census": "bitsight",
    "mandiantasm": "mandiant",
    "research-scanner": "bitsight",
    "researchscanner": "bitsight",
    "strechoid": "stretchoid",
    "tenableasm": "tenable",
}
#: MISP's lists of large mailers. They come from SPF records of popular domains, and include
#: shared clouds.
_MAILERS: Final = frozenset({"smtp-sending-ips", "google-gmail-sending-ips"})
#: MISP's lists of scanners whose names do not say so.
_SCANNERS: Final = frozenset({"shadowserver"})
_SCANNER_NAME: Final = re.compile(r"(.+?)-(?:(?:nt-)?scanning|scanner)$")
_FAMILY: Final = re.compile(r"_v[46]$")

#: Lists of scanners and mailers that are fetched from an archive with MISP's layout.
MISP_NAMES: Final = (
    "alphastrike-research-nt-scanning", "alphastrike-scanning", "bufferover-nt-scanning",
    "censys-scanning", "circl-security-scanning", "circl-ssh-scanning",
    "coalition-signals-intelligence-nt-scanning", "cybergreen-nt-scanning",
    "cyberresilience-nt-scanning", "cypex-nt-scanning", "f6-nt-scanning",
    "google-gmail-sending-ips", "internet-census-nt-scanning", "internetcleanup-scanner",
    "intrinsec-nt-scanning", "ipinfo-nt-scanning", "ipip-nt-scanning", "modat-nt-scanning",
    "modat-scanner", "netsecscan-nt-scanning", "netsecscan-scanning", "onyphe-nt-scanning",
    "onyphe-scanner", "probethenet-nt-scanning", "rapid7-nt-scanning",
    "research-scanner-nt-scanning", "shadowforce-nt-scanning", "shadowforce-scanning",
    "shadowserver", "shadowserver-nt-scanning", "shodan-nt-scanning", "shodan-scanning",
    "skipa-nt-scanning", "smtp-sending-ips", "stretchoid-nt-scanning",
)  # fmt: skip
_BOTH_FAMILIES: Final = (
    "alphastrike", "binaryedge", "bitsight", "censys", "dataplane", "deepfield", "driftnet",
    "hadrian", "internetmeasurementresearch", "ipinfo", "leakix", "onyphe", "other",
    "paloaltonetworks", "rapid7", "shadowserver", "shodan", "tenableasm", "universities",
)  # fmt: skip
_IPV4_ALONE: Final = (
    "a10networks", "academyforinternetresearch", "adscore", "bufferoverrun", "criminalip",
    "crowdstrikefalconsurface", "cybcube", "cybergreen", "cyberok", "cyberresilience", "cypex",
    "detectify", "edgewatch", "eset", "fofa", "groupib", "hackertarget", "hunter", "infrawatch",
    "internetmetrics", "internetresearchproject", "internettl", "intrinsec", "intruder", "ipip",
    "ki3", "knoq", "mandiantasm", "modat", "netlas", "netscout", "odin", "onlyscans", "pocnroll",
    "probethenet", "quake", "recordedfuture", "recyber", "researchscanner", "rootevidence",
    "securityresearch", "shadowforce", "strechoid", "visionheight", "xmco", "zern", "zoomeye",
)  # fmt: skip
#: Lists that are fetched from an archive with OpenFilters' layout, as ``NAME.txt``.
OPENFILTERS_NAMES: Final = tuple(
    sorted(
        [f"{name}_v{family}" for name in _BOTH_FAMILIES for family in (4, 6)]
        + [f"{name}_v4" for name in _IPV4_ALONE]
    )
)


def is_wanted_of_misp(name: str) -> bool:
    """Whether a MISP warning list is a list of scanners or mailers."""
    return name in _MAILERS or name in _SCANNERS or _SCANNER_NAME.match(name) is not None


def actor_of(name: str) -> Actor:
    """Return the actor of a list by its name in MISP, OpenFilters or any other place."""
    if name in _MAILERS:
        return Actor(name, "mailer", "")
    word = _FAMILY.sub("", name)
    scanner = _SCANNER_NAME.match(word)
    if scanner is not None and word not in _ALIASES:
        word = scanner[1]
    actor = _ALIASES.get(word, word)
    return Actor(actor, "scanner", HOMES.get(actor, ""))
