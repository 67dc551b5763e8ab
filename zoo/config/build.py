"""Components: from `_target_` and keyword arguments to objects, with nothing forgiven.

Only classes and functions *defined* under an allowed prefix are called (the path by which they are
reached does not count: a module of ours that imports `os` hands out nothing), and only those that
make what the place in the configuration holds. Hydra's `instantiate` is not used.
"""

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from zoo.config.check import Mismatch, checked, describe
from zoo.config.errors import ConfigError, did_you_mean, one_line, written

PREFIXES = ("zoo.", "torch.optim.", "torch.nn.")
"""Where targets may be defined; the command line's `trusted=[...]` adds to it."""

SIZES = (
    "num_classes",
    "in_channels",
    "image_size",
    "in_features",
    "out_features",
    "vocab_size",
    "source_vocab_size",
    "target_vocab_size",
    "sequence_length",
    "class_names",
)
"""Arguments that may be `auto`: they are filled from the data when the run is built."""

OPTIONAL_FACTS = ("class_names",)
"""Of these, those that become null where the data have none."""

# What each group makes: the class that every component of the group must be or return.
KINDS = {
    "data": "zoo.data.module.DataModule",
    "model": "torch.nn.Module",
    "task": "zoo.tasks.task.Task",
    "optimizer": "torch.optim.Optimizer",
    "schedule": "zoo.training.schedules.Schedule",
    "callback": "zoo.training.callbacks.Callback",
}

FILLED = ("model", "task")
"""Groups whose `auto` arguments the run fills; a data module finds out its own in `setup`."""

# Arguments that the run itself gives, so that a configuration must not.
GIVEN = {
    "task": ("model", "vocabulary", "source_vocabulary", "target_vocabulary"),
    "optimizer": ("params",),
}

# Arguments of a group beside those of the target's signature, see zoo/training/optimizers.py and
# zoo/training/pretrained.py.
EXTRA: dict[str, dict[str, Any]] = {
    "optimizer": {"decay_norms_and_biases": bool, "groups": dict[str, dict[str, Any]]},
    "model": {"weights": str | None},
}


def _allowed(name: str, trusted: Sequence[str]) -> bool:
    return any(
        name == p.rstrip(".") or name.startswith(p.rstrip(".") + ".") for p in (*PREFIXES, *trusted)
    )


def locate(target: Any, key: str, trusted: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function that a `_target_` names.

    Raises:
        ConfigError: it is no dotted name, lies outside the allowed prefixes, does not exist, or is
            defined outside the allowed prefixes.
    """
    where = f"{key}._target_={target if isinstance(target, str) else written(target)}"
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{where}: must be a dotted name such as zoo.models.mlp.MLP")
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


def _kinds(annotation: Any, trusted: Sequence[str]) -> list[type]:
    """The classes that a component may be where an annotation stands.

    Only classes that could be targets themselves count: where a number, a path or anything at all
    is expected, no function of the allowed packages is called.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in _kinds(member, trusted)]
    if not inspect.isclass(annotation):
        return []
    name = f"{annotation.__module__}.{annotation.__qualname__}"
    return [annotation] if _allowed(name, trusted) else []


def _made(target: Callable[..., Any]) -> Any:
    """What calling a target gives: the class itself, or what the function says it returns."""
    if inspect.isclass(target):
        return target
    try:
        return typing.get_type_hints(target).get("return")
    except (NameError, TypeError):
        return None


def _check_kind(target: Callable[..., Any], kinds: Sequence[type], where: str) -> None:
    made = _made(target)
    if not inspect.isclass(made):
        raise ConfigError(
            f"{where}: the function must say which class it returns (def ...() -> nn.Module)"
        )
    if not issubclass(made, tuple(kinds)):
        names = " or ".join(f"{k.__module__}.{k.__name__}" for k in kinds)
        raise ConfigError(f"{where}: makes {made.__name__}, and {names} is needed here")


def _signature(target: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """Parameter name -> (annotation, required) of a class's constructor or of a function.

    Keywords that are handed on (`**options: Unpack[ResNetOptions]`) count as parameters.
    """
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    found: dict[str, tuple[Any, bool]] = {}
    for parameter in inspect.signature(target).parameters.values():
        annotation = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(annotation) is typing.Unpack:
            options = get_args(annotation)[0]  # **options: Unpack[Options], see PEP 692
            required = options.__required_keys__
            found |= {n: (a, n in required) for n, a in typing.get_type_hints(options).items()}
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            found[parameter.name] = (annotation, parameter.default is parameter.empty)
    return found


def check_component(
    node: Any,
    group: str,
    key: str,
    *,
    trusted: Sequence[str] = (),
    kinds: Sequence[type] | None = None,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Checks one component against its target's signature, nested components included.

    Args:
        node: mapping with `_target_` and keyword arguments.
        group: its configuration group, which says what it must make.
        key: its full key, for messages.
        trusted: prefixes named on the command line.
        kinds: what it must make, where that is not the group's kind.

    Returns:
        The target and its arguments in the annotated form, nested components as zero-argument
        builders that `build` calls.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"{key}={written(node)}: must be a mapping with _target_")
    target = locate(node["_target_"], key, trusted)
    if kinds is None:
        module, _, name = KINDS[group].rpartition(".")
        kinds = [getattr(importlib.import_module(module), name)]
    _check_kind(target, kinds, f"{key}._target_={node['_target_']}")
    signature = _signature(target)
    given = GIVEN.get(group, ())
    extra = {n: a for n, a in EXTRA.get(group, {}).items() if n not in signature}
    known = [name for name in (*signature, *extra) if name not in given]

    def nested(value: dict[str, Any], annotation: Any, full: str) -> Any:
        kinds = _kinds(annotation, trusted)
        if not kinds:
            raise Mismatch(full, value, describe(annotation))
        return _Nested(full, *check_component(value, "", full, trusted=trusted, kinds=kinds))

    arguments: dict[str, Any] = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        full = f"{key}.{name}"
        if name in given:
            raise ConfigError(f"{full}={written(value)}: is given by the run itself; remove it")
        if name not in known:
            raise ConfigError(
                f"{full}={written(value)}: {node['_target_']} has no such argument; "
                f"{did_you_mean(str(name), known, f'{key}.')}"
            )
        annotation = extra[name] if name in extra else signature[name][0]
        if group in FILLED and name in SIZES:
            annotation = Union[annotation, Literal["auto"]]  # noqa: UP007 - made at run time
        arguments[name] = checked(value, annotation, full, nested)
    missing = [n for n, (_, required) in signature.items() if required and n not in arguments]
    missing = [n for n in missing if n not in given and n != "self"]
    if missing:
        raise ConfigError(
            f"{key}.{missing[0]} is required by {node['_target_']}: "
            f"{key}.{missing[0]}=<{describe(signature[missing[0]][0])}>"
        )
    return target, arguments


@dataclass
class _Nested:
    """A checked component inside another's arguments, built when the outer one is."""

    key: str
    target: Callable[..., Any]
    arguments: dict[str, Any]


def _unfold(value: Any) -> Any:
    if isinstance(value, _Nested):
        return _call(value.target, value.arguments, value.key)
    if isinstance(value, list | tuple):
        return type(value)(_unfold(v) for v in value)
    if isinstance(value, dict):
        return {k: _unfold(v) for k, v in value.items()}
    return value


def _call(target: Callable[..., Any], arguments: dict[str, Any], key: str, **given: Any) -> Any:
    """Calls a target, and names the key of an argument that it refuses."""
    unfolded = {name: _unfold(value) for name, value in arguments.items()}
    try:
        return target(**unfolded, **given)
    except (ValueError, TypeError, RuntimeError) as error:
        # Plain RuntimeErrors are torch's ("negative dimension"); others say what has failed.
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise
        text = one_line(error)
        name = text.partition(" ")[0]
        named = name in _signature(target) and name not in given
        raise ConfigError(f"{key}.{text}" if named else f"{key}: {text}") from error


def components(config: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    """Every component of a configuration: full key -> (node, group).

    Raises:
        ConfigError: the optimizer is neither one component nor a mapping of components.
    """
    found = {g: (config[g], g) for g in ("data", "model", "task", "schedule")}
    optimizer = config["optimizer"]
    if isinstance(optimizer, dict) and "_target_" not in optimizer and optimizer:
        for name, node in optimizer.items():
            if not isinstance(node, dict) or "_target_" not in node:
                others = [
                    n for n, o in optimizer.items() if isinstance(o, dict) and "_target_" in o
                ]
                raise ConfigError(
                    f"optimizer.{name}={written(node)}: must be a mapping with _target_, an "
                    f"optimizer for each network; {did_you_mean(str(name), others, 'optimizer.')}"
                )
            found[f"optimizer.{name}"] = (node, "optimizer")
    else:
        found["optimizer"] = (optimizer, "optimizer")
    extra = config["callbacks"].get("extra", {})
    return found | {f"callbacks.extra.{n}": (node, "callback") for n, node in extra.items()}


def build(node: Any, group: str, key: str, *, trusted: Sequence[str] = (), **given: Any) -> Any:
    """Builds one component from its node, without the arguments that are not its target's own.

    Args:
        node: mapping with `_target_` and keyword arguments, no `auto` left in it.
        group: its configuration group.
        key: its full key, for messages.
        trusted: prefixes named on the command line.
        given: arguments that the run itself supplies (a task's model, a text's vocabulary); one
            that the target does not have is left out.

    Raises:
        ConfigError: the node is wrong, or the constructor refused a value.
    """
    target, arguments = check_component(node, group, key, trusted=trusted)
    for name, value in arguments.items():
        if group != "data" and isinstance(value, str) and value == "auto" and name in SIZES:
            raise ConfigError(f"{key}.{name}=auto: nothing fills it here; give a value")
    own = _signature(target)
    arguments = {n: v for n, v in arguments.items() if n in own or n not in EXTRA.get(group, {})}
    for name in GIVEN.get(group, ()):
        if name in own and own[name][1] and name not in given:
            raise ConfigError(f"{key}: {node['_target_']} needs a {name}, and these data have none")
    return _call(target, arguments, key, **{n: v for n, v in given.items() if n in own})


def beside(node: Any, group: str, key: str, *, trusted: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments of a component that are not its target's own: those that `build` leaves out."""
    target, arguments = check_component(node, group, key, trusted=trusted)
    own = _signature(target)
    return {n: v for n, v in arguments.items() if n in EXTRA.get(group, {}) and n not in own}


def fill(node: dict[str, Any], sizes: dict[str, Any], key: str, source: str) -> dict[str, Any]:
    """The node with each `auto` replaced by what the data says.

    Raises:
        ConfigError: the data does not know it.
    """
    filled = dict(node)
    for name, value in node.items():
        if name in SIZES and value == "auto":
            if name not in sizes and name in OPTIONAL_FACTS:
                filled[name] = None
                continue
            if name not in sizes:
                raise ConfigError(
                    f"{key}.{name}=auto: {source} gives no {name} "
                    f"(it gives {', '.join(sizes) or 'none'}); set {key}.{name} yourself or "
                    f"choose a {key} for this kind of data"
                )
            filled[name] = sizes[name]
    return filled
