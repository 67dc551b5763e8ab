"""The space of a search: a YAML file of keys and the values that each may take.

    optimizer: [adamw, sgd]
    optimizer.lr: {low: 1e-4, high: 0.1, log: true}
    optimizer.momentum: {low: 0, high: 0.99, when: {optimizer: sgd}}
    data.batch_size: {low: 16, high: 128, step: 16, int: true}

Keys are those of train.py's command line. A list holds choices; a parameter with `when` exists only
where another one, which stands above it, has one of the values named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.config.errors import ConfigError, as_cli_text, did_you_mean
from zoo.config.yaml_files import load_yaml

if TYPE_CHECKING:
    from optuna.trial import Trial

PARTS = ("low", "high", "log", "int", "step", "choices", "when")


@dataclass(frozen=True)
class Parameter:
    """One key of the configuration that is searched, with the values that it may take.

    Attributes:
        key: as on the command line.
        choices: the values to choose from, as on the command line; none: a range.
        low: the lower end of a range, included.
        high: its upper end, included.
        log: whether the logarithm is what is spread evenly.
        step: distance of neighbouring values; None: any value, or any whole number.
        integer: whether the values are whole numbers.
        when: the values that other parameters must have for this one to exist.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    integer: bool = False
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def suggest(self, trial: "Trial") -> str:
        """The value of a trial, as on the command line."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.integer:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return str(trial.suggest_int(self.key, low, high, step=step, log=self.log))
        value = trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)
        return repr(float(f"{value:.6g}"))  # More digits would only be longer to type.

    def ends(self) -> tuple[str, ...]:
        """Every choice, or both ends of a range."""
        kind = int if self.integer else float
        return self.choices or (repr(kind(self.low)), repr(kind(self.high)))


@dataclass(frozen=True)
class Space:
    """The parameters of a search, each below those on which it depends."""

    parameters: tuple[Parameter, ...]

    def words(self, choose: Callable[[Parameter], str]) -> list[str]:
        """The words of one combination, for train.py.

        Args:
            choose: gives the value of a parameter that exists.
        """
        found: dict[str, str] = {}
        for parameter in self.parameters:
            if all(found.get(key) in values for key, values in parameter.when.items()):
                found[parameter.key] = choose(parameter)
        return [f"{key}={value}" for key, value in found.items()]

    def corners(self) -> list[list[str]]:
        """Combinations in which every choice and both ends of every range occur."""
        by_key = {parameter.key: parameter for parameter in self.parameters}

        def needed(parameter: Parameter) -> dict[str, str]:
            found: dict[str, str] = {}
            for key, values in parameter.when.items():
                found |= needed(by_key[key]) | {key: values[0]}
            return found

        combinations: dict[tuple[str, ...], None] = {}
        for parameter in self.parameters:
            for value in parameter.ends():
                given = needed(parameter) | {parameter.key: value}
                words = self.words(lambda p, given=given: given.get(p.key, p.ends()[0]))  # type: ignore[misc]
                combinations[tuple(words)] = None
        return [list(words) for words in combinations]


def load_space(path: Path) -> tuple[Space, dict[str, Any]]:
    """The space that a file describes, and the file's content.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    try:
        content = load_yaml(path)
    except OSError as error:
        raise ConfigError(f"space={path}: cannot be read ({error.strerror})") from error
    try:
        return read_space(content), content
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_space(content: Any) -> Space:
    """The space of a mapping of keys to values.

    Raises:
        ConfigError: something in it is wrong.
    """
    if not isinstance(content, dict) or not content:
        raise ConfigError("must be a mapping of keys to what they may be: optimizer.lr: {low: ...}")
    found: dict[str, Parameter] = {}
    for key, node in content.items():
        if not isinstance(key, str) or "=" in key:
            raise ConfigError(f"{key!r}: must be a key of the command line, such as optimizer.lr")
        if key == "seed":
            raise ConfigError("seed: is no choice; seed=1,2,3 on the command line repeats trials")
        found[key] = _parameter(key, {"choices": node} if isinstance(node, list) else node, found)
    return Space(tuple(found.values()))


def _parameter(key: str, node: Any, above: Mapping[str, Parameter]) -> Parameter:
    if not isinstance(node, dict):
        raise ConfigError(f"{key}: must be a list of choices, or a range {{low: ..., high: ...}}")
    for part in node:
        if part not in PARTS:
            raise ConfigError(f"{key}.{part}: there is no such part; {did_you_mean(part, PARTS)}")
    when = _conditions(key, node.get("when", {}), above)
    if "choices" in node:
        if others := [part for part in node if part not in ("choices", "when")]:
            raise ConfigError(f"{key}: has choices, so omit {', '.join(others)}")
        return Parameter(key, choices=_choices(key, node["choices"]), when=when)
    return _range(key, node, when)


def _choices(key: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{key}: choices must be a list of values")
    texts = tuple(map(_text, values))
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{key}: has a choice twice: {', '.join(texts)}")
    return texts


def _text(value: Any) -> str:
    """A value as on the command line; text stays as it is written."""
    return value if isinstance(value, str) else as_cli_text(value)


def _range(key: str, node: dict[str, Any], when: Mapping[str, tuple[str, ...]]) -> Parameter:
    for flag in ("log", "int"):
        if not isinstance(node.get(flag, False), bool):
            raise ConfigError(f"{key}.{flag}={as_cli_text(node[flag])}: must be true or false")
    log, integer = node.get("log", False), node.get("int", False)
    numbers = {part: _number(f"{key}.{part}", node.get(part)) for part in ("low", "high")}
    if "step" in node:
        numbers["step"] = _number(f"{key}.step", node["step"])
    for part, number in numbers.items():
        if integer and not number.is_integer():
            raise ConfigError(f"{key}.{part}={number:g}: must be a whole number, because of int")
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    if low >= high:
        raise ConfigError(f"{key}: low={low:g} must be less than high={high:g}")
    if log and low <= 0:
        raise ConfigError(f"{key}.low={low:g}: must be more than 0, because of log")
    if step is not None:
        if log:
            raise ConfigError(f"{key}: has log, so omit step")
        count = (high - low) / step if step > 0 else 0.0
        if round(count) < 1 or abs(count - round(count)) > 1e-6:
            raise ConfigError(f"{key}.step={step:g}: must lead from low to high in whole steps")
    return Parameter(key, low=low, high=high, log=log, step=step, integer=integer, when=when)


def _number(key: str, value: Any) -> float:
    """A number; YAML takes 1e-4, without a point, for text."""
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ConfigError(f"{key}={as_cli_text(value)}: must be a number")
    return number


def _conditions(key: str, node: Any, above: Mapping[str, Parameter]) -> dict[str, tuple[str, ...]]:
    if not isinstance(node, dict):
        raise ConfigError(f"{key}.when: must name another key and its value: {{optimizer: sgd}}")
    found = {}
    for other, value in node.items():
        known = {name: p for name, p in above.items() if p.choices}
        if other not in known:
            hint = did_you_mean(str(other), known)
            raise ConfigError(f"{key}.when: no choices of {other} stand above it; {hint}")
        values = tuple(map(_text, value if isinstance(value, list) else [value]))
        for text in values:
            if text not in known[other].choices:
                hint = did_you_mean(text, known[other].choices)
                raise ConfigError(f"{key}.when: {other} is never {text}; {hint}")
        found[other] = values
    return found
