"""The options of a method are the keywords of its plan function."""

import functools
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from sskd.errors import UserError, unknown
from sskd.methods.plan import Method
from sskd.methods.stages import Scaled

_GIVEN = ("pair", "epochs", "optim")

INTRODUCED: dict[str, dict[str, Any]] = {"hsakd": {"nesterov": False}, "one": {"ramp_up": 0}}
"""By method: what an option means in a run that was begun before the option existed, where that is not its default."""


def options_of(method: Method) -> dict[str, Any]:
    """Name and default of each option that has a default."""
    return {name: p.default for name, p in _options(method).items() if p.default is not p.empty}


def complete(method: Method, options: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The given options and the defaults of the others, as plain values beside a student's `epochs`.

    Defaults that JSON cannot hold (functions, modules) are left out.
    """
    defaults = {
        name: default.at(epochs) if isinstance(default, Scaled) else default
        for name, default in options_of(method).items()
    }
    return {name: value for name, value in defaults.items() if _is_plain(value)} | dict(options)


def as_begun(name: str, method: Method, options: Mapping[str, Any], begun: Mapping[str, Any]) -> dict[str, Any]:
    """The given options, and of those left out that scale with the schedule what a run was begun with.

    `begun`: the options that the run's config holds. Its version may have had another rule, or none.
    """
    scaling = {option for option, default in options_of(method).items() if isinstance(default, Scaled)}
    meant = {**INTRODUCED.get(name, {}), **begun}
    return {option: value for option, value in meant.items() if option in scaling} | dict(options)


def check_options(method: Method, name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the method does not have, that are of another kind, or that are missing.

    Options without a type hint that can be understood may have any plain value.

    Raises:
        UserError: names the option, what it takes, and the nearest known names.
    """
    known = _options(method)
    for option, value in options.items():
        if option not in known and not _takes_any(method):
            if not known:
                raise UserError(f"The method {name} has no options; got {option!r}.")
            raise unknown(f"option of {name}", option, known)
        if option in _GIVEN:
            raise UserError(f"{option} is no option of the method {name}: every method is given it. Leave it out.")
        hint = _hint(method, known[option]) if option in known else Any
        if not _fits(value, hint):
            raise UserError(f"The option {option} of {name} takes {_said(hint)}; got {value!r}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"The option {option} of {name} takes a finite number; got {value!r}.")
        if not _is_plain(value):
            raise UserError(
                f"The option {option} of {name} takes what a run's config.json can hold (numbers, text, true or false, "
                f"lists, names with values); got {value!r:.80}."
            )
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f"The method {name} needs its option {option}: --options.{option} VALUE.")


def check_signature(method: Any, name: str) -> None:
    """Refuse what cannot be called as a method is.

    Raises:
        UserError: says how a method is called.
    """
    form = "a method is called as plan(pair, epochs=..., optim=..., **options)"
    try:
        signature = inspect.signature(method)
    except (ValueError, TypeError) as error:
        raise UserError(f"The method {name} has no signature that could be read; {form}.") from error
    try:
        signature.bind_partial(None, epochs=1, optim=None)
    except TypeError as error:
        raise UserError(f"The method {name} takes {signature}: {error}; {form}.") from error


def _options(method: Method) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by keyword, but for what every method is given; the pair is the first."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(method).parameters.values())
    pair = parameters[:1] if parameters and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY else []
    return {p.name: p for p in parameters if p.kind in named and p not in pair and p.name not in _GIVEN}


def _takes_any(method: Method) -> bool:
    """Whether the method has a `**` parameter."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(method).parameters.values())


def _hint(method: Method, parameter: inspect.Parameter) -> Any:
    """What a parameter is annotated with; Any where that is nothing, or names what is not there when it is read."""
    if parameter.annotation is parameter.empty:
        return Any
    alone: Any = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(alone, globalns=getattr(function_of(method), "__globals__", {}))[parameter.name]
    except Exception:  # whatever a user's text for an annotation comes to
        return Any


def function_of(method: Any) -> Callable[..., Any]:
    """The function that is run where a method is called: of a partial, a decorated function, a class, an object."""
    while isinstance(method, functools.partial):
        method = method.func
    if inspect.isclass(method):
        method = method.__init__
    elif not inspect.isroutine(method):
        method = type(method).__call__
    found: Callable[..., Any] = inspect.unwrap(method)
    return found


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value and give it back."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a name", type(None): "null"}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a command line or a YAML file is what the annotation says; lists stand for tuples.

    Annotations that say something else than plain values, lists and choices are not checked.
    """
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in parts
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts if part is not Scaled)
    if kind is tuple and Ellipsis not in parts:
        return isinstance(value, list | tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if kind in (tuple, list):
        return isinstance(value, list | tuple) and all(_fits(one, parts[0]) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(hint, type) and hint in _SAID:
        return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    return True


def _said(hint: Any) -> str:
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if kind in (Union, UnionType):
        return " or ".join(_said(part) for part in parts if part is not Scaled)
    if kind is tuple and Ellipsis not in parts:
        return f"a list of {len(parts)}: {', '.join(map(_said, parts))}"
    return f"a list, each {_said(parts[0])}" if kind in (tuple, list) else _SAID.get(hint, str(hint))
