"""`smtpfeeds sensor left-behind` and `status`, as an operator calls them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smtpfeeds_common.errors import SettingsError, SmtpfeedsError
from smtpfeeds_common.spool import Event, Held, Sealer, Spool, read_status
from smtpfeeds_common.spool.opening import quarantine
from smtpfeeds_sensor.cli import sensor
from smtpfeeds_sensor.delivery.other_name import settings_of
from smtpfeeds_sensor.settings import SensorSettings
from spool_support import at

NOW = 1_795_000_000_000


class Site:
    """A sensor's folder and settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "sensor.toml"
        self.config.write_text(f'name = "s"\nspool_dir = "{folder}"\n')

    def hear(self, name: str, *numbers: int, sensor: str = "s") -> Path:
        path = self.folder / f"{name}.spool"
        with contextlib.closing(Spool(path, sensor=sensor)) as spool:
            for number in numbers:
                spool.fold(Event(0, number.to_bytes(4), NOW))
            spool.commit()
        return path

    def hold(self, path: Path, held: Held) -> None:
        with contextlib.closing(Sealer(path)) as sealer:
            sealed = sealer.seal(at(NOW))
            assert sealed is not None
            sealer.hold(*sealed[:2], held, "a reason")

    def call(self, *words: str) -> Result:
        return CliRunner().invoke(sensor, [*words, "--config", str(self.config)])

    def left_behind(self, *words: str) -> Result:
        return self.call("left-behind", *words)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_nothing_left_behind_is_exit_code_1(site: Site) -> None:
    site.hear("s", 1)
    assert site.left_behind("list").exit_code == 1
    assert "left behind" not in site.call("status").stdout


def test_list_and_status_show_all_kinds(site: Site) -> None:
    damaged = quarantine(site.hear("s", 1, 2))
    assert damaged is not None
    site.hear("old", 3, sensor="old")
    site.hold(site.hear("s", 4), Held.TOO_LARGE)
    shown = site.left_behind("list", "--format", "tsv")
    assert shown.exit_code == 0
    assert [line.split("\t")[:6] for line in shown.stdout.splitlines()[1:]] == [
        ["s.spool", "held: too large", "s", "NA", "1", "NA"],
        [damaged.name, "quarantined", "s", "2", "0", "2"],
        ["old.spool", "other sensor", "old", "1", "0", "1"],
    ]
    listed = json.loads(site.left_behind("list", "--json").stdout)
    assert [each["file"] for each in listed] == ["s.spool", damaged.name, "old.spool"]
    status = site.call("status").stdout
    assert "2 files are not delivered" in status
    assert "1 batches are held" in status


def test_held_batches_are_delivered_or_dropped(site: Site) -> None:
    path = site.hear("s", 1, 2)
    site.hold(path, Held.TOO_LARGE)
    assert "1 batches will be sent again" in site.left_behind("deliver", "s.spool").stdout
    assert read_status(path).batches_waiting == 1
    site.hear("s", 3)
    site.hold(path, Held.REFUSED)
    dropped = site.left_behind("drop", "s.spool", "--yes")
    assert dropped.stdout == "dropped 1 batches with 1 events\n"
    assert read_status(path).batches_waiting == 1


def test_quarantined_file_is_delivered(site: Site) -> None:
    damaged = quarantine(site.hear("s", 1, 2))
    path = site.hear("s", 2, 3)
    assert damaged is not None
    delivered = site.left_behind("deliver", damaged.name)
    assert delivered.stdout == "2 events are in s.spool now: 2 addresses, 0 batches\n"
    status = read_status(path)
    assert (status.rows["smtpgreet"], status.batches_waiting) == (2, 1)


def test_spool_of_another_name_is_converted_or_dropped_once_that_is_confirmed(site: Site) -> None:
    path = site.hear("s", 1)
    other = site.hear("old", 2, 3, sensor="old")
    assert site.left_behind("drop", "old.spool").exit_code == 1
    assert other.exists()
    converted = site.left_behind("convert", "old.spool")
    assert "2 events are in s.spool now" in converted.stdout
    status = read_status(path)
    assert (status.rows["smtpgreet"], status.batches_waiting) == (1, 1)
    other = site.hear("old", 4, sensor="old")
    assert site.left_behind("drop", "old.spool", "--yes").exit_code == 0
    assert not other.exists()


@pytest.mark.parametrize("verb", ["deliver", "convert", "drop"])
def test_name_that_is_not_left_behind_is_an_error(site: Site, verb: str) -> None:
    site.hear("s", 1)
    words = [verb, "nothing", *(["--yes"] if verb == "drop" else [])]
    assert isinstance(site.left_behind(*words).exception, SmtpfeedsError)


def test_own_file_cannot_be_converted(site: Site) -> None:
    damaged = quarantine(site.hear("s", 1, 2))
    site.hear("s", 1)
    assert damaged is not None
    assert isinstance(site.left_behind("convert", damaged.name).exception, SettingsError)
    assert damaged.exists()


def test_other_account_takes_its_password_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the old account\n")
    settings = SensorSettings(
        name="s",
        broker=("amqps://s:own@one.example:5671/v", "amqp://two.example"),
        broker_password="own",
    )
    other = settings_of(settings, "old", secret)
    assert other.broker == ("amqps://old@one.example:5671/v", "amqp://old@two.example:5672")
    assert (other.name, other.secret()) == ("old", "of the old account")
    with pytest.raises(SettingsError, match="--password-file"):
        settings_of(settings, "old", None)
    with pytest.raises(SettingsError, match="no broker"):
        settings_of(SensorSettings(name="s"), "old", secret)


def test_status_shows_deliveries_failures_and_clients(site: Site) -> None:
    path = site.hear("s", 1)
    with contextlib.closing(Spool(path, sensor="s")) as spool:
        spool.note_state(at(NOW), version="9", counters={}, client_ms=NOW - 60_000)
    with contextlib.closing(Sealer(path)) as sealer:
        sealed = sealer.seal(at(NOW))
        assert sealed is not None
        sealer.note_failure("the broker refuses", at(NOW))
        sealer.confirm([sealed[:2]], at(NOW + 1000))
    shown = site.call("status").stdout
    assert "last client      2026-11-18T" in shown
    assert "last delivery    2026-11-18T" in shown
    assert "the broker refuses" in shown
    facts = json.loads(site.call("status", "--json").stdout)
    assert (facts["delivered_ms"], facts["failed_ms"]) == (NOW + 1000, NOW)
    assert (facts["failure"], facts["client_ms"]) == ("the broker refuses", NOW - 60_000)


def test_status_shows_a_clock_in_doubt(site: Site) -> None:
    path = site.folder / "s.spool"
    with contextlib.closing(Spool(path, sensor="s", boot="b")) as spool:
        spool.fold(Event(0, bytes(4), 5, dated=False))
        spool.commit()
        doubt = "the host's clock shows an impossible time, 1970-01-01T00:00:09Z"
        spool.note_state(at(NOW)._replace(utc_ms=None), version="9", counters={}, doubt=doubt)
    shown = site.call("status").stdout
    assert doubt in shown
    assert "1 addresses, until the clock is trusted" in shown
