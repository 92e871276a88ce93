"""Checks values that come from files (JSON, YAML, metadata) against type hints, where they are read."""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from sskd.errors import UserError, unknown

T = TypeVar("T")


def convert(value: Any, kind: type[T], where: str, advice: str = "") -> T:
    """Return `value` as what the type `kind` says, or raise an error that names the place in the file.

    Dataclasses are made of mappings, tuples of lists; integers pass for floats, and nothing else is converted.
    Keys that a dataclass does not have are refused. What a dataclass's own `__post_init__` raises is passed on.

    Args:
        value: plain values, as JSON or YAML give them.
        kind: a type, a dataclass or a generic such as `dict[str, int]`, `list[float | None]`.
        where: what the value is and where it stands, to begin the message: "runs/a/config.json", "--reading"; empty
            for arguments, whose names say enough.
        advice: a last sentence that says what to do.

    Raises:
        UserError: where it stands, what was expected, what came.

    Example:
        >>> convert({"a": [1, 2]}, dict[str, tuple[int, ...]], "config.json")
        {'a': (1, 2)}
    """
    _refuse_unknown_keys(value, kind, where)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        expected, _, path = str(error).replace("`key` in `$", "`$").partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        place = where + path if path.startswith("[") else ", ".join(filter(None, (where, path)))
        choices = _choices(kind, path) if expected.startswith("Invalid enum value") else ""
        what = choices or _plain(expected).partition(", got ")[0]
        what = f"names must be text: {what}" if "`key` in" in str(error) else what
        raise UserError(f"{place}: {what}; got {_shown(_at(value, path))}.{advice and ' '}{advice}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply to be read.{advice and ' '}{advice}") from error


def _plain(expected: str) -> str:
    """A validator's message with the names of Python's and JSON's types as they are commonly said."""
    if missing := re.fullmatch(r"Object missing required field `(.*)`", expected):
        return f"{missing[1]} is missing"
    names = {
        "object": "names with values",
        "array": "a list",
        "str": "text",
        "null": "nothing (null)",
        "int": "a whole number",
    }
    names |= {"float": "a number", "bool": "true or false"}
    text = re.sub(
        r"`([^`]*)`", lambda found: " or ".join(names.get(one, one) for one in found[1].split(" | ")), expected
    )
    return text[:1].lower() + text[1:]


def _at(value: Any, path: str) -> Any:
    """The value at a path such as optim.lr or stages[0].name; the nearest one around it where it is not there."""
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        try:
            value = value[int(index)] if index.isdigit() else value[key]
        except (KeyError, IndexError, TypeError):
            break
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _choices(kind: Any, path: str) -> str:
    """The values that a `Literal` at a path such as a.b[0] allows, itself where that is empty; else nothing."""
    for name in re.findall(r"[^.\[\]]+|\[(?:\d+|\.\.\.)\]", path):
        parts = (kind, *typing.get_args(kind))
        if name.startswith("["):
            inner = [
                typing.get_args(one)[:2] for one in parts if typing.get_origin(one) in (list, tuple, dict, Mapping)
            ]
            kind = next((two[-1] if two[-1] is not Ellipsis else two[0] for two in inner), None)
        else:
            meant = next((one for one in parts if dataclasses.is_dataclass(one)), None)
            kind = typing.get_type_hints(meant).get(name) if meant else None
    literals = [one for one in (kind, *typing.get_args(kind)) if typing.get_origin(one) is typing.Literal]
    values = [str(value) for one in literals for value in typing.get_args(one)]
    return f"expected one of {', '.join(values)}" if values else ""


def _refuse_unknown_keys(value: Any, kind: Any, where: str) -> None:
    """Refuse keys that a dataclass does not have, at any depth; what is of another shape is left to the validator."""
    parts = typing.get_args(kind)
    meant = next((one for one in (kind, *parts) if dataclasses.is_dataclass(one)), None)
    if meant is None:
        return
    if typing.get_origin(kind) in (list, tuple):
        for i, one in enumerate(value if isinstance(value, list | tuple) else ()):
            _refuse_unknown_keys(one, meant, f"{where}[{i}]")
    elif typing.get_origin(kind) in (dict, Mapping):  # its keys are data
        for key, one in value.items() if isinstance(value, Mapping) else ():
            _refuse_unknown_keys(one, meant, f"{where}, {key}")
    elif isinstance(value, Mapping):
        hints = typing.get_type_hints(meant)
        for key, inner in value.items():
            if key not in hints:
                raise unknown(f"key of {where}", str(key), hints)
            _refuse_unknown_keys(inner, hints[key], f"{where}, {key}" if where else key)
