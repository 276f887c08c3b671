"""All that the schema accepts can be checked and folded; everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_support import KnowsAllOrigins, delivery_of
from ingest_support.edges import ROWS, edges, plain_batch
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.ingest.refusals import refused_rows_body
from smtpfeeds_common.errors import WireError

EDGES = list(edges())
NOT_TEXT = st.text(alphabet=st.characters(codec=None, categories=None), max_size=80)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | NOT_TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NOT_TEXT, inner))


def taken(*bodies: bytes) -> int:
    """Return how many of the bodies are batches; fold them together."""
    checked = []
    for body in bodies:
        try:
            checked.append(check(delivery_of(body)))
        except WireError:
            continue
    fold(checked, KnowsAllOrigins(), 0)
    for batch in checked:
        json.loads(refused_rows_body(batch))
    return len(checked)


def test_value_out_of_range_refuses_its_row_or_its_batch() -> None:
    for edge in EDGES:
        whole = "." in edge.field or edge.accepted or edge.value == [None]
        assert taken(edge.body) == whole, str(edge)


@settings(deadline=None)
@given(st.lists(st.sampled_from(EDGES), min_size=2, max_size=5))
def test_limits_of_several_fields_at_once(chosen: Sequence[Any]) -> None:
    batch = plain_batch()
    for edge in chosen:
        name, _, field = edge.field.partition(".")
        if not field:
            batch[name] = edge.value
        elif isinstance(batch[name], list) and batch[name] and isinstance(batch[name][0], dict):
            batch[name][0][field] = edge.value
    taken(json.dumps(batch).encode(), json.dumps(plain_batch()).encode())


@settings(deadline=None)
@given(st.sampled_from([*plain_batch(), *ROWS]), VALUES)
def test_any_json_value_is_accepted_or_refused(name: str, value: Any) -> None:
    taken(json.dumps(plain_batch() | {name: value}).encode())
    if name in ROWS:
        taken(json.dumps(plain_batch() | {name: [value, *plain_batch()[name]]}).encode())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_body_with_changed_octets_is_accepted_or_refused(data: st.DataObject) -> None:
    body = bytearray(json.dumps(plain_batch()).encode())
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    taken(bytes(body), bytes(body[: data.draw(st.integers(0, len(body)))]))
