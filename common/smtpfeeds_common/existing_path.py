"""The type of arguments and options that name an existing file or folder.

click says "does not exist" of a file in a folder that the user may not enter, such as a settings
file in /etc/smtpfeeds: then an operator looks for a file that is there.
"""

from pathlib import Path
from typing import Any

import click


class ExistingPath(click.Path):
    """A file or folder that exists; it becomes a ``Path``."""

    def __init__(
        self, *, file_okay: bool = True, dir_okay: bool = True, allow_dash: bool = False
    ) -> None:
        """Accept files, folders or both; with ``allow_dash`` also the standard input."""
        super().__init__(
            exists=True,
            file_okay=file_okay,
            dir_okay=dir_okay,
            allow_dash=allow_dash,
            path_type=Path,
        )

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; fail with the reason if it cannot be used."""
        try:
            Path(value).stat()
        except PermissionError:
            self.fail(f"this user may not enter the folder of {str(value)!r}", param, ctx)
        except (OSError, ValueError):
            pass  # click names the reason
        return super().convert(value, param, ctx)
