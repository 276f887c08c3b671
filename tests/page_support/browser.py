"""Headless Chromium, driven by the DevTools protocol over two pipes; no driver and no port.

One browser serves many pages. Each page has a profile without a history, a size, a colour scheme,
and a list of what the browser reports about it: console messages, errors and refused requests.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from servers.processes import ServerFailedError, bound_to_parent

Scheme = Literal["light", "dark"]

#: Chromium without requests of its own.
_ARGUMENTS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-pipe", "about:blank"),
)
#: Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
_WITH_PIPES: Final = ("bash", "-c", 'exec "${@:3}" 3<&"$1" 4>&"$2"', "chromium")
#: The events of the protocol that report a message.
_MESSAGES: Final = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
_READ_OCTETS: Final = 1 << 20
_END_S: Final = 30.0
#: The height of each window, in CSS pixels.
_HEIGHT: Final = 900


class Browser:
    """A running Chromium; the kernel kills it when this process ends."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        pipes = (str(commands), str(answers))
        self._program = subprocess.Popen(
            bound_to_parent(
                [*_WITH_PIPES, *pipes, "chromium", f"--user-data-dir={profile}", *_ARGUMENTS]
            ),
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._numbers = itertools.count(1)
        self._unread = b""
        self._waiting: deque[dict[str, Any]] = deque()
        self._pages: dict[str, BrowserPage] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._commands)  # Chromium ends when it has no one to serve
        try:
            self._program.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        os.close(self._answers)

    @contextlib.contextmanager
    def page(
        self,
        path: Path,
        fragment: str = "",
        *,
        width: int = 1000,
        scheme: Scheme = "light",
    ) -> Iterator[BrowserPage]:
        """Open a file in a page of its own, and wait until it has loaded."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = BrowserPage(self, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        try:
            page.prepare(width, scheme)
            page.open(f"{path.as_uri()}{fragment}")
            yield page
        finally:
            del self._pages[attached["sessionId"]]
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def call(self, method: str, session: str | None = None, **given: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result.

        Raises:
            ServerFailedError: the browser refused the call, or has ended.
        """
        number = next(self._numbers)
        call = {"id": number, "method": method, "params": given}
        if session is not None:
            call["sessionId"] = session
        unsent = memoryview(json.dumps(call).encode() + b"\0")
        while unsent:
            unsent = unsent[os.write(self._commands, unsent) :]
        while True:
            message = self._read()
            if message.get("id") == number:
                if "error" in message:
                    raise ServerFailedError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._report(message)

    def read_report(self) -> None:
        """Read one report of the browser, and give it to its page."""
        self._report(self._read())

    def _report(self, message: dict[str, Any]) -> None:
        page = self._pages.get(message.get("sessionId", ""))
        if page is None:
            return
        if message["method"] in _MESSAGES:
            page.messages.append(json.dumps(message["params"]))
        elif message["method"] == "Page.lifecycleEvent" and message["params"]["name"] == "load":
            page.loaded.add(message["params"]["loaderId"])

    def _read(self) -> dict[str, Any]:
        while not self._waiting:
            octets = os.read(self._answers, _READ_OCTETS)
            if not octets:
                raise ServerFailedError(f"chromium ended: {self._program.wait()}")
            *whole, self._unread = (self._unread + octets).split(b"\0")
            self._waiting += map(json.loads, whole)
        return self._waiting.popleft()


@dataclass
class BrowserPage:
    """A page that is open in a browser."""

    browser: Browser
    session: str
    #: What the browser reported: console messages, errors and refused requests.
    messages: list[str] = field(default_factory=list)
    #: The navigations that have ended.
    loaded: set[str] = field(default_factory=set)

    def prepare(self, width: int, scheme: Scheme) -> None:
        """Set the width in CSS pixels and the colour scheme, and ask for reports."""
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Page.setLifecycleEventsEnabled", enabled=True)
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=_HEIGHT,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def open(self, address: str) -> None:
        """Load an address, and wait for its load event."""
        navigation = self._call("Page.navigate", url=address)["loaderId"]
        while navigation not in self.loaded:
            self.browser.read_report()

    def run(self, script: str) -> Any:
        """Run a script in the page, and return the value that it or its promise has.

        Raises:
            ServerFailedError: the script threw an error.
        """
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise ServerFailedError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def elements(self) -> str:
        """Return the page's elements as HTML."""
        return str(self.run("document.documentElement.outerHTML"))

    def _call(self, method: str, **given: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **given)
