"""Components: a `_target_` and its keyword arguments, checked once and built from then on."""

import importlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, Union, get_args, get_origin

from zoo.config.check import Mismatch, checked, describe
from zoo.config.errors import ConfigError, as_cli_text, did_you_mean, one_line
from zoo.config.targets import check_kind, classes_in, locate, made_by, signature_of


@dataclass(frozen=True)
class Kind:
    """What the components of one group of the configuration are.

    What the parts say themselves is read from them and named by path, so that nothing heavy is
    imported before it is needed.

    Attributes:
        base: the class that each of them must be or return. A base that has `given` names the
            arguments that the run supplies; a configuration must not.
        takes: whether the run supplies the first argument (a task's model, an optimizer's
            parameters).
        options: a TypedDict of arguments besides those of the target, which the run itself acts on.
        from_data: whether `auto` stands for what the data say.
    """

    base: str
    takes: bool = False
    options: str | None = None
    from_data: bool = False


KINDS = {
    "data": Kind("zoo.data.module.DataModule"),
    "model": Kind(
        "torch.nn.Module", options="zoo.training.pretrained.ModelOptions", from_data=True
    ),
    "task": Kind(
        "zoo.tasks.task.Task", takes=True, options="zoo.tasks.task.TaskOptions", from_data=True
    ),
    "optimizer": Kind(
        "torch.optim.Optimizer", takes=True, options="zoo.training.optimizers.OptimizerOptions"
    ),
    "schedule": Kind(
        "zoo.training.schedules.Schedule", options="zoo.training.schedules.ScheduleOptions"
    ),
    "callback": Kind("zoo.training.callback.Callback"),
}


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Component:
    """One part of a run: what to call and with what, all of it checked.

    Attributes:
        key: its full key, for messages.
        node: as the configuration has it.
        target: the class or function.
        arguments: the target's, in the annotated form; components inside are components too.
        options: other arguments, on which the run itself acts (see `Kind`).
        given: names of the target's arguments that the run may supply.
        auto: names of arguments that wait for what the data say.
    """

    key: str
    node: dict[str, Any]
    target: Callable[..., Any]
    arguments: dict[str, Any]
    options: dict[str, Any]
    given: tuple[str, ...] = ()
    auto: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the `_target_`."""
        return str(self.node["_target_"]).rpartition(".")[2]

    def build(self, *first: Any, **given: Any) -> Any:
        """Calls the target.

        Args:
            first: what the run supplies as first argument, if anything.
            given: what the run has to supply; what the target does not ask for is left out.

        Raises:
            ConfigError: an `auto` is left, a given argument is missing, or the target refused one.
        """
        own = signature_of(self.target)
        for name in self.auto:
            raise ConfigError(f"{self.key}.{name}=auto: nothing fills it here; give a value")
        for name in self.given[len(first) :]:
            if own[name].required and name not in given:
                raise ConfigError(
                    f"{self.key}: {self.node['_target_']} needs a {name}, and these data have none"
                )
        return self._call(
            self.target, *first, **{n: v for n, v in given.items() if n in self.given}
        )

    def build_with(self, make: Callable[..., Any], *first: Any) -> Any:
        """Has another function call the target: `make(target, *first, **arguments, **options)`.

        Raises:
            ConfigError: an argument was refused.
        """
        options = {name: _built(value) for name, value in self.options.items()}
        return self._call(make, self.target, *first, **options)

    def _call(self, function: Callable[..., Any], *first: Any, **more: Any) -> Any:
        """Calls a function with the arguments, and names the key of one that it refuses."""
        arguments = {name: _built(value) for name, value in self.arguments.items()}
        try:
            return function(*first, **arguments, **more)
        except (ValueError, TypeError, RuntimeError) as error:
            # Plain RuntimeErrors are torch's ("negative dimension"); others say what has failed.
            if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
                raise
            text = one_line(error)
            name = text.partition(" ")[0]
            named = name in signature_of(self.target) and name not in self.given
            raise ConfigError(f"{self.key}.{text}" if named else f"{self.key}: {text}") from error

    def replaced(self, values: dict[str, Any]) -> Self:
        """The component with other values of some arguments, which alone are checked.

        Raises:
            ConfigError: one does not fit.
        """
        own = signature_of(self.target)
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}
        fitted = {n: checked(v, own[n].annotation, f"{self.key}.{n}") for n, v in plain.items()}
        return replace(
            self,
            node=self.node | plain,
            arguments=self.arguments | fitted,
            auto=tuple(name for name in self.auto if name not in values),
        )

    def fill_auto(
        self, facts: dict[str, Any], source: str, lacks: Mapping[str, str] | None = None
    ) -> Self:
        """The component with a fact of the data in place of each `auto`.

        Args:
            facts: by the name of the argument; None where the data have none, which is null.
            source: what they are the facts of.
            lacks: why a fact is not there, by its name.

        Raises:
            ConfigError: the data do not say it.
        """
        own = signature_of(self.target)
        for name in self.auto:
            fits = facts.get(name) is not None or _takes_null(own[name].annotation)
            if name not in facts and lacks and name in lacks:
                raise ConfigError(f"{self.key}.{name}=auto: {lacks[name]}")
            if name not in facts or not fits:
                known = ", ".join(n for n, fact in facts.items() if fact is not None)
                raise ConfigError(
                    f"{self.key}.{name}=auto: {source} gives no {name} (it gives "
                    f"{known or 'none'}); set {self.key}.{name} yourself or choose a {self.key} "
                    "for this kind of data"
                )
        return self.replaced({name: facts[name] for name in self.auto})


def _built(value: Any) -> Any:
    """An argument as the target wants it: components inside are built."""
    if isinstance(value, Component):
        return value.build()
    if isinstance(value, list | tuple):
        return type(value)(_built(v) for v in value)
    if isinstance(value, dict):
        return {k: _built(v) for k, v in value.items()}
    return value


def _members(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)


def _takes_text(annotation: Any) -> bool:
    """Whether `auto` may be a value of its own here, and not only stand for one."""
    return any(a is str or get_origin(a) is Literal for a in _members(annotation))


def _takes_null(annotation: Any) -> bool:
    return any(a is None or a is type(None) or a is Any for a in _members(annotation))


def check_component(node: Any, group: str, key: str, trusted: Sequence[str] = ()) -> Component:
    """Checks one component against its target's signature, nested components included.

    Args:
        node: mapping with `_target_` and keyword arguments.
        group: its configuration group, which says what it must make.
        key: its full key, for messages.
        trusted: packages named on the command line.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    kind = KINDS[group]
    return _check(node, key, [_imported(kind.base)], trusted, kind)


def known_arguments(target: Any, group: str, trusted: Sequence[str] = ()) -> set[str]:
    """What the configuration of a component of a group may say, `_target_` included.

    Raises:
        ConfigError: there is no such target.
    """
    kind = KINDS[group]
    options = typing.get_type_hints(_imported(kind.options)) if kind.options else {}
    return {"_target_", *options, *signature_of(locate(target, group, trusted))}


def _check(
    node: Any, key: str, bases: Sequence[type], trusted: Sequence[str], kind: Kind
) -> Component:
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"{key}={as_cli_text(node)}: must be a mapping with _target_")
    target = locate(node["_target_"], key, trusted)
    check_kind(target, bases, f"{key}._target_={node['_target_']}")
    own = signature_of(target)
    options = typing.get_type_hints(_imported(kind.options)) if kind.options else {}
    annotations = options | {name: parameter.annotation for name, parameter in own.items()}
    given = tuple(own)[: kind.takes]
    if hasattr(bases[0], "given"):
        given += tuple(name for name in made_by(target).given if name in own)

    def nested(value: dict[str, Any], annotation: Any, full: str) -> Component:
        classes = classes_in(annotation, trusted)
        if not classes:
            raise Mismatch(full, value, describe(annotation))
        return _check(value, full, classes, trusted, Kind(base=""))

    found: dict[str, Any] = {}
    auto = []
    for name, value in node.items():
        if name == "_target_":
            continue
        full = f"{key}.{name}"
        if name in given:
            raise ConfigError(f"{full}={as_cli_text(value)}: is given by the run itself; remove it")
        if name not in annotations:
            known = [name for name in annotations if name not in given]
            raise ConfigError(
                f"{full}={as_cli_text(value)}: {node['_target_']} has no such argument; "
                f"{did_you_mean(str(name), known, f'{key}.')}"
            )
        annotation = annotations[name]
        if kind.from_data and not _takes_text(annotation):
            annotation = Union[annotation, Literal["auto"]]  # noqa: UP007 - made at run time
            auto += [name] if value == "auto" else []
        found[name] = checked(value, annotation, full, nested)
    for name, parameter in own.items():
        if parameter.required and name not in found and name not in given and name != "self":
            raise ConfigError(
                f"{key}.{name} is required by {node['_target_']}: "
                f"{key}.{name}=<{describe(parameter.annotation)}>"
            )
    return Component(
        key,
        node,
        target,
        arguments={name: value for name, value in found.items() if name in own},
        options={name: value for name, value in found.items() if name not in own},
        given=given,
        auto=tuple(auto),
    )
