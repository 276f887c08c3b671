"""Chooses the AS names of a new table: fetched ones, a local file's, or those in use.

A new table is used even if only older names are available.
"""

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import OriginError
from smtpfeeds_common.logs import fields

from ...datasets.directory import Generation
from ..generation import NAMES
from .steps import Steps

logger: Final = logging.getLogger(__name__)

_MAX_NAMES_BYTES: Final = 100_000_000


def fetch_names(steps: Steps, current: Generation | None) -> str:
    """Take the first usable list of the settings, or else local names; return their source."""
    for url in steps.settings.origin_names_urls:
        target = steps.incoming / "names"
        try:
            steps.progress(f"fetching {url}")
            steps.fetch(url, target, max_bytes=_MAX_NAMES_BYTES)
            return _take(steps, target, url, steps.settings.origin_min_names)
        except OriginError as exc:
            if steps.is_stopped():
                raise
            logger.warning("list of AS names refused", extra=fields(reason=exc.message))
            steps.progress(f"AS names refused: {exc.message}")
        finally:
            for stale in steps.incoming.glob("names*"):
                stale.unlink(missing_ok=True)
    return local_names(steps, None, current)


def local_names(steps: Steps, names: Path | None, current: Generation | None) -> str:
    """Take names from the given file, the settings' file, or the generation in use."""
    path = names or (Path(steps.settings.as_names) if steps.settings.as_names else None)
    if path is not None:
        return _take(steps, path, str(path), 0)
    out = steps.partial / NAMES
    if current is not None:
        with contextlib.suppress(OriginError):
            shutil.copyfile(current.check(NAMES), out)
            return str(current.manifest["names_source"])
    steps.child("no_names", steps.settings.origin_load_timeout_s, out=str(out))
    return "none"


def _take(steps: Steps, path: Path, source: str, least: int) -> str:
    result = steps.child(
        "names",
        steps.settings.origin_load_timeout_s,
        source=str(path),
        out=str(steps.partial / NAMES),
    )
    if result["names"] < least:
        raise OriginError(f"{source} has {result['names']} AS names, fewer than {least}: not used")
    return source
