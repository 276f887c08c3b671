"""The libraries of STIX and MISP write the same as our templates."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymisp
import pytest
import stix2
import stix2validator

from publish_support import NOW, Seen, frame_of, hostile_rows, rows_of
from smtpfeeds_aggregator.publish.documents import write_documents
from smtpfeeds_aggregator.publish.misp_feed import MispFeed
from smtpfeeds_aggregator.publish.stopping import go_on
from smtpfeeds_aggregator.publish.withdrawn import Withdrawn
from smtpfeeds_common.addresses import normalise_address

SEEN = [*hostile_rows(), Seen("192.0.2.250", 64496, hits=2_000_000_000)]
CLEAR = "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("stix")
    frame = frame_of("smtpgreet")
    write_documents(folder, rows_of("smtpgreet", SEEN), frame, ("stix",), go_on)
    return (folder / "smtpgreet.stix.json").read_text(encoding="ascii")


def test_stix2_writes_the_same_objects_as_the_templates(bundle: str) -> None:
    ours = {each["id"]: each for each in json.loads(bundle)["objects"]}
    parsed: Any = stix2.parse(bundle)
    theirs = {each["id"]: json.loads(each.serialize()) for each in parsed.objects}
    assert theirs == ours
    observations = [each for each in ours.values() if each["type"] == "observed-data"]
    assert len(observations) == len(SEEN)
    for observed in observations:
        by_library = _made_by_the_library(ours, observed)
        assert {each["id"]: json.loads(each.serialize()) for each in by_library} == {
            each["id"]: ours[each["id"]] for each in by_library
        }


def _made_by_the_library(ours: dict[str, Any], observed: dict[str, Any]) -> list[Any]:
    """Create the same objects with the library, which computes each deterministic identifier."""
    refs = [ours[ref] for ref in observed["object_refs"]]
    origins = [
        stix2.AutonomousSystem(
            number=each["number"],
            **({"name": each["name"]} if "name" in each else {}),
            object_marking_refs=[CLEAR],
        )
        for each in refs[1:]
    ]
    kind = stix2.IPv6Address if ":" in refs[0]["value"] else stix2.IPv4Address
    address = kind(
        value=refs[0]["value"],
        object_marking_refs=[CLEAR],
        **({"belongs_to_refs": [each["id"] for each in origins]} if origins else {}),
    )
    day = datetime(2026, 11, 23, tzinfo=UTC)
    last = datetime(2026, 11, 23, 10, 58, 30, tzinfo=UTC)
    row = next(seen for seen in SEEN if refs[0]["value"] == normalise_address(seen.ip))
    observation = stix2.ObservedData(
        id=observed["id"],
        created_by_ref=observed["created_by_ref"],
        created=day,
        modified=last,
        first_observed=NOW - timedelta(days=1),
        last_observed=last,
        number_observed=min(max(row.hits, 1), 999_999_999),
        object_refs=[address["id"], *(each["id"] for each in origins)],
        labels=["smtpgreet", observed["labels"][1]],
        object_marking_refs=[CLEAR],
    )
    return [address, *origins, observation]


def test_stix_validator_accepts_the_bundle(bundle: str) -> None:
    """The test accepts only its warning about identifiers that are not UUIDv4: ours are
    deterministic.
    """
    options = stix2validator.ValidationOptions(version="2.1")
    verdict: Any = stix2validator.validate_string(bundle, options)
    assert verdict.is_valid
    assert [str(warning) for warning in verdict.warnings if "{103}" not in str(warning)] == []
    strict = stix2validator.ValidationOptions(version="2.1", strict=True, disabled="uuid-check")
    verdict = stix2validator.validate_string(bundle, strict)
    assert verdict.is_valid


def test_pymisp_reads_and_writes_each_event_unchanged(tmp_path: Path) -> None:
    rows = [*SEEN, Seen("192.0.2.251", 64500, last_seen=NOW - timedelta(days=2))]
    withdrawn = Withdrawn(tmp_path, ())
    feed = MispFeed(tmp_path, None, 'Zürich "Watch"', NOW, days=30, withdrawn=withdrawn)
    feed.add(rows_of("smtpgreet", rows), go_on)
    feed.write()
    manifest = json.loads((tmp_path / "misp" / "manifest.json").read_text())
    assert len(manifest) == 2
    hashes = (tmp_path / "misp" / "hashes.csv").read_text().splitlines()
    known = set()
    for uuid, listed in manifest.items():
        path = tmp_path / "misp" / f"{uuid}.json"
        event = pymisp.MISPEvent(strict_validation=True)
        event.load_file(path)
        theirs = json.loads(json.dumps(event.to_feed(with_meta=True)))
        known |= {f"{each},{uuid}" for each in theirs["Event"].pop("_hashes")}
        assert theirs["Event"].pop("_manifest") == {uuid: listed}
        assert theirs == json.loads(path.read_text())
        assert not any(each.to_ids for each in event.attributes)
    assert known == set(hashes)
    assert sum(len(json.loads((tmp_path / "misp" / f"{uuid}.json").read_text())["Event"]
                   ["Attribute"]) for uuid in manifest) == len(rows)  # fmt: skip
