"""Creates batches at each bound of the published schema, and one step past it.

The bounds are read from the schema, so that later fields are covered as well.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest_support import made_batch, now_ms
from smtpfeeds_common.wire import HourCount, Observation, PrefixOverflow, encode

SCHEMA_FILE = Path(__file__).parents[2] / "docs/reference/batch.schema.json"
#: The row's schema of each list of a batch.
ROWS = {"observations": "Observation", "hours": "HourCount", "overflows": "PrefixOverflow"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Edge:
    """A batch with one value changed, and whether the schema accepts it."""

    field: str
    value: object
    accepted: bool
    batch: Json

    @property
    def body(self) -> bytes:
        return json.dumps(self.batch).encode()

    def __str__(self) -> str:
        return f"{self.field} = {str(self.value)[:80]!r}"


def published_schema() -> Json:
    read: Json = json.loads(SCHEMA_FILE.read_text())
    return read


def plain_batch(sensor: str = "s1", **more: Any) -> Json:
    """Create a valid batch with a row of each kind, as JSON."""
    at = now_ms() - 1000
    batch_of_rows = made_batch(
        Observation("smtpgreet", "192.0.2.1", at, at, 1),
        sensor=sensor,
        hours=[HourCount("smtpgreet", at, 1)],
        overflows=[PrefixOverflow("smtpgreet", "2001:db8::/64", at, at, 1)],
        **more,
    )
    batch: Json = json.loads(encode(batch_of_rows))
    return batch


def edges(sensor: str = "s1") -> Iterator[Edge]:
    """Yield batches in which one field of the batch or of a row is at or past a bound."""
    schemas = published_schema()["$defs"]
    for name, schema in schemas["Batch"]["properties"].items():
        for value, accepted in _values(schema, _example(plain_batch()[name])):
            if name == "sensor" and accepted and value != sensor:
                continue  # the schema accepts another sensor's name, but ingest refuses it
            yield Edge(name, value, accepted, plain_batch(sensor) | {name: value})
    for rows, of in ROWS.items():
        for name, schema in schemas[of]["properties"].items():
            example = plain_batch()[rows][0].get(name, 0)
            for value, accepted in _values(schema, example):
                batch = copy.deepcopy(plain_batch(sensor))
                batch[rows][0][name] = value
                yield Edge(f"{rows}.{name}", value, accepted, batch)


def _example(value: Any) -> Any:
    return value if isinstance(value, str | int) else None


def _values(schema: Json, example: Any) -> Iterator[tuple[object, bool]]:
    """Yield values at and past the bounds of a field, and whether each is accepted."""
    yield None, False
    if "enum" in schema:
        yield from _near_names(schema["enum"])
    elif schema["type"] == "string":
        yield from _strings(schema, example)
    elif schema["type"] == "integer":
        yield from _integers(schema["minimum"], schema["maximum"])
    elif schema["type"] == "array":
        yield from (([], True), ({}, False), ([None], False), ("", False))
    else:
        yield from _objects(schema)


def _near_names(names: list[str]) -> Iterator[tuple[object, bool]]:
    for name in names:
        yield name, True
        for wrong in (name + "\n", "\n" + name, name.upper(), name[:-1], name + "\0", name + " "):
            yield wrong, False
    yield from (("", False), (0, False))


def _strings(schema: Json, example: str) -> Iterator[tuple[object, bool]]:
    longest = schema.get("maxLength")
    yield example, True
    yield 7, False
    if "pattern" in schema:
        for wrong in (example + "\n", "\n" + example, example + "\0", "", "\u0663" + example[1:]):
            yield wrong, False
        yield example.upper(), "A-F" in schema["pattern"]
        if longest is not None:
            yield from (("a" * longest, True), ("a" * (longest + 1), False))
            yield "a" * longest + "\n", False
    elif longest is not None:
        yield from (("\U0001f4ec" * longest, True), ("a" * (longest + 1), False))
        yield "a" * (longest - 1) + "\n", True


def _integers(least: int, most: int) -> Iterator[tuple[object, bool]]:
    yield from ((least, True), (most, True), (least - 1, False), (most + 1, False))
    yield from ((least + 0.5, False), (str(least), False), (True, False), (10**30, False))


def _objects(schema: Json) -> Iterator[tuple[object, bool]]:
    longest, most = schema["propertyNames"]["maxLength"], schema["maxProperties"]
    yield from (({}, True), ([], False), ({"a": None}, False), ({"": 0}, True))
    yield from (({"a" * longest: 1}, True), ({"a" * (longest + 1): 1}, False))
    yield from (({str(n): n for n in range(most)}, True),)
    yield from (({str(n): n for n in range(most + 1)}, False),)
    for value, accepted in _integers(
        schema["additionalProperties"]["minimum"], schema["additionalProperties"]["maximum"]
    ):
        yield {"a": value}, accepted
