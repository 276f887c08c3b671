"""Named queries, read from the .sql files beside this module.

A query begins with ``-- name: its_name``; the comment lines that follow say what it
is for. Text that several queries of a file share begins with ``-- part: its_name``;
``{{its_name}}`` includes it, and ``{{its_name flags}}`` also replaces ``$bits`` with the
word. SQL is loaded, never built from values.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final, LiteralString, cast

_BEGIN: Final = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)
_PLACE: Final = re.compile(r"{{(\w+)(?: (\w+))?}}")


@cache
def queries(file: str) -> dict[str, LiteralString]:
    """Return the queries of one file, such as ``ingest.sql``, by name."""
    text = files(__name__).joinpath(file).read_text(encoding="utf-8")
    kinds, names, texts = (_BEGIN.split(text)[at::3] for at in (1, 2, 3))
    parts: dict[str, str] = {}
    texts_by_name: dict[str, LiteralString] = {}
    for kind, name, sql in zip(kinds, names, texts, strict=True):
        if kind == "part":
            parts[name] = sql.strip()
        else:
            # LiteralString is psycopg's type for trusted text, such as these files.
            texts_by_name[name] = cast("LiteralString", _whole(sql, parts))
    return texts_by_name


def _whole(sql: str, parts: dict[str, str]) -> Any:
    """Return a query with its parts included."""
    return _PLACE.sub(lambda at: parts[at[1]].replace("$bits", at[2] or ""), sql.strip())
