"""The words of a command line, checked and made into what Hydra is to see."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException

from zoo.config.command_line import expanded
from zoo.config.errors import ConfigError, as_cli_text, did_you_mean, one_line
from zoo.config.paths import CONFIGS
from zoo.config.suggest import full_keys, meant_by

DEFAULT_EXPERIMENT = "lenet_digits"
GROUPS = (
    "data",
    "model",
    "task",
    "optimizer",
    "schedule",
    "trainer",
    "callbacks",
    "logger",
    "paths",
    "experiment",
    "debug",
)
OPTIONAL = ("experiment", "debug")


def options(group: str, extra: str | None = None) -> list[str]:
    """The options of a group: the names of its files, without the ending."""
    folders = [CONFIGS / group, *([Path(extra) / group] if extra else [])]
    files = [(f, d) for d in folders for f in d.rglob("*.yaml") if f.is_file()]
    return sorted({f.relative_to(d).with_suffix("").as_posix() for f, d in files})


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's overrides, with its parser's complaint in one line.

    Raises:
        ConfigError: a word is not an override, or sets what another one sets.
    """
    parser = OverridesParser.create()
    parsed: dict[tuple[str, str | None], Override] = {}
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals and (hint := meant_by(word)):
            raise ConfigError(f"{word!r} is not of the form key=value; {hint}")
        home = expanded(value)
        try:
            override = parser.parse_override(word if home == value else f"{key}={quoted(home)}")
        except HydraException as error:
            raise ConfigError(
                f"{word!r} is not of the form key=value ({sentence(error)}); quote values with "
                "special characters: key='\"a=b\"'"
            ) from error
        except ValueError as error:  # Python's limit: from some thousand digits on it is slow.
            raise ConfigError(f"{as_cli_text(word)}: a number has too many digits") from error
        place = override.key_or_group, override.package
        if not place[0]:
            raise ConfigError(f"{word!r} is not of the form key=value")
        if place in parsed:
            raise ConfigError(
                f"{word}: {place[0]} is given twice, the other time as "
                f"{parsed[place].input_line!r}; omit one"
            )
        parsed[place] = override
    _check_parents(list(parsed.values()))
    return list(parsed.values())


def _check_parents(parsed: Sequence[Override]) -> None:
    """Refuses a value and the whole mapping that it is in on one line: which one counts?"""
    keys = {o.key_or_group: o.input_line for o in parsed if o.key_or_group not in GROUPS}
    for key, word in keys.items():
        parts = key.split(".")
        for depth in range(1, len(parts)):
            if (parent := ".".join(parts[:depth])) in keys:
                raise ConfigError(
                    f"{word}: lies within {keys[parent]!r}, which is given too; omit one"
                )


def sentence(error: BaseException) -> str:
    """What Hydra or OmegaConf says, without links and search paths, behind the key it is about."""
    text = one_line(str(error).split("full_key:")[0])
    text = re.split(r" See https?:| Config search path:", text)[0]
    key = getattr(error, "full_key", None)
    return f"{key}: {text}" if key else text


def _check_groups(parsed: Sequence[Override], config_dir: str | None, *, sweep: bool) -> None:
    """Refuses what Hydra answers badly or not at all about groups."""
    for override in parsed:
        key, word = override.key_or_group, override.input_line or ""
        if override.type == OverrideType.DEL:
            raise ConfigError(f"{word}: nothing can be removed; set the value instead ({key}=...)")
        top = re.split("[./]", key)[0]
        if top == "hydra":
            if not sweep or not re.match("hydra[./](launcher|sweeper)", key):
                raise ConfigError(
                    f"{word}: of Hydra's own settings only hydra/launcher and hydra/sweeper can be "
                    "chosen, for sweeps (-m)"
                )
            if "." in key and not override.is_sweep_override():
                refuse_to_maximize(_nested(key.split(".")[2:], override.value()))
            continue
        known = [*GROUPS, "seed", "name", "freeze"]
        if top not in known:
            near = full_keys(top) if key == top else []
            value = word.partition("=")[2]
            hint = " or ".join(f"{full}={value}" for full in near)
            hint = f"did you mean {hint}?" if hint else did_you_mean(top, known)
            raise ConfigError(f"{word}: there is no {top!r}; {hint}")
        if "/" in key:
            raise ConfigError(f"{word}: write {key.replace('/', '.')}=... for a value")
        if override.is_sweep_override() and not sweep:
            raise ConfigError(
                f"{word}: several values need -m, which runs each of them; a list is {key}=[...]"
            )
        if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
            raise ConfigError(f"{word}: gives no value at all, so there would be no run")
        if key in GROUPS:
            _check_options(key, override, options(key, config_dir))


def refuse_to_maximize(sweeper: Any, key: str = "hydra.sweeper") -> None:
    """Refuses a sweeper that is told to look for the largest value.

    A run returns the monitored metric with the sign that makes less better, so that the direction
    is the task's own; a sweeper that maximizes would look for the worst run. Sweepers name it
    differently: Optuna has a direction (or a list), Nevergrad `maximize`, Ax `minimize`.
    """
    pairs = sweeper.items() if isinstance(sweeper, dict) else ()
    for name, value in pairs:
        full = f"{key}.{name}"
        upwards = {"maximize": True, "minimize": False}.get(name) is value
        if name == "direction":
            upwards = "maximize" in str(value).lower()
        if upwards and value is not None:
            raise ConfigError(
                f"{full}={as_cli_text(value)}: would search for the worst run: what a run returns "
                "has the sign that makes less better, whatever is monitored; omit it"
            )
        refuse_to_maximize(value, full)


def _nested(path: Sequence[str], value: Any) -> Any:
    """The value under the keys of a path."""
    return {path[0]: _nested(path[1:], value)} if path else value


def _check_options(group: str, override: Override, known: Sequence[str]) -> None:
    """Refuses choices that a group does not have."""
    word = override.input_line
    choices = (
        [str(v) for v in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [override.value()]
    )
    if override.is_sweep_override() and "null" in choices:
        raise ConfigError(f"{word}: null cannot be one of several values")
    for choice in choices:
        if choice is None and group in OPTIONAL:
            continue
        if choice is None:
            raise ConfigError(f"{word}: {group} cannot be left out; one of {', '.join(known)}")
        if not isinstance(choice, str):
            raise ConfigError(f"{word}: {group} takes one option; one of {', '.join(known)}")
        if choice not in known:
            raise ConfigError(
                f"{word}: there is no {group} {choice!r}; {did_you_mean(choice, known)}"
            )


def _without_glob(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """The words with `model=glob(res*)` written out: the options that it matches.

    Raises:
        ConfigError: the key is no group, or nothing matches.
    """
    words = list(overrides)
    for number, override in enumerate(parse(overrides)):
        if not isinstance(pattern := override.value(), Glob):
            continue
        key, word = override.key_or_group, override.input_line
        if key not in GROUPS:
            raise ConfigError(f"{word}: glob() is for the options of a group, not for values")
        known = options(key, config_dir)
        if not (found := pattern.filter(known)):
            raise ConfigError(f"{word}: matches no {key}; one of {', '.join(known)}")
        words[number] = f"{key}={','.join(found)}"
    return words


def prepare(
    overrides: Sequence[str],
    config_dir: str | None = None,
    *,
    sweep: bool = False,
    default: bool = True,
) -> list[str]:
    """The overrides as Hydra is to see them.

    Every `key=value` becomes `++key=value`: whether the key exists is decided by the signature of
    the component or by the settings, not by what its YAML file happens to list.

    Args:
        overrides: words of the command line.
        config_dir: a folder of groups next to `configs/`.
        sweep: whether a word may give several values, and choose Hydra's launcher or sweeper.
        default: whether a line that says nothing of what to train means the default experiment.

    Raises:
        ConfigError: a word is wrong whatever the rest of the configuration is.
    """
    parsed = parse(_without_glob(overrides, config_dir))
    _check_groups(parsed, config_dir, sweep=sweep)
    words = []
    for override in parsed:
        word = (override.input_line or "").lstrip("+")
        is_value = override.key_or_group not in GROUPS and not word.startswith("hydra")
        if is_value or override.value() is not None:  # Hydra takes no null for a group.
            words.append(f"++{word}" if is_value else word)
    named = {override.key_or_group for override in parsed}
    if default and not named & {"experiment", "model", "data", "task"}:
        words.insert(0, f"experiment={DEFAULT_EXPERIMENT}")
    return words


def quoted(text: str) -> str:
    """The text as a quoted value of Hydra's grammar."""
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)
    return f"'{escaped}'"


def search_path(config_dir: str | None) -> list[str]:
    """The word that makes Hydra's own program, which runs sweeps, find the user's groups."""
    if config_dir is None:
        return []
    return [f"hydra.searchpath=[{quoted(f'file://{Path(config_dir).resolve()}')}]"]


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every job of a sweep: the product of all comma-separated values.

    Raises:
        ConfigError: a sweep over an interval, which only a sweeper such as Optuna can run.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: an interval needs a sweeper that chooses values, such as "
                "hydra/sweeper=optuna; list the values, or write range(...)"
            )
    try:
        return BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException as error:
        raise ConfigError(one_line(error)) from error
