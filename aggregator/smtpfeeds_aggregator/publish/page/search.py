"""The index of the page's search: columns of numbers in a classic script.

A page opened from a disk may load only a script: no fetch, no module, no worker. So the index is a
script that calls one function with columns in base64, little-endian like every browser's typed
arrays. IPv4 addresses come first, each family sorted by address.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ...classification.classes import Class, Judgement
from ...classification.explanations import REASONS, STEPS
from ...names import short_name
from ..columns import Rows, Window
from ..judgements import Judgements

SEARCH_DATA: Final = "search-data.js"
#: Octets that would end a script or a line within it.
_UNSAFE: Final = {b"<": b"\\u003c", b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchColumns:
    """The addresses of the index, one column for each field; IPv4 first, each family sorted."""

    #: IPv4 addresses as numbers.
    ipv4: Rows
    #: The upper and lower halves of IPv6 addresses.
    high: Rows
    low: Rows
    #: Origins; 0 where none is known.
    asn: Rows
    #: Cleaned AS names.
    names: Mapping[int, str]
    #: Seconds since 1970-01-01 UTC of the last event in each feed; 0: it is not in it.
    greet_s: Rows
    data_s: Rows
    first_s: Rows
    #: Numbers of ``judgements``.
    judgement: Rows
    judgements: tuple[Judgement, ...]
    #: The past seven days, bit n: n days ago.
    days: Rows
    sensors: Rows
    targets: Rows
    hits: Rows

    @classmethod
    def of_window(
        cls, window: Window, judgements: Judgements, names: Mapping[int, str]
    ) -> "SearchColumns":
        """Return the columns of a published window."""
        greet, data = window.feeds

        def both(name: str) -> Rows:
            """Return the larger of both feeds' numbers, which count the same clients."""
            most: Rows = np.maximum(
                window.of_addresses(greet, name), window.of_addresses(data, name)
            )
            return most

        first_s = window.of_addresses(greet, "first_s")
        only_data = first_s == 0
        first_s[only_data] = window.of_addresses(data, "first_s")[only_data]
        return cls(
            ipv4=window.ipv4,
            high=window.high,
            low=window.low,
            asn=window.asn,
            names=names,
            greet_s=window.of_addresses(greet, "last_s"),
            data_s=window.of_addresses(data, "last_s"),
            first_s=first_s,
            judgement=judgements.which,
            judgements=judgements.kinds,
            days=window.of_addresses(greet, "days") | window.of_addresses(data, "days"),
            sensors=both("sensors"),
            targets=both("targets"),
            hits=both("hits"),
        )


def search_data(columns: SearchColumns) -> bytes:
    """Return the index: 40 octets for each address, a third of that compressed."""
    asns, asn_index = np.unique(columns.asn, return_inverse=True)
    kinds = columns.judgements
    whys = {why: place for place, why in enumerate(dict.fromkeys(kind.why for kind in kinds))}
    actors = {None: 0} | {
        actor: place
        for place, actor in enumerate(dict.fromkeys(k.actor for k in kinds if k.actor), 1)
    }
    classes = list(Class)
    octets6 = np.empty((len(columns.high), 2), ">u8")
    octets6[:, 0], octets6[:, 1] = columns.high, columns.low

    def of_kind(values: list[int], kind: str) -> str:
        return _base64(np.array(values or [0], kind)[columns.judgement])

    document = {
        "v4": _base64(columns.ipv4.astype("<u4")),
        "v6": base64.b64encode(octets6.tobytes()).decode(),
        "asn": _base64(asn_index.astype("<u4")),
        "greet": _base64(columns.greet_s.astype("<u4")),
        "data": _base64(columns.data_s.astype("<u4")),
        "first": _base64(columns.first_s.astype("<u4")),
        "why": of_kind([whys[kind.why] for kind in kinds], "<u2"),
        "actor": of_kind([actors[kind.actor] for kind in kinds], "<u2"),
        "cls": of_kind([classes.index(kind.cls) for kind in kinds], "u1"),
        "marks": _base64(columns.days.astype("u1")),
        "sensors": _steps(columns.sensors),
        "targets": _steps(columns.targets),
        "hits": _steps(columns.hits),
        "asns": asns.tolist(),
        "names": [short_name(columns.names.get(asn, "")) for asn in asns.tolist()],
        "classes": classes,
        "actors": [actor or "" for actor in actors],
        "whys": list(whys),
        "reasons": {
            code: REASONS[code]
            for code in sorted({why.partition(":")[0] for codes in whys for why in codes})
        },
        "steps": STEPS,
    }
    text = msgspec.json.encode(document)
    for octets, escaped in _UNSAFE.items():
        text = text.replace(octets, escaped)
    return b"smtpfeedsIndex(" + text + b");\n"


def _steps(counts: Rows) -> str:
    """Return the indexes of counts in ``STEPS``."""
    places = np.searchsorted(np.asarray(STEPS, np.int64), counts, side="right") - 1
    return _base64(places.astype("u1"))


def _base64(column: "npt.NDArray[Any]") -> str:
    return base64.b64encode(column.tobytes()).decode()
