"""The documentation matches the code."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import msgspec
import pytest

from publish_support import frame_of
from smtpfeeds_aggregator.publish.formats import csv_file as csv_format
from smtpfeeds_aggregator.publish.formats import ndjson as ndjson_format
from smtpfeeds_aggregator.publish.manifest import manifest
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.cli import main as command
from smtpfeeds_sensor.settings import SensorSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_reference", ROOT / "docs" / "make_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_reference"] = module
    spec.loader.exec_module(module)
    return module


def test_reference_pages_match_the_code() -> None:
    """Runs in its own process, because click keeps changes that other tests make to commands."""
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_reference.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_every_setting_has_a_line_of_help() -> None:
    for cls in (SensorSettings, AggregatorSettings):
        for field in cls.__dataclass_fields__.values():
            assert field.metadata["about"].help, f"{cls.__name__}.{field.name}"


def test_every_column_and_field_of_the_published_files_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "feed-format.md").read_text(encoding="utf-8")
    frame = frame_of("smtpgreet")
    document = manifest(
        frame,
        [],
        not_written={},
        left_out={"smtpgreet": {}},
        classes={},
        origin=None,
        lists="none",
        base="generations/name/",
    )
    fields = {*csv_format.COLUMNS, *document}
    fields |= {field.encode_name for field in msgspec.structs.fields(ndjson_format.Row)}
    assert [name for name in sorted(fields) if not re.search(rf"\b{name}\b", page)] == []


def test_no_line_of_a_list_of_commands_is_shortened(reference: ModuleType) -> None:
    """At 80 columns every line of help is complete."""
    for path, leaf in reference._walk(("smtpfeeds",), command, click.Context(command)):
        if isinstance(leaf, click.Group):
            context = click.Context(leaf, info_name=" ".join(path), terminal_width=80)
            _, _, listed = leaf.get_help(context).partition("Commands:")
            assert "..." not in listed, f"{' '.join(path)}: {listed}"


def test_options_of_the_same_name_have_the_same_help(reference: ModuleType) -> None:
    helps: dict[str, set[str]] = {}
    for path, leaf in reference._walk(("smtpfeeds",), command, click.Context(command)):
        for option in leaf.params:
            if option.name in {"config", "folder"} and path[1] not in {"up", "demo"}:
                assert isinstance(option, click.Option)
                words = (option.help or "").replace("SENSOR", "…").replace("AGGREGATOR", "…")
                helps.setdefault(option.name, set()).add(words)
            elif isinstance(option, click.Option) and option.name == "form":
                assert option.help, path
    assert {name: len(words) for name, words in helps.items()} == {"config": 1, "folder": 1}


def test_help_of_query_lists_its_exit_codes() -> None:
    leaf = command.get_command(click.Context(command), "query")
    assert leaf is not None
    help_text = leaf.get_help(click.Context(leaf, terminal_width=100))
    assert "Exit codes: 0 found, 1 nothing found, 2 wrong use, 3 no answer" in help_text


def _links(page: Path) -> list[tuple[Path, str]]:
    """Yield the file or folder of each link of a page, and the heading in it."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return [
        ((page.parent / target).resolve() if target else page, heading)
        for target, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", text)
    ]


def _headings(page: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_between_pages_leads_to_a_file_and_a_heading() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [
        f"{page.relative_to(ROOT)}: {target} {heading}"
        for page in pages
        for target, heading in _links(page)
        if not target.exists() or (heading and heading not in _headings(target))
    ]
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.is_dir():
            waiting += page.glob("*.md")
        elif page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [target for target, _ in _links(page)]
    assert set((ROOT / "docs").rglob("*.md")) - reached == set()


def test_licences_name_every_locked_package_and_the_extras_that_install_it() -> None:
    page = (ROOT / "docs" / "reference" / "licences.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    head, *listed = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    for column, extra in list(enumerate(head))[2:]:
        lock = (ROOT / "deploy" / "requirements" / f"{extra}.txt").read_text(encoding="utf-8")
        locked = set(re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE))
        assert {row[0] for row in listed if row[column] == "x"} == locked, extra
    assert head[2:] == ["sensor", "sensor-tls", "aggregator", "single-host"]
    assert all(row[1] and row[1] != "see the package" for row in listed)
