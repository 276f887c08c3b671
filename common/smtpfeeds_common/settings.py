"""Reads settings from a TOML file, the environment and flags into a frozen dataclass.

Flags override the environment, which overrides the file. Each program declares a frozen dataclass
whose fields come from ``setting``: a default, a unit, a line of help. A program does not start
with an unknown key; the message names the nearest known one. Secrets come from the environment or
from a file of their own, never from a flag. The reference page is made from the same fields.
"""

import dataclasses
import difflib
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from .errors import SettingsError
from .toml_file import read_toml

T = TypeVar("T")

#: Suffixes of variables that container platforms inject, with the form of their values.
_URL: Final = re.compile(r"(tcp|udp|sctp)://.*")
_PORT_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_ADDRESS: Final = re.compile(r"[0-9a-fA-F.:]+")
_INJECTED: Final = (
    (re.compile(r"_SERVICE_HOST$"), _ADDRESS),
    (re.compile(r"_SERVICE_PORT(_[A-Z0-9_]+)?$"), _PORT_NUMBER),
    (re.compile(r"_PORT(_[0-9]+_(TCP|UDP|SCTP))?$"), _URL),
    (re.compile(r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO$"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PORT$"), _PORT_NUMBER),
    (re.compile(r"_PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR$"), _ADDRESS),
)

#: A float holds whole numbers exactly up to this; much larger ones overflow it.
_MAX_EXACT: Final = 2**53

#: An unknown key at least this similar to a known one is suggested as a typing error.
_NEAR: Final = 0.65


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """The declaration of one setting besides its name, type and default."""

    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002 - click's word for the same thing
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare one field of a settings dataclass; without a default it is required."""
    about = About(help, unit, minimum, maximum, choices, secret)
    return dataclasses.field(default=default, repr=not secret, metadata={"about": about})


def about(field: "dataclasses.Field[Any]") -> About:
    """Return the declaration of a field."""
    declared = field.metadata.get("about")
    return declared if isinstance(declared, About) else About(help="")


class Loaded:
    """The base of a settings class, whose objects know where their values come from."""

    __slots__ = ("_places",)

    _places: dict[str, str]


@contextmanager
def located(settings: object) -> Iterator[None]:
    """Let errors in the block name where the setting's value comes from.

    Args:
        settings: what `load` returned. A copy by `replace` knows no places.
    """
    with _located(getattr(settings, "_places", {})):
        yield


@contextmanager
def _located(places: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    except SettingsError as exc:
        if exc.setting not in places:
            raise
        reason = exc.message.removeprefix(exc.setting)
        raise type(exc)(places[exc.setting] + reason) from exc


def load(
    cls: type[T],
    *,
    program: str,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> T:
    """Build a settings object.

    Args:
        program: part of the variables' names: ``SMTPFEEDS_<PROGRAM>_<SETTING>``.
        file: a TOML file with the settings at its top level.
        environ: the environment, by default ``os.environ``. Lists are comma-separated.
        flags: values from the command line; ``None`` means not given.

    Raises:
        SettingsError: the file cannot be read, or a setting is unknown, missing, of the wrong
            type or out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(typing.cast("Any", cls))}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, raw in read_toml(file).items() if file else ():
        where = f"{file}: {key}"
        _known(key, fields, where)
        values[key] = _convert(raw, hints[key], about(fields[key]), where)
        places[key] = where
    for key, name, raw in _from_environment(program, fields, hints, environ):
        values[key] = _convert(raw, hints[key], about(fields[key]), name)
        places[key] = name
    for key, raw in (flags or {}).items():
        if raw is not None:
            where = "--" + key.replace("_", "-")
            values[key] = _convert(raw, hints[key], about(fields[key]), where)
            places[key] = where
    _check_required(fields, values, program, file)
    with _located(places):
        settings = cls(**values)
    if isinstance(settings, Loaded):
        object.__setattr__(settings, "_places", places)  # frozen, and no setting
    return settings


def _from_environment(
    program: str,
    fields: "Mapping[str, dataclasses.Field[Any]]",
    hints: Mapping[str, Any],
    environ: Mapping[str, str] | None,
) -> Iterator[tuple[str, str, Any]]:
    """Yield the setting, the variable and the value of each variable that sets one."""
    prefix = f"SMTPFEEDS_{program.upper()}_"
    for name, text in (os.environ if environ is None else environ).items():
        if name.startswith(prefix):
            key = name.removeprefix(prefix).lower()
            if key not in fields and _is_injected(name, text):
                continue
            _known(key, fields, name)
            yield key, name, _from_text(text, hints[key], name)


def _is_injected(name: str, text: str) -> bool:
    """Whether a container platform sets this variable to describe a service.

    Kubernetes and Docker set variables such as SMTPFEEDS_SENSOR_PORT=tcp://192.0.2.7:25 in each
    container, for a service with the name ``smtpfeeds-sensor``. The value must have that form as
    well, so that a misspelled setting is still refused.
    """
    return any(form.search(name) and value.fullmatch(text) for form, value in _INJECTED)


def read_secret(value: str, file: str, *, name: str) -> str:
    """Return the secret itself, or the first line of the file that contains it.

    Raises:
        SettingsError: the file cannot be read or is empty.
    """
    if value or not file:
        return value
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise SettingsError(f"{name}: cannot read {file}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        # Python's message quotes octets of the secret.
        raise SettingsError(f"{name}: {file} is not text in UTF-8") from None
    if not lines or not lines[0].strip():
        raise SettingsError(f"{name}: {file} is empty; put the secret on its first line")
    return lines[0].strip()


def missing(name: str, purpose: str, *, program: str, file: Path | None = None) -> SettingsError:
    """Return the error of a command that needs a setting.

    Args:
        name: the setting.
        purpose: what it is, such as "the directory for the feeds".
        file: the settings file that lacks it, if one was read.
    """
    usual = f"a settings file (--config FILE; by default {program}.toml in /etc/smtpfeeds)"
    return SettingsError(
        f"the setting {name!r} is missing ({purpose}): give it in {file or usual} "
        f"or as SMTPFEEDS_{program.upper()}_{name.upper()}"
    )


def _known(key: str, fields: Mapping[str, Any], where: str) -> None:
    if key not in fields:
        near = difflib.get_close_matches(key, fields, n=1, cutoff=_NEAR)
        hint = f"did you mean {near[0]!r}?" if near else "it is not a setting"
        raise SettingsError(f"{where}: unknown setting {key!r}; {hint}")


def _check_required(
    fields: "Mapping[str, dataclasses.Field[Any]]",
    values: Mapping[str, Any],
    program: str,
    file: Path | None,
) -> None:
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise missing(name, about(field).help, program=program, file=file)


def _from_text(text: str, hint: Any, where: str) -> Any:
    """Convert the text of an environment variable to the type that TOML would give."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if hint is bool:
        if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
            raise SettingsError(f"{where}: {text!r} is not true or false")
        return text.lower() in {"true", "1", "yes"}
    for kind in (int, float):
        if hint is kind:
            try:
                return kind(text)
            except ValueError as exc:
                raise SettingsError(f"{where}: {text!r} is not a number") from exc
    if origin is dict:
        raise SettingsError(f"{where}: this setting can only be given in the settings file")
    return text


def _convert(value: Any, hint: Any, declared: About, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in {types.UnionType, typing.Union}:
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            shown = _shown(value, declared)
            raise SettingsError(f'{where}: this needs a list, such as ["…"], not {shown}')
        (inner, *_) = typing.get_args(hint)
        return tuple(_convert(item, inner, declared, where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise SettingsError(f"{where}: this needs a table, not {_shown(value, declared)}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= _MAX_EXACT else math.inf
    if hint is Path and isinstance(value, str):
        value = Path(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        kind = _KINDS.get(hint, hint.__name__)
        raise SettingsError(f"{where}: {_shown(value, declared)} is not {kind}")
    _check_range(value, declared, where)
    return value


def _shown(value: Any, declared: About) -> str:
    """Return a value for a message; only the type if it is secret."""
    return f"a value of type {type(value).__name__}" if declared.secret else repr(value)


_KINDS: Final = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
}


def _check_range(value: Any, declared: About, where: str) -> None:
    unit = f" {declared.unit}" if declared.unit else ""
    # The comparisons below accept NaN.
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where}: {value} is not a finite number")
    if declared.minimum is not None and value < declared.minimum:
        raise SettingsError(
            f"{where}: {value} is too small; at least {declared.minimum:,.15g}{unit}"
        )
    if declared.maximum is not None and value > declared.maximum:
        raise SettingsError(
            f"{where}: {value} is too large; at most {declared.maximum:,.15g}{unit}"
        )
    if declared.choices and value not in declared.choices:
        near = difflib.get_close_matches(str(value), declared.choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"{where}: {value!r} is not one of {', '.join(declared.choices)}{hint}")
