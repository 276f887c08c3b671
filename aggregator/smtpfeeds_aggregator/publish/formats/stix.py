"""The feed as a STIX 2.1 bundle: observations, without indicators.

A row is an `observed-data` object with its address, and an origin where it comes first. The
identifier holds publisher, feed, address and the UTC day of the last event; `created` is that day's
beginning, so it never moves under one identifier, and `modified` is the last event. The
identifiers of addresses and origins are the deterministic ones of section 2.9. Written from
templates: the library takes fifty times as long, and a test holds both equal.

https://docs.oasis-open.org/cti/stix/v2.1/os/stix-v2.1-os.html
https://github.com/oasis-open/cti-stix-common-objects (TLP 2.0)
"""

from functools import lru_cache
from typing import IO, Any, Final
from uuid import UUID, uuid5

import msgspec

from ...names import NOT_KNOWN
from ..entries import NOTICE, Columns, Counts, Frame
from .identifiers import identifier, iso_text
from .json_file import ascii_json

SUFFIX: Final = ".stix.json"
SEPARATOR: Final = ",\n"
#: Larger bundles are not written: readers hold one in memory, and choke long before.
MAX_ENTRIES: Final = 100_000
#: The largest number that section 4.14 allows.
_MAX_OBSERVED: Final = 999_999_999
#: Section 2.9: the namespace of identifiers that follow from an object's properties.
_SCO_NAMESPACE: Final = UUID("00abedb4-aa42-466c-9c01-fed23315a9b7")
_TLP_CLEAR: Final = "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487"
#: The time of objects that never change.
_MADE: Final = "2026-01-01T00:00:00.000Z"

_MARKING: Final[dict[str, Any]] = {
    "type": "marking-definition",
    "spec_version": "2.1",
    "id": _TLP_CLEAR,
    "created": "2022-10-01T00:00:00.000Z",
    "name": "TLP:CLEAR",
    "extensions": {
        "extension-definition--60a3c5c5-0d10-413e-aab3-9e08dde9e88d": {
            "extension_type": "property-extension",
            "tlp_2_0": "clear",
        }
    },
}
_OBSERVED: Final = (
    '{{"type":"observed-data","spec_version":"2.1","id":"observed-data--%s","created_by_ref":'
    '"{publisher}","created":"%sT00:00:00.000Z","modified":"%s.000Z","first_observed":"%s",'
    '"last_observed":"%s","number_observed":%d,"object_refs":[%s],"labels":["{feed}","%s"],'
    '"object_marking_refs":["{marking}"]}}'
)
_ADDRESS: Final = (
    '{"type":"%s","spec_version":"2.1","id":"%s","value":"%s","object_marking_refs":["'
    + _TLP_CLEAR
    + '"]%s}'
)


class _Object(msgspec.Struct, frozen=True, gc=False):
    type: str
    id: str


def header(frame: Frame) -> str:
    """Return the beginning of the bundle."""
    bundle = identifier("bundle", frame.publisher, frame.feed.name, frame.generated.isoformat())
    return f'{{"type":"bundle","id":"bundle--{bundle}","objects":[\n'


def rows(frame: Frame, columns: Columns, before: Counts) -> list[str]:
    """Return the objects of each row without separators."""
    template = _OBSERVED.format(
        feed=columns.category, marking=_TLP_CLEAR, publisher=_publisher_id(frame)
    )
    # Rows are sorted by origin: each is written once, before its first address.
    known = before.last_asn
    written = []
    for address, is_ipv4, asn, name, first, last, hits, judgement in zip(
        columns.address,
        columns.is_ipv4,
        columns.asn,
        columns.name,
        columns.first_seen,
        columns.last_seen,
        columns.hits,
        columns.judgement,
        strict=True,
    ):
        objects = []
        kind = "ipv4-addr" if is_ipv4 else "ipv6-addr"
        own = f"{kind}--{uuid5(_SCO_NAMESPACE, _key(address))}"
        refs, belongs = f'"{own}"', ""
        if asn:
            origin = _origin_id(asn)
            refs += f',"{origin}"'
            belongs = f',"belongs_to_refs":["{origin}"]'
            if asn != known:
                known = asn
                objects.append(_origin(asn, origin, name))
        observed = identifier(frame.publisher, columns.category, address, last[:10])
        count = min(max(hits, 1), _MAX_OBSERVED)
        objects += (
            _ADDRESS % (kind, own, address, belongs),
            template
            % (
                *(observed, last[:10], iso_text(last)[:-1], iso_text(first), iso_text(last)),
                *(count, refs, judgement.cls),
            ),
        )
        written.append(",\n".join(objects))
    return written


def footer(frame: Frame, counts: Counts) -> str:
    """Return the objects that every row refers to."""
    before = SEPARATOR if counts.addresses else ""
    return f"{before}{ascii_json(_publisher(frame))},\n{ascii_json(_MARKING)}\n]}}\n"


def read_back(stream: IO[bytes]) -> int:
    """Return the number of observations in a bundle; raise ValueError if it is not one.

    Each object is on a line of its own.
    """
    if not stream.readline().startswith(b'{"type":"bundle","id":"bundle--'):
        raise ValueError("this is not a bundle")
    decoder, ids, observations = msgspec.json.Decoder(_Object), set[str](), 0
    line, is_last = stream.readline(), False
    while line and not is_last:
        is_last = not line.endswith(b",\n")
        each = decoder.decode(line.removesuffix(b"\n").removesuffix(b","))
        if each.id in ids:
            raise ValueError(f"{each.id} is there twice")
        ids.add(each.id)
        observations += each.type == "observed-data"
        line = stream.readline()
    if line + stream.read() != b"]}\n":
        raise ValueError("the bundle does not end as it should")
    return observations


def _publisher_id(frame: Frame) -> str:
    return f"identity--{identifier('publisher', frame.publisher)}"


def _publisher(frame: Frame) -> dict[str, Any]:
    return {
        "type": "identity",
        "spec_version": "2.1",
        "id": _publisher_id(frame),
        "created": _MADE,
        "modified": _MADE,
        "name": frame.publisher,
        "description": NOTICE,
        "identity_class": "organization",
        "contact_information": frame.contact,
        "object_marking_refs": [_TLP_CLEAR],
    }


def _key(address: str) -> str:
    """Return the properties that identify an address, in the form of section 2.9."""
    return f'{{"value":"{address}"}}'


@lru_cache(maxsize=1 << 12)
def _origin_id(asn: int) -> str:
    key = f'{{"number":{asn}}}'
    return f"autonomous-system--{uuid5(_SCO_NAMESPACE, key)}"


def _origin(asn: int, own: str, name: str) -> str:
    members: dict[str, Any] = {
        "type": "autonomous-system",
        "spec_version": "2.1",
        "id": own,
        "number": asn,
        "object_marking_refs": [_TLP_CLEAR],
    }
    if name != NOT_KNOWN:
        members["name"] = name
    return ascii_json(members)
