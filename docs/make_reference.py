"""Write the reference pages from the code: settings, commands, message.

    python docs/make_reference.py            write docs/reference/
    python docs/make_reference.py --check    exit 1 if a page does not match the code

Do not edit a page by hand; a test runs the check.
"""

import dataclasses
import json
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from smtpfeeds_aggregator.classification.explanations import CLASSES, REASONS
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common import wire
from smtpfeeds_common.answers import ANSWER
from smtpfeeds_common.behaviours import MEANINGS, Flags
from smtpfeeds_common.cli import main as command
from smtpfeeds_common.columns import json_schema
from smtpfeeds_common.settings import about
from smtpfeeds_sensor.settings import SensorSettings

FOLDER: Final = Path(__file__).parent / "reference"
_NOTE: Final = "<!-- Made from the code by docs/make_reference.py: do not edit. -->\n"


def settings_page(title: str, program: str, cls: type) -> str:
    """Return a table of settings: type and unit, default, bounds and help."""
    variable = f"SMTPFEEDS_{program.upper()}_"
    lines = [
        _NOTE,
        f"# {title}\n",
        (
            "A TOML file with these keys at its top level (`--config FILE`), then the environment "
            f"(`{variable}` and the key in capitals; lists are comma-separated), then flags: the "
            "later wins. A program with an unknown key does not start, and names the nearest "
            "known key.\n"
        ),
        "| setting | type | default | what it does |",
        "|---|---|---|---|",
    ]
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        setting = about(field)
        kind = _type(hints[field.name]) + (f", {setting.unit}" if setting.unit else "")
        text = setting.help + "".join(f"; {extra}" for extra in _bounds(setting))
        lines.append(
            f"| `{field.name}` | {kind} | {_default(field)} | {_cell(text)} |",
        )
    return "\n".join(lines) + "\n"


def _bounds(setting: Any) -> Iterator[str]:
    if setting.choices:
        yield "one of " + ", ".join(f"`{choice}`" for choice in setting.choices)
    if setting.minimum is not None:
        yield f"at least {setting.minimum:,.15g}"
    if setting.maximum is not None:
        yield f"at most {setting.maximum:,.15g}"


def _type(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return f"list of {_type(typing.get_args(hint)[0])}"
    if origin is dict:
        return "table"
    names = {str: "text", int: "whole number", float: "number", bool: "true/false", Path: "path"}
    return names.get(hint, str(hint))


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "*required*"
    if value in ("", (), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def commands_page() -> str:
    """Every command with its help, as the terminal shows it at 100 columns."""
    parts = [
        _NOTE,
        "# Commands\n",
        (
            "Exit codes: 0 done or found; 1 nothing found, or the answer is no; 2 wrong use, which "
            "includes the settings; 3 it could not be done: the database or broker is unavailable, "
            "the schema is missing, a file or a package cannot be used. With 1 to 3 a message on "
            "stderr says why.\n\n"
            "[answers.schema.json](answers.schema.json) has the fields of each answer in JSON.\n"
        ),
    ]
    for path, found in _walk(("smtpfeeds",), command, click.Context(command)):
        context = click.Context(
            found,
            info_name=" ".join(path),
            max_content_width=100,
            terminal_width=100,
            # As the command itself has them: every command below inherits them.
            help_option_names=list(command.context_settings["help_option_names"]),
        )
        parts.append(f"## `{' '.join(path)}`\n\n```text\n{found.get_help(context)}\n```\n")
    return "\n".join(parts)


def _walk(
    path: tuple[str, ...], found: click.Command, context: click.Context
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, found
    if isinstance(found, click.Group):
        for name in found.list_commands(context):
            child = found.get_command(context, name)
            assert child is not None
            yield from _walk((*path, name), child, click.Context(child, parent=context))


def message_page() -> str:
    """Return the page of the message: each struct, with one row for each field."""
    schemas = msgspec.json.schema(wire.Batch)["$defs"]
    parts = [
        _NOTE,
        "# The message: a batch of observations\n",
        (
            f"JSON, schema version {wire.VERSION}, at most {wire.MAX_BODY_BYTES // 2**20} MiB; "
            f"sealed with at most {wire.MAX_ROWS:,} rows, read with at most "
            f"{wire.MAX_ROWS_READ:,} in a list. Times (`…_ms`) are whole milliseconds since "
            "1970-01-01 UTC. Readers ignore unknown fields. "
            "[batch.schema.json](batch.schema.json) is the same as JSON Schema.\n"
        ),
    ]
    for name in ("Batch", "Observation", "HourCount", "PrefixOverflow"):
        schema = schemas[name]
        parts += [
            f"## {name}\n",
            schema["description"] + "\n",
            "| field | type | what it is |",
            "|---|---|---|",
        ]
        required = set(schema["required"])
        for field, description in schema["properties"].items():
            optional = "" if field in required else ", optional"
            parts.append(
                f"| `{field}` | {_json_type(description)}{optional} "
                f"| {_cell(description['description'])} |"
            )
        parts.append("")
    parts += [
        "## Behaviours\n",
        "The bits of `flags`. Readers ignore unknown bits.\n",
        "| bit | name | set when the client |",
        "|---|---|---|",
    ]
    for flag in Flags:
        parts.append(
            f"| {flag.bit_length() - 1} | `{flag.name.lower()}` | {_cell(MEANINGS[flag])} |"
        )
    return "\n".join(parts) + "\n"


def _json_type(field: dict[str, Any]) -> str:
    kind = "string" if "enum" in field else field.get("type", "")
    if kind == "array":
        return "list of " + field["items"]["$ref"].rpartition("/")[2]
    return {"object": "object of integers"}.get(kind, kind)


def schema_file() -> str:
    """Return the schema for other tools."""
    schema = msgspec.json.encode(msgspec.json.schema(wire.Batch))
    return msgspec.json.format(schema, indent=2).decode() + "\n"


_CLASSES_INTRO: Final = """\
Every entry of a feed has a class, the codes that decided it, and, if a list of scanners contains the
address, an actor. An address has one class, the same in both feeds. The class follows from what the
address did in this epoch week and the previous one (weeks that begin on Thursday, 00:00 UTC), from how
many sensors saw it in the past seven days, and from lists. The first class in this table whose rule
matches is given.

A class describes; it is not a verdict. It never hides a row.
"""

_CLASSES_LIMITS: Final = """\
## What a class cannot tell

- `mail-server` says what a client looks like. A spammer who uses a real mail server sends the same
  octets, and gets this class if only one sensor saw the address.
- `survey` depends on lists that others maintain. An unlisted survey is a `probe`, and an address that a
  survey no longer uses may still be on a list: entries past their age no longer decide, and stay as
  `listed-old:…`.
- A relay tester learns from the class `relay-test` that a sensor saw its test.
- Addresses change owners. Behaviours count until the end of the next epoch week and no longer, so for
  at most two weeks a visit of the previous owner can decide a class.
- `query` at the database judges each row when you ask, with the lists of the last publication. So an
  address that came after the publication has its class and actor at once. Lists that were refreshed
  since then count from the next publication on, and before the first publication nothing is listed.
- Sensors do not decode base64 and quoted-printable content, so they miss a relay test that hides its
  mark there.
- Only sensors that delay their banner measure `early_talker`; without `banner_delayed` it is unknown
  whether the client waited.

## How to use a class

| to | look for |
|---|---|
| leave research out of an alert | `survey`, with the actor |
| spare a stray mail server | `mail-server`, and ask its owner |
| assess an address that logs in at your mail server | `password-guess` |
| assess an address that offers you mail | `delivery`, `relay-test`; with other evidence only |
"""


def classes_page() -> str:
    """Return the page of classes and reasons."""
    parts = [
        _NOTE,
        "# Classes and reasons\n",
        _CLASSES_INTRO,
        "| class | what it means |",
        "|---|---|",
        *(f"| `{cls}` | {meaning} |" for cls, meaning in CLASSES.items()),
        "",
        _CLASSES_LIMITS,
        "## Reasons\n",
        "The codes of the column `why`. After `listed`, `listed-old` and `mailer` come a colon and",
        "the name of the actor or of the list.\n",
        "| code | what it says |",
        "|---|---|",
        *(f"| `{code}` | {_cell(meaning)} |" for code, meaning in REASONS.items()),
    ]
    return "\n".join(parts) + "\n"


def answers_schema() -> str:
    """JSON Schema of one record of each command's answer, by the command and what it is of."""
    answers: dict[str, Any] = {}
    for path, found in _walk(("smtpfeeds",), command, click.Context(command)):
        for of, columns in getattr(found.callback, ANSWER, {}).items():
            answers[" ".join(path) + (f": {of}" if of else "")] = json_schema(columns)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One record of each command's answer, with --format json or ndjson",
        "$defs": answers,
    }
    return json.dumps(whole, indent=1) + "\n"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "answers.schema.json": answers_schema,
    "classes.md": classes_page,
    "sensor-settings.md": lambda: settings_page("Settings of the sensor", "sensor", SensorSettings),
    "aggregator-settings.md": lambda: settings_page(
        "Settings of the aggregator", "aggregator", AggregatorSettings
    ),
    "commands.md": commands_page,
    "message.md": message_page,
    "batch.schema.json": schema_file,
}


def stale() -> list[str]:
    """Return the pages that do not match the code."""

    def differs(name: str) -> bool:
        file = FOLDER / name
        return not file.exists() or file.read_text(encoding="utf-8") != PAGES[name]()

    return [name for name in PAGES if differs(name)]


def main() -> int:
    """Write or check."""
    if "--check" in sys.argv[1:]:
        pages = stale()
        if pages:
            print(f"do not match the code: {', '.join(pages)}; run: make docs", file=sys.stderr)  # noqa: T201
        return bool(pages)
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
