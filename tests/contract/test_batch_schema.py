"""The published schema of a batch means the same to a JavaScript engine and to the aggregator."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import quickjs

from ingest_support.edges import Edge, edges, plain_batch, published_schema
from smtpfeeds_common.errors import WireError
from smtpfeeds_common.wire import decode

#: The largest number of which JavaScript knows each neighbour.
_EXACT = 2**53


def javascript_accepts(batches: list[dict[str, Any]]) -> list[bool]:
    context = quickjs.Context()
    context.eval(Path(__file__).with_name("batch_schema.js").read_text())
    request = json.dumps({"schema": published_schema(), "batches": batches})
    verdicts: list[bool] = json.loads(context.get("verdicts")(request))
    return verdicts


def aggregator_accepts(edge: Edge) -> bool:
    try:
        return not decode(edge.body).refused
    except WireError:
        return False


def is_exact(value: object) -> bool:
    numbers = value.values() if isinstance(value, dict) else [value]
    return not any(isinstance(number, int | float) and abs(number) > _EXACT for number in numbers)


def test_aggregator_accepts_exactly_what_the_schema_accepts() -> None:
    wrong = [str(edge) for edge in edges() if aggregator_accepts(edge) != edge.accepted]
    assert wrong == []


def test_javascript_accepts_what_the_aggregator_accepts() -> None:
    """One value is a name followed by a line feed, which Python's `$` accepts."""
    exact_edges = [edge for edge in edges() if is_exact(edge.value)]
    verdicts = javascript_accepts([edge.batch for edge in exact_edges])
    differing = zip(exact_edges, verdicts, strict=True)
    assert [str(edge) for edge, accepted in differing if accepted != edge.accepted] == []
    assert any(edge.value == "smtpdata\n" for edge in exact_edges)


def test_python_reads_the_patterns_as_javascript_does() -> None:
    """Python readers search for the pattern, as JSON Schema requires: `$` is not always the end."""
    patterns = {
        name: field["pattern"]
        for name, field in published_schema()["$defs"]["Batch"]["properties"].items()
        if "pattern" in field
    }
    texts = [edge for edge in edges() if edge.field in patterns and isinstance(edge.value, str)]
    wrong = [
        str(edge)
        for edge in texts
        if (re.search(patterns[edge.field], str(edge.value)) is not None) != edge.accepted
    ]
    assert (set(patterns), wrong) == ({"sensor", "spool"}, [])


def test_batch_without_a_required_field_is_refused() -> None:
    whole = plain_batch()
    required = published_schema()["$defs"]["Batch"]["required"]
    lacking = [{k: v for k, v in whole.items() if k != name} for name in required]
    assert javascript_accepts([whole, *lacking]) == [True] + [False] * len(required)
