"""Files of secrets are read again when they change, without a signal."""

from __future__ import annotations

from pathlib import Path

from smtpfeeds_sensor.process.configuration import LOOK_EVERY_S, Configuration
from smtpfeeds_sensor.settings import SensorSettings


def test_changed_content_and_changed_permissions_are_read_once(tmp_path: Path) -> None:
    """A new file may be unreadable until its owner or mode is set, which keeps its time."""
    secret = tmp_path / "password"
    secret.write_text("old\n")
    secret.chmod(0o600)
    settings = SensorSettings(
        name="s1",
        tls="off",
        broker=("amqps://broker.example/smtpfeeds",),
        broker_password_file=str(secret),
    )
    now_s = 0.0
    configuration = Configuration(settings, lambda: settings, monotonic=lambda: now_s)

    def look() -> bool:
        nonlocal now_s
        now_s += LOOK_EVERY_S
        return configuration.read_changed_files()

    assert not look()
    secret.write_text("another\n")
    assert not configuration.read_changed_files(), "too early to look"
    assert (look(), look()) == (True, False)
    secret.chmod(0o640)
    assert (look(), look()) == (True, False)
    secret.unlink()
    assert (look(), look()) == (False, False)
