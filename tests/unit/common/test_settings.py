"""Settings: file, then environment, then flag; a mistake is an error that names it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.settings import Loaded, load, located, read_secret, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Loaded):
    name: str = setting(help="a name")
    idle_timeout_s: float = setting(60.0, help="t", unit="seconds", minimum=0.1, maximum=600)
    workers: int = setting(1, help="w", minimum=1)
    listen: tuple[str, ...] = setting((), help="l")
    policy: str = setting("reject", help="p", choices=("reject", "drain"))
    verbose: bool = setting(default=False, help="v")
    folder: Path = setting(Path(), help="f")

    def __post_init__(self) -> None:
        """Refuse a value as a program does."""
        if self.name == "refused":
            raise SettingsError("name: 'refused' is refused")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "file"\nworkers = 2\nidle_timeout_s = 5\n')
    loaded = load(
        Example,
        program="example",
        file=file,
        environ={
            "SMTPFEEDS_EXAMPLE_NAME": "environment",
            "SMTPFEEDS_EXAMPLE_WORKERS": "3",
            "SMTPFEEDS_EXAMPLE_LISTEN": "127.0.0.1:25, [::1]:25",
            "SMTPFEEDS_EXAMPLE_VERBOSE": "yes",
            "OTHER": "x",
        },
        flags={"name": "flag", "policy": None},
    )
    assert loaded == Example(
        name="flag",
        workers=3,
        idle_timeout_s=5.0,
        listen=("127.0.0.1:25", "[::1]:25"),
        verbose=True,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nmae = "x"', r"settings.toml: nmae: unknown setting 'nmae'; did you mean 'name'\?"),
        ('name = "x"\nzzzzzz = 1', "it is not a setting"),
        ('name = "x"\npolling = 1', "it is not a setting"),  # not `policy`
        ('name = "x"\nidle_timeout = 1', "did you mean 'idle_timeout_s'"),
        ("name = 1", "name: 1 is not text"),
        ('name = "x"\nworkers = "2"', "workers: '2' is not a whole number"),
        ('name = "x"\nworkers = true', "workers: True is not a whole number"),
        ('name = "x"\nworkers = 0', "0 is too small; at least 1"),
        ('name = "x"\nidle_timeout_s = 601', "601.0 is too large; at most 600 seconds"),
        ('name = "x"\nlisten = "a:1"', "this needs a list"),
        ('name = "x"\nlisten = [1]', "listen: 1 is not text"),
        ('name = "x"\npolicy = "rejct"', "did you mean 'reject'"),
        ("name = ", "is not TOML"),
        ("", "the setting 'name' is missing"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(Example, program="example", file=write(tmp_path, text), environ={})


def test_error_about_a_value_names_where_the_value_is_from(tmp_path: Path) -> None:
    """This holds when the object is made, and for what is checked later."""
    file = write(tmp_path, 'name = "refused"\nlisten = ["x"]\nfolder = "/a"')
    with pytest.raises(SettingsError) as refused:
        load(Example, program="example", file=file, environ={})
    assert refused.value.message == f"{file}: name: 'refused' is refused"
    environ = {"SMTPFEEDS_EXAMPLE_LISTEN": "y"}
    loaded = load(Example, program="example", file=file, environ=environ, flags={"name": "x"})
    for message, located_message in (
        ("folder: cannot read", f"{file}: folder: cannot read"),
        ("listen: 'y' lacks a port", "SMTPFEEDS_EXAMPLE_LISTEN: 'y' lacks a port"),
        ("name: no", "--name: no"),
        ("workers: this value is the default", "workers: this value is the default"),
        ("cannot listen on y", "cannot listen on y"),
    ):
        # An error that has passed one such block passes others as it is.
        with pytest.raises(SettingsError) as caught, located(loaded), located(loaded):
            raise SettingsError(message)
        assert caught.value.message == located_message
    with pytest.raises(SettingsError, match="^name: no$"), located(Example(name="x")):
        raise SettingsError("name: no")


def test_an_unknown_variable_refuses_to_start() -> None:
    with pytest.raises(SettingsError, match="SMTPFEEDS_EXAMPLE_WORKRES: .*'workers'"):
        load(Example, program="example", environ={"SMTPFEEDS_EXAMPLE_WORKRES": "2"})


def test_another_programs_variables_are_its_own() -> None:
    loaded = load(
        Example,
        program="example",
        environ={"SMTPFEEDS_OTHER_WORKRES": "2", "SMTPFEEDS_EXAMPLE_NAME": "n"},
    )
    assert loaded.name == "n"


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings file .*nothing.toml"):
        load(Example, program="example", file=tmp_path / "nothing.toml", environ={})


def test_a_secret_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\nnote\n", encoding="utf-8")
    assert read_secret("", str(file), name="broker_password") == "s3cret"
    assert read_secret("given", str(file), name="broker_password") == "given"


def test_an_empty_secret_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch()
    with pytest.raises(SettingsError, match="is empty"):
        read_secret("", str(file), name="broker_password")


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400"])
def test_number_that_is_none_passes_no_range(tmp_path: Path, number: str) -> None:
    """NaN compares as neither less nor more than a bound."""
    with pytest.raises(SettingsError, match="not a finite number"):
        load(
            Example,
            program="example",
            environ={"SMTPFEEDS_EXAMPLE_NAME": "x", "SMTPFEEDS_EXAMPLE_IDLE_TIMEOUT_S": number},
        )
    if number != "1e400":
        with pytest.raises(SettingsError, match="not a finite number"):
            load(
                Example,
                program="example",
                file=write(tmp_path, f'name = "x"\nidle_timeout_s = {number}\n'),
                environ={},
            )


def test_whole_number_without_a_float_is_refused(tmp_path: Path) -> None:
    text = f'name = "x"\nidle_timeout_s = 1{"0" * 400}\n'
    with pytest.raises(SettingsError, match="not a finite number"):
        load(Example, program="example", file=write(tmp_path, text), environ={})


#: What Kubernetes sets in every container beside a service `smtpfeeds-example` and one
#: `smtpfeeds-example-metrics`; Docker's links have the same forms.
INJECTED = {
    "SMTPFEEDS_EXAMPLE_SERVICE_HOST": "10.96.3.7",
    "SMTPFEEDS_EXAMPLE_SERVICE_PORT": "25",
    "SMTPFEEDS_EXAMPLE_SERVICE_PORT_SMTP": "25",
    "SMTPFEEDS_EXAMPLE_PORT": "tcp://10.96.3.7:25",
    "SMTPFEEDS_EXAMPLE_PORT_25_TCP": "tcp://10.96.3.7:25",
    "SMTPFEEDS_EXAMPLE_PORT_25_TCP_PROTO": "tcp",
    "SMTPFEEDS_EXAMPLE_PORT_25_TCP_PORT": "25",
    "SMTPFEEDS_EXAMPLE_PORT_25_TCP_ADDR": "fd00::7",
    "SMTPFEEDS_EXAMPLE_METRICS_SERVICE_HOST": "10.96.3.8",
    "SMTPFEEDS_EXAMPLE_METRICS_PORT_9125_TCP_ADDR": "10.96.3.8",
}


def test_what_a_container_platform_injects_is_no_setting() -> None:
    environ = {"SMTPFEEDS_EXAMPLE_NAME": "x", **INJECTED}
    assert load(Example, program="example", environ=environ) == Example(name="x")


@pytest.mark.parametrize(
    ("name", "text"),
    [("METRICS_PORT", "9125"), ("SERVICE_HOST", "a name"), ("PORT", "25"), ("WORKER", "2")],
)
def test_slip_of_a_name_is_not_taken_for_an_injected_one(name: str, text: str) -> None:
    environ = {"SMTPFEEDS_EXAMPLE_NAME": "x", f"SMTPFEEDS_EXAMPLE_{name}": text}
    with pytest.raises(SettingsError, match="unknown setting"):
        load(Example, program="example", environ=environ)
