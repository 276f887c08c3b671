"""No sender, recipient or content is kept in the spool, in a batch or in a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensor_support import running
from servers.processes import wait_until

#: What a client sends about itself and others; none of these words may be stored.
SAID = (b"greeting-name", b"from-whom", b"to-whom", b"c2VjcmV0LXVzZXI", b"whose-box", b"the-text")
SESSION = (
    b"EHLO greeting-name.example.net\r\nAUTH PLAIN c2VjcmV0LXVzZXI=\r\n"
    b"MAIL FROM:<from-whom@example.net>\r\nRCPT TO:<to-whom@example.org>\r\n"
    b"VRFY whose-box\r\nDATA\r\n"
)
BODY = b"Subject: the-text\r\n\r\nthe-text\r\n.\r\n"


@pytest.mark.parametrize("policy", ["reject", "drain"])
def test_no_argument_and_no_content_is_found_in_any_file(tmp_path: Path, policy: str) -> None:
    """The test reads every file that the sensor wrote, with the log at level debug."""
    with running(tmp_path, data_policy=policy, log_level="debug") as sensor:
        with sensor.connect() as client:
            assert client.reply() == 220
            client.send(SESSION)
            codes = [client.reply() for _ in range(6)]
            assert codes == [250, 502, 250, 250, 252, 354 if policy == "drain" else 554]
            client.send(BODY if policy == "drain" else b"unknown the-text\r\n")
            client.reply()
        both = {("smtpgreet", "127.0.0.1"), ("smtpdata", "127.0.0.1")}
        wait_until(lambda: set(sensor.rows()) == both, what="both events are stored")
        assert _found(tmp_path) == []
        assert sensor.stop() == 0
    assert _found(tmp_path) == []


def _found(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".spool" for path in files)
    return [
        f"{word.decode()} in {path.name}"
        for path in files
        for word in SAID
        if word.lower() in path.read_bytes().lower()
    ]
