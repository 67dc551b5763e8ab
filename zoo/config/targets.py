"""From a `_target_` to the class or function that it names, and what that one takes and makes.

Only classes and functions *defined* under an allowed prefix are found (the path by which they are
reached does not count: a module of ours that imports `os` hands out nothing). Hydra's `instantiate`
is not used.
"""

import importlib.util
import inspect
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Union, get_args, get_origin

from zoo.config.errors import ConfigError, as_cli_text, did_you_mean, one_line

PREFIXES = ("zoo.", "torch.optim.", "torch.nn.")
"""Where targets may be defined; the command line's `trusted=[...]` adds to it."""


def _allowed(name: str, trusted: Sequence[str]) -> bool:
    return any(
        name == p.rstrip(".") or name.startswith(p.rstrip(".") + ".") for p in (*PREFIXES, *trusted)
    )


def require_packages(trusted: Sequence[str]) -> None:
    """Refuses to trust a package that there is not: its name is misspelt, or Python cannot find it.

    Raises:
        ConfigError: it is so.
    """
    for name in trusted:
        top = name.partition(".")[0]
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            raise ConfigError(
                f"trusted=[{name}]: there is no package {top!r}; install it, or name its folder in "
                "PYTHONPATH"
            )


def locate(target: Any, key: str, trusted: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function that a `_target_` names.

    Raises:
        ConfigError: it is not a dotted name, does not exist, or lies or is defined outside the
            allowed prefixes.
    """
    where = f"{key}._target_={target if isinstance(target, str) else as_cli_text(target)}"
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{where}: must be a dotted name such as my_package.nets.Net")
    prefixes = ", ".join((*PREFIXES, *trusted))
    if not _allowed(target, trusted):
        raise ConfigError(
            f"{where}: only what is under {prefixes} is built (and under packages of your own "
            "that the command line names: trusted=[my_package])"
        )
    found, depth = _import_longest(parts, where)
    for number, part in enumerate(parts[depth:], start=depth):
        if not hasattr(found, part):
            owner = ".".join(parts[:number])
            names = [name for name in vars(found) if not name.startswith("_")]
            if hasattr(found, "__path__"):
                names += [module.name for module in pkgutil.iter_modules(found.__path__)]
            hint = did_you_mean(part, dict.fromkeys(names))
            hint = hint if hint.startswith("did") else f"see the names in {owner}"
            raise ConfigError(f"{where}: there is no {part!r} in {owner}; {hint}")
        found = getattr(found, part)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise ConfigError(f"{where}: must name a class or a function, not a {type(found).__name__}")
    if not _allowed(f"{found.__module__}.{found.__qualname__}", trusted):
        raise ConfigError(
            f"{where}: is defined in {found.__module__}, which is not under {prefixes}"
        )
    return found


def _import_longest(parts: Sequence[str], where: str) -> tuple[Any, int]:
    """The innermost module of a dotted name, and how many parts of the name it takes."""
    for depth in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:depth])
        try:
            return importlib.import_module(name), depth
        except ModuleNotFoundError as error:
            if not (error.name and f"{name}.".startswith(f"{error.name}.")):
                raise ConfigError(
                    f"{where}: {name} needs a module that is not there: {error.name}"
                ) from error
        except Exception as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            raise ConfigError(f"{where}: {name} cannot be imported ({what})") from error
    raise ConfigError(
        f"{where}: there is no module {parts[0]!r}; install it, or name its folder in PYTHONPATH"
    )


def classes_in(annotation: Any, trusted: Sequence[str]) -> list[type]:
    """The classes that a component may be where an annotation stands.

    Only classes that could be targets themselves count: where a number, a path or anything at all
    is expected, no function of the allowed packages is called.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in classes_in(member, trusted)]
    if not inspect.isclass(annotation):
        return []
    name = f"{annotation.__module__}.{annotation.__qualname__}"
    return [annotation] if _allowed(name, trusted) else []


def made_by(target: Callable[..., Any]) -> Any:
    """What calling a target gives: the class itself, or what the function says it returns."""
    if inspect.isclass(target):
        return target
    try:
        return typing.get_type_hints(target).get("return")
    except (NameError, TypeError):
        return None


def check_kind(target: Callable[..., Any], kinds: Sequence[type], where: str) -> None:
    """Refuses a target that makes none of the classes that are needed where it stands.

    Raises:
        ConfigError: it makes something else, or a function does not say what it makes.
    """
    made = made_by(target)
    if not inspect.isclass(made):
        raise ConfigError(
            f"{where}: the function must say which class it returns (def ...() -> nn.Module)"
        )
    if not issubclass(made, tuple(kinds)):
        names = " or ".join(f"{k.__module__}.{k.__name__}" for k in kinds)
        raise ConfigError(f"{where}: makes {made.__name__}, and {names} is needed here")


class Parameter(NamedTuple):
    """What a target's parameter is declared as, and whether a call must give it."""

    annotation: Any
    required: bool


def signature_of(target: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a class's constructor or of a function, by name.

    Keywords that are handed on (`**options: Unpack[ResNetOptions]`) count as parameters.
    """
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    found: dict[str, Parameter] = {}
    for parameter in inspect.signature(target).parameters.values():
        annotation = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(annotation) is typing.Unpack:
            options = get_args(annotation)[0]  # **options: Unpack[Options], see PEP 692
            required = options.__required_keys__
            hints_of_options = typing.get_type_hints(options)
            found |= {n: Parameter(a, n in required) for n, a in hints_of_options.items()}
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            is_required = parameter.default is parameter.empty
            found[parameter.name] = Parameter(annotation, is_required)
    return found


def defaults_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The defaults of a target's own parameters, by name."""
    parameters = inspect.signature(target).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
