"""Named queries, read from the .sql files beside this module.

A query begins with ``-- name: its_name``; the comment lines that follow say
what it is for. SQL is loaded, never built from strings.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Final, LiteralString, cast

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def queries(file: str) -> dict[str, LiteralString]:
    """The queries of one file, such as ``ingest.sql``, by name."""
    text = files(__name__).joinpath(file).read_text(encoding="utf-8")
    parts = _NAME.split(text)
    # Our own files, and nothing else, are what psycopg's type of a trusted text stands for.
    return {
        name: cast("LiteralString", sql.strip())
        for name, sql in zip(parts[1::2], parts[2::2], strict=True)
    }
