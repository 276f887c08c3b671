"""The columns of a list that a command prints: names, kinds, and the form of a value.

A command declares its columns once. The table, CSV, JSON, ``--fields`` and the JSON schema in
the reference are made from them.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, Final, Literal, NamedTuple

from .errors import SettingsError
from .printable import printable
from .times import iso_utc

Kind = Literal["text", "texts", "integer", "number", "boolean", "time", "date", "object"]
Record = dict[str, Any]

#: An unknown value in CSV and TSV, as in the feed files.
NOT_KNOWN: Final = "NA"
#: A spreadsheet reads text that starts with one of these as a formula.
FORMULA: Final = ("=", "+", "-", "@")
_JSON_TYPES: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "string"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "object": {"type": "object"},
}


class Column(NamedTuple):
    """One column of a list."""

    #: Its name in JSON, in CSV and for ``--fields``.
    name: str
    kind: Kind = "text"
    #: Its description in the reference.
    help: str = ""
    #: Its head in a table, if that is not the name.
    title: str = ""
    #: A narrow terminal leaves out the columns of the largest rank first; rank 0 always stays.
    rank: int = 0
    #: The smallest width to which a table may shorten it, with an ellipsis; 0: never shortened.
    least: int = 0
    #: Whether to shorten it in the middle, as for an address, whose two ends matter.
    middle: bool = False
    #: The colour of a value in a terminal: red, yellow, green, or none.
    colour: Callable[[Any], str | None] | None = None

    @property
    def head(self) -> str:
        """Its head in a table; the head of a time says UTC."""
        title = self.title or self.name.replace("_", " ")
        return f"{title} UTC" if self.kind == "time" else title

    @property
    def is_number(self) -> bool:
        """Whether its cells are aligned to the right."""
        return self.kind in {"integer", "number"}


def plain(value: Any) -> Any:
    """Return a value in its JSON form."""
    if isinstance(value, datetime):
        return iso_utc(value)
    return value.isoformat() if isinstance(value, date) else value


def csv_field(value: Any) -> str:
    """Return a value in its CSV form: NA if unknown; a formula is quoted with an apostrophe."""
    if value is None:
        return NOT_KNOWN
    if type(value) is int:
        return str(value)
    text = value if type(value) is str else _text(value)
    return "'" + text if text.startswith(FORMULA) and isinstance(value, str) else text


def tsv_field(value: Any) -> str:
    """Return a value in its TSV form; tab, line feed, carriage return and backslash are escaped."""
    text = _text(value).replace("\\", "\\\\").replace("\t", "\\t")
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _text(value: Any) -> str:
    # The usual kinds first, for speed: ten thousand rows have a hundred thousand values.
    if value is None:
        return NOT_KNOWN
    if type(value) is int or type(value) is str:
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={_text(part)}" for key, part in value.items())
    return str(plain(value))


def cell(value: Any) -> str:
    """Return a value in its table form, without control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return iso_utc(value).replace("T", " ").removesuffix("Z")
    return printable(_text(value))


def select(
    columns: Sequence[Column], names: str, *, option: str = "--fields"
) -> tuple[Column, ...]:
    """Return the columns that an option names, in its order.

    Raises:
        SettingsError: the option names no column, or one that does not exist.
    """
    by_name = {column.name.lower(): column for column in columns}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name.lower() not in by_name:
            from difflib import get_close_matches

            near = get_close_matches(name.lower(), by_name, n=1)
            hint = f"Did you mean {by_name[near[0]].name}? " if near else ""
            raise SettingsError(
                f"{option}: there is no field {name!r}. {hint}The fields are: "
                + ", ".join(column.name for column in columns)
            )
    if not wanted:
        raise SettingsError(
            f"{option}: name at least one of " + ", ".join(column.name for column in columns)
        )
    return tuple(dict.fromkeys(by_name[name.lower()] for name in wanted))


def json_schema(columns: Sequence[Column]) -> dict[str, Any]:
    """Return the JSON Schema of one record; every field is present, null if unknown."""
    properties = {}
    for column in columns:
        one = dict(_JSON_TYPES[column.kind])
        one["type"] = [one["type"], "null"]
        properties[column.name] = one | ({"description": column.help} if column.help else {})
    return {
        "type": "object",
        "properties": properties,
        "required": [column.name for column in columns],
        "additionalProperties": False,
    }
