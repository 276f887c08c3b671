"""What the steps of a refresh share: settings, folders, child processes, fetching."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from smtpfeeds_common import __version__

from ...settings import AggregatorSettings
from ..generation import CHILD

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Steps:
    """The context of one refresh."""

    settings: AggregatorSettings
    #: The folder for fetched files; partial ones stay for the next attempt.
    incoming: Path
    #: The folder that becomes the generation.
    partial: Path
    now: datetime
    force: bool
    stop: threading.Event | None
    progress: Progress

    def is_stopped(self) -> bool:
        """Whether the program is stopping."""
        return self.stop is not None and self.stop.is_set()

    def child(self, command: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Run a step in a child process."""
        return CHILD.run(
            command,
            arguments,
            timeout_s=timeout_s,
            pass_fds=(arguments["fd"],) if "fd" in arguments else (),
            stop=self.stop,
            progress=self.progress,
        )

    def fetch(self, url: str, target: Path, **limits: Any) -> dict[str, Any]:
        """Fetch one file in a child process."""
        settings = self.settings
        return self.child(
            "fetch",
            settings.origin_fetch_timeout_s,
            url=url,
            target=str(target),
            user_agent=settings.origin_user_agent or f"smtpfeeds/{__version__} (origin refresh)",
            stall_s=settings.origin_stall_timeout_s,
            allow_http=settings.origin_allow_http,
            http_setting="origin_allow_http",
            **limits,
        )
