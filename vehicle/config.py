"""One TOML file for one frozen dataclass: read it, check every value, write it back.

A configuration is a frozen dataclass whose fields carry their own limits (`ranged`). Nested dataclasses are TOML
tables, tuples are arrays. Nothing is guessed: an unknown key, a wrong type, NaN, infinity or a value out of range is a
`ConfigError` that names the file, the dotted key, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

from calibration import strict_json
from vehicle.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_RULES = "hotlap.rules"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What `ranged` remembers of a field: inclusive limits, allowed values, and one line of documentation."""

    low: float | None = None
    high: float | None = None
    choices: tuple[object, ...] | None = None
    doc: str = ""

    def allowed(self) -> str:
        """The allowed values in words, or an empty string when anything of the right type is allowed."""
        if self.choices is not None:
            return "one of " + ", ".join(repr(c) for c in self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low} to {self.high}"
        if self.low is not None:
            return f"at least {self.low}"
        return f"at most {self.high}" if self.high is not None else ""


def ranged(
    default: T,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[object] | None = None,
    doc: str = "",
) -> T:
    """A dataclass field with a default and checks; in a tuple field they hold for every element.

    Args:
        default: the value of an absent key.
        low, high: inclusive limits of a number.
        choices: the allowed values.
        doc: one line; `to_toml` writes it as a comment above the key.
    """
    rules = Rules(low, high, None if choices is None else tuple(choices), " ".join(doc.split()))
    # Declared as returning T, so that a type checker compares the default with the field's annotation.
    field: T = dataclasses.field(default=default, metadata={_RULES: rules})
    return field


def load_toml(path: str | os.PathLike[str], cls: type[T]) -> T:
    """Read a TOML file into the frozen dataclass `cls`; absent keys keep their defaults.

    Raises:
        ConfigError: no such file, broken TOML (with its line), or anything that `from_mapping` refuses.
    """
    return from_mapping(read_toml(path, hint="check the path after --config"), cls, where=os.fspath(path))


def read_toml(path: str | os.PathLike[str], *, hint: str) -> dict[str, Any]:
    """Read a TOML file; ``hint`` is the next step where it cannot be read.

    Raises:
        ConfigError: no such file, not UTF-8, or broken TOML (with its line).
    """
    where = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror or error}", next_step=hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error
    return _toml(text, where)


def parse_toml(text: str, cls: type[T], *, where: str) -> T:
    """TOML text as the frozen dataclass `cls`; absent keys keep their defaults.

    Raises:
        ConfigError: as `load_toml`, naming `where`.
    """
    return from_mapping(_toml(text, where), cls, where=where)


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError and says line and column
        last_line = text.rstrip().count("\n") + 1
        reason = str(error).replace("at end of document", f"at the end, line {last_line}")
        raise ConfigError(
            f"{where} is not valid TOML: {reason}",
            cause="text needs double quotes, arrays square brackets, and a key stands only once in its table",
            next_step=f"edit that line of {where}",
        ) from error


def parse_json(text: str | bytes, *, where: str) -> Any:
    """Parse JSON strictly: UTF-8, no NaN or infinity, no key twice in an object.

    Raises:
        ConfigError: naming `where`, and the line for a syntax error.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return strict_json.loads(decoded)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid JSON: {error}") from error


def from_mapping(mapping: Mapping[str, Any], cls: type[T], *, where: str, complete: bool = False) -> T:
    """Build the dataclass `cls` from nested mappings, checking every key and value.

    Args:
        mapping: keys are field names; nested dataclasses are mappings, tuples are lists.
        where: the file (or other source) that errors name.
        complete: refuse absent keys even where the field has a default, as an interchange format needs.

    Raises:
        ConfigError: unknown or missing key, wrong type, NaN or infinity, out of range, or a ValueError from
            `cls.__post_init__`.
    """
    return cast(T, _build(mapping, cls, where, "", complete))


def check(instance: Any, *, where: str) -> None:
    """Check a dataclass that was made in code (for instance in its ``__post_init__``) as if it came from a file.

    Raises:
        ConfigError: as `from_mapping`.
    """
    _check(instance, where, "")


def _check(instance: Any, where: str, prefix: str) -> None:
    hints = typing.get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        key = f"{prefix}{field.name}"
        _coerce(getattr(instance, field.name), hints[field.name], _rules(field), where, key, False)


def _build(mapping: object, cls: type[Any], where: str, prefix: str, complete: bool) -> object:
    if not isinstance(mapping, Mapping):
        raise _wrong_type(mapping, f"a table of {cls.__name__}", where, prefix.rstrip(".") or "(top level)")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in mapping:
        if key not in fields:
            raise _unknown_key(str(key), prefix, list(fields), where)
    hints = typing.get_type_hints(cls)
    values: dict[str, object] = {}
    for name, field in fields.items():
        key = f"{prefix}{name}"
        if name in mapping:
            values[name] = _coerce(mapping[name], hints[name], _rules(field), where, key, complete)
        elif complete or (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING):
            raise ConfigError(f"{where}: {key} is missing", next_step=f"add {key} to {where}")
    try:
        return cls(**values)
    except ConfigError as error:
        if error.what.startswith(where):
            raise
        raise ConfigError(f"{where}: {prefix}{error.what}", cause=error.cause, next_step=error.next_step) from error
    except ValueError as error:
        place = f"{where}: [{prefix[:-1]}]" if prefix else where
        raise ConfigError(f"{place}: {error}") from error


def _rules(field: dataclasses.Field[Any]) -> Rules:
    return cast(Rules, field.metadata.get(_RULES, Rules()))


def _coerce(value: object, hint: Any, rules: Rules, where: str, key: str, complete: bool) -> object:
    """The value as the annotation `hint` says, checked; tuples and dataclasses recursively."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, cast(type, hint)):
            _check(value, where, f"{key}.")
            return value
        return _build(value, cast("type[Any]", hint), where, f"{key}.", complete)
    if origin in (Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        if value is None and len(inner) < len(arguments):
            return None
        if len(inner) == 1:
            return _coerce(value, inner[0], rules, where, key, complete)
    elif origin is Literal:
        return _scalar(value, type(arguments[0]), dataclasses.replace(rules, choices=arguments), where, key)
    elif origin is tuple:
        return _tuple(value, arguments, rules, where, key, complete)
    elif origin in (dict, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
            raise _wrong_type(value, "a table", where, key)
        return {k: _coerce(v, arguments[1], rules, where, f"{key}.{k}", complete) for k, v in value.items()}
    elif hint in (bool, int, float, str):
        return _scalar(value, hint, rules, where, key)
    elif hint is Any:
        return value
    raise TypeError(f"{key}: hotlap's configuration knows no field of type {hint!r}")


def _tuple(value: object, arguments: tuple[Any, ...], rules: Rules, where: str, key: str, complete: bool) -> object:
    if not isinstance(value, (list, tuple)):
        raise _wrong_type(value, "an array", where, key)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        hints: tuple[Any, ...] = (arguments[0],) * len(value)
    else:
        hints = arguments
        if len(value) != len(hints):
            raise ConfigError(f"{where}: {key} = {_shown(value)} has {len(value)} values, it needs {len(hints)}")
    pairs = zip(value, hints, strict=True)
    return tuple(_coerce(v, h, rules, where, f"{key}[{i}]", complete) for i, (v, h) in enumerate(pairs))


def _scalar(value: object, kind: type, rules: Rules, where: str, key: str) -> object:
    # bool is a subclass of int in Python, but "epochs = true" is a mistake, not the number 1.
    ok = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value, ok = float(value), True
        except OverflowError:
            raise ConfigError(f"{where}: {key} is an integer too large for a number with a point") from None
    allowed = rules.allowed()
    note = f" (allowed: {allowed})" if allowed else ""
    if not ok:
        raise _wrong_type(value, _KIND_NAMES[kind] + note, where, key)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {key} = {value!r} is not a finite number{note}")
    if rules.choices is not None:
        if value not in rules.choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in rules.choices], n=1, cutoff=0.6)
            step = f"did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: {key} = {_shown(value)} is not allowed{note}", next_step=step)
    elif isinstance(value, (int, float)):
        if (rules.low is not None and value < rules.low) or (rules.high is not None and value > rules.high):
            step = f"set {key} to a value in {allowed}"
            raise ConfigError(f"{where}: {key} = {_shown(value)} is out of range{note}", next_step=step)
    return value


_KIND_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}
_GOT_NAMES: dict[type, str] = {**_KIND_NAMES, float: "a number with a point", str: "text", type(None): "null"}


def _wrong_type(value: object, wanted: str, where: str, key: str) -> ConfigError:
    if isinstance(value, Mapping):
        got = "a table"
    elif isinstance(value, (list, tuple)):
        got = "an array"
    else:
        got = _GOT_NAMES.get(type(value), f"a {type(value).__name__}")
    return ConfigError(f"{where}: {key} = {_shown(value)} is {got}, it must be {wanted}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_key(key: str, prefix: str, known: list[str], where: str) -> ConfigError:
    step = f"known here: {', '.join(known)}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)  # the nearest, however far it is
    if near:
        step = f"the nearest known key is {prefix}{near[0]}; {step}"
    return ConfigError(
        f"{where}: unknown key {prefix}{key}",
        cause="a misspelled key, or one of another table or version",
        next_step=step,
    )


def to_toml(instance: Any) -> str:
    """Write a dataclass as TOML that `load_toml` reads back to an equal one; ``None`` is an absent key.

    Documentation and limits given to `ranged` become comments.

    Raises:
        ConfigError: a value is NaN, infinite or otherwise has no TOML form here.
    """
    return "\n".join(_table_lines(instance, "")).strip() + "\n"


def _table_lines(instance: Any, prefix: str) -> list[str]:
    lines: list[str] = []
    tables: list[str] = []
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        key = _key(field.name)
        if dataclasses.is_dataclass(value):
            tables += ["", f"[{prefix}{key}]", *_table_lines(value, f"{prefix}{key}.")]
        elif value is None:
            if field.default is not None:
                raise ConfigError(f"{prefix}{key} = None cannot be written as TOML: an absent key means the default")
        else:
            rules = _rules(field)
            note = rules.doc + (f" ({rules.allowed()})" if rules.allowed() else "")
            lines += [f"# {note.strip()}"] if note else []
            lines.append(f"{key} = {_toml_value(value, f'{prefix}{key}')}")
    return lines + tables


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml_value(name, name)


def _toml_value(value: object, key: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are a subset of TOML's, except that TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return repr(float(value))
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(v, f"{key}[{i}]") for i, v in enumerate(value)) + "]"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: v for f in dataclasses.fields(value) if (v := getattr(value, f.name)) is not None}
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(k))} = {_toml_value(v, f'{key}.{k}')}" for k, v in value.items()) + "}"
    raise ConfigError(f"{key} = {value!r} cannot be written as TOML")
