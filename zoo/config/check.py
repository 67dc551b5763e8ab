"""Values against annotations: one checker for dataclasses and for the signatures of components.

Nothing is converted silently except what cannot lose anything: an integer where a float is asked
for, a list where a tuple is.
"""

import contextlib
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from zoo.config.errors import ConfigError, as_cli_text, did_you_mean, one_line

_NAMES = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Any: "anything",
}

Build = Callable[[dict[str, Any], Any, str], Any]
"""What to do with a mapping that has `_target_`, given it, the annotation and the full key."""


class Mismatch(Exception):
    """A value does not fit its annotation; `checked` turns it into a sentence.

    Attributes:
        key: full key of the value, which may lie inside the one that was checked.
        value: the value.
        allowed: what is allowed, in words.
    """

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        super().__init__(f"{key}={as_cli_text(value)}: must be {allowed}")
        self.key, self.value, self.allowed = key, value, allowed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


def describe(annotation: Any) -> str:
    """The annotation in words: "an integer or null"."""
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(a) for a in arguments if _configurable(a)))
    if origin is Literal:
        return " or ".join(str(a) for a in arguments)
    plain = origin or annotation
    if plain in (list, tuple, Sequence):
        inner = [a for a in arguments if a is not ...]
        if plain is tuple and ... not in arguments and inner:
            return f"a list of {len(inner)} ({', '.join(describe(a) for a in inner)})"
        return f"a list (each {describe(inner[0])})" if inner else "a list"
    if plain in (dict, Mapping):
        return "a mapping"
    return f"a {getattr(annotation, '__name__', annotation)} (a mapping with _target_)"


def _configurable(annotation: Any) -> bool:
    """Whether a config file can hold such a value: torch's `float | Tensor` means float here."""
    return getattr(annotation, "__module__", "") != "torch"


def conform(value: Any, annotation: Any, build: Build | None = None, key: str = "") -> Any:
    """Returns the value in the annotated form.

    Args:
        value: what the configuration holds.
        annotation: what the parameter is declared as.
        build: what to do with a mapping that has `_target_`.
        key: full key of the value.

    Raises:
        Mismatch: the value, or one inside it, does not fit.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    plain = origin or annotation
    if isinstance(value, dict) and "_target_" in value and build is not None:
        return build(value, annotation, key)
    if isinstance(value, float) and not math.isfinite(value):
        raise Mismatch(key, value, "a finite number")
    if origin in (Union, types.UnionType):
        return _conform_to_one(value, annotation, build, key)
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in arguments):
            return value
        near = did_you_mean(value, map(str, arguments)) if isinstance(value, str) else ""
        hint = f"; {near}" if near.startswith("did") else ""
        raise Mismatch(key, value, describe(annotation) + hint)
    if isinstance(value, list | tuple):
        keys = [f"{key}[{i}]" for i in range(len(value))]
        if plain is tuple:
            inner = [arguments[0]] * len(value) if ... in arguments else list(arguments)
            inner = inner or [Any] * len(value)
            if len(inner) == len(value):
                fitted = zip(value, inner, keys, strict=True)
                return tuple(conform(v, a, build, k) for v, a, k in fitted)
        elif plain in (list, Sequence):
            element = arguments[0] if arguments else Any
            return [conform(v, element, build, k) for v, k in zip(value, keys, strict=True)]
    elif isinstance(value, dict):
        if plain in (dict, Mapping):
            kind, element = arguments or (Any, Any)
            return {
                conform(k, kind, None, key): conform(v, element, build, f"{key}.{k}")
                for k, v in value.items()
            }
    elif annotation is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    elif annotation in _NAMES and type(value) is annotation:
        return value
    raise Mismatch(key, value, describe(annotation))


def _conform_to_one(value: Any, annotation: Any, build: Build | None, key: str) -> Any:
    """Returns the value in the form of the first member of a union that it fits."""
    inside: Mismatch | None = None
    for option in filter(_configurable, get_args(annotation)):
        try:
            return conform(value, option, build, key)
        except Mismatch as mismatch:
            if mismatch.key != key:
                inside = mismatch
    if inside is not None:
        raise inside
    raise Mismatch(key, value, describe(annotation))


def settings(kind: type, values: Any, key: str = "") -> Any:
    """Builds a dataclass from plain values.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    prefix = f"{key}." if key else ""
    if not isinstance(values, dict):
        raise ConfigError(f"{key}={as_cli_text(values)}: must be a mapping of its settings")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(
                f"{prefix}{name}={as_cli_text(value)}: there is no such setting; "
                f"{did_you_mean(str(name), fields, prefix)}"
            )
    hints = typing.get_type_hints(kind)
    built = {
        name: settings(hints[name], value, prefix + name)
        if dataclasses.is_dataclass(hints[name])
        else checked(value, hints[name], prefix + name)
        for name, value in values.items()
    }
    try:
        return kind(**built)
    except ValueError as error:
        raise ConfigError(f"{prefix}{one_line(error)}") from error


def checked(value: Any, annotation: Any, key: str, build: Build | None = None) -> Any:
    """`conform`, with a sentence that names the key, the value and what is allowed.

    Raises:
        ConfigError: the value does not fit.
    """
    try:
        return conform(value, annotation, build, key)
    except Mismatch as mismatch:
        number = type(mismatch.value) in (int, float) and mismatch.allowed == "text"
        hint = f" (quote it: {mismatch.key}=\"'{mismatch.value}'\")" if number else ""
        raise ConfigError(f"{mismatch}{hint}") from None
