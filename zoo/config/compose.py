"""Command line to a checked recipe.

Hydra composes; everything it lets through is refused here: unknown keys behind `+`, removed groups,
two options for one group, values of the wrong type, NaN. Nothing in this module imports torch
before the groups and the fixed part are known to be right.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.config.check import settings
from zoo.config.command_line import expanded
from zoo.config.component import known_arguments
from zoo.config.errors import ConfigError, as_cli_text, did_you_mean, one_line
from zoo.config.paths import CONFIGS
from zoo.config.recipe import Recipe, make_recipe
from zoo.config.suggest import full_keys, meant_by
from zoo.config.targets import defaults_of, made_by
from zoo.config.yaml_files import check_yaml
from zoo.training.settings import RunSettings

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
                f"{word!r} is not of the form key=value ({_sentence(error)}); quote values with "
                "special characters: key='\"a=b\"'"
            ) from error
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


def _sentence(error: BaseException) -> str:
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
                _refuse_to_maximize(_nested(key.split(".")[2:], override.value()))
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


def _prefer(config_dir: str) -> None:
    """Makes Hydra look into a folder first: behind `hydra.searchpath` it would look there last."""
    loader: Any = GlobalHydra.instance().config_loader()
    path = loader.get_search_path()
    path.prepend("--config-dir", f"file://{Path(config_dir).resolve()}")
    loader.repository.initialize_sources(path)


def compose_plain(
    words: Sequence[str], config_dir: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hydra's composition, as plain containers: the configuration and the chosen options.

    Args:
        words: as `prepare` gives them.
        config_dir: a folder of groups whose files come before those in `configs/`.

    Raises:
        ConfigError: Hydra finds something wrong.
    """
    # A job of a sweep runs inside Hydra, which allows one composition at a time.
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            if config_dir is not None:
                _prefer(config_dir)
            composed = hydra_compose("train", list(words), return_hydra_config=True)
        choices = dict(composed.hydra.runtime.choices)
        OmegaConf.set_struct(composed, False)
        _refuse_to_maximize(OmegaConf.to_container(composed.pop("hydra").sweeper))
        missing = OmegaConf.missing_keys(composed)
        config = _at_home(OmegaConf.to_container(composed, resolve=True))
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        raise ConfigError(f"a configuration file is not valid YAML: {one_line(error)}") from error
    except Exception as error:  # A file of the wrong shape fails in Hydra in many ways.
        cause: BaseException = error
        if (stopped := _interruption(error)) is not None:
            raise stopped from None
        while cause.__cause__ is not None and "Could not" not in str(cause):
            cause = cause.__cause__
        text = _sentence(cause) or type(cause).__name__
        expected = isinstance(error, HydraException | OmegaConfBaseException)
        raise ConfigError(text if expected else f"cannot be composed: {text}") from error
    finally:
        GlobalHydra.instance().hydra = outer
    if missing:
        raise ConfigError(f"{min(missing)} is required: {min(missing)}=...")
    return config, choices


def _at_home(node: Any) -> Any:
    """The node with the home folder for the `~` that a path begins with."""
    if isinstance(node, dict):
        return {key: _at_home(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_at_home(value) for value in node]
    return expanded(node) if isinstance(node, str) else node


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an error, if Hydra stumbled over one and says something else."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def _refuse_to_maximize(sweeper: Any, key: str = "hydra.sweeper") -> None:
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
        _refuse_to_maximize(value, full)


def _name(choices: dict[str, Any]) -> str:
    """The folder below `paths.runs_dir` where no name is given."""
    if choices.get("debug"):
        return "debug"
    name: str = choices.get("experiment") or f"{choices['model']}_{choices['data']}"
    return name.replace("/", "-")


def compose(
    overrides: Sequence[str],
    *,
    config_dir: str | None = None,
    trusted: Sequence[str] = (),
    default: bool = True,
) -> Recipe:
    """The recipe of one run: its configuration, resolved, complete and checked.

    Args:
        overrides: words of the command line: `group=option` and `key=value`.
        config_dir: a folder of your own groups, next to `configs/`.
        trusted: packages whose components may be built.
        default: whether a line that says nothing of what to train means the default experiment.

    Raises:
        ConfigError: anything is wrong, in one sentence.
    """
    words = prepare(overrides, config_dir, default=default)
    for file in Path(config_dir).rglob("*.yaml") if config_dir else ():
        check_yaml(file)
    config, choices = compose_plain(words, config_dir)
    _replaced(words, choices, config, config_dir)
    if config_dir is not None:
        _say_shadowed(choices, Path(config_dir))
    if "name" not in config:
        config["name"] = _name(choices)
    _drop_keys_of_replaced(config, words, trusted)
    recipe = check(config, trusted)
    _say_without_effect(recipe, words)
    return recipe


def _say_without_effect(recipe: Recipe, words: Sequence[str]) -> None:
    """Says which words set what nothing will read, as the settings and the components know it."""
    idle = recipe.settings.without_effect()
    for part in (recipe.data, recipe.model, recipe.task, recipe.schedule):
        find = getattr(made_by(part.target), "without_effect", None)
        found = {} if find is None else find(defaults_of(part.target) | part.arguments)
        idle |= {f"{part.key}.{name}": reason for name, reason in found.items()}
    for word in words:
        if (key := word.lstrip("+").partition("=")[0]) in idle:
            warnings.warn(f"{word.lstrip('+')} has no effect: {idle[key]}", stacklevel=2)


def _say_shadowed(choices: dict[str, Any], config_dir: Path) -> None:
    """Says which chosen files of the user's stand in place of ours, once in a process."""
    for group, option in choices.items():
        file = f"{group}/{option}.yaml"
        if (config_dir / file).is_file() and (CONFIGS / file).is_file():
            warnings.warn(f"{group}={option} is {config_dir / file}, not the zoo's", stacklevel=2)


def _drop_keys_of_replaced(
    config: dict[str, Any], words: Sequence[str], trusted: Sequence[str]
) -> None:
    """Drops what only a file says of a component that one of the user's own stands in for.

    With `task._target_=my_package.Focal` the arguments of the file's own class may not be Focal's;
    those that the line itself gives stay, and are checked.
    """
    given = {word.lstrip("+").partition("=")[0] for word in words}
    for group in COMPONENTS:
        node = config.get(group)
        if f"{group}._target_" not in given or not isinstance(node, dict):
            continue
        target = str(node["_target_"])
        if not any(target.startswith(f"{package}.") for package in trusted):
            continue
        known = known_arguments(target, group, trusted)
        drop = [k for k in node if k not in known and f"{group}.{k}" not in given]
        for key in drop:
            del node[key]
        if drop:
            keys = ", ".join(f"{group}.{key}" for key in drop)
            warnings.warn(f"{target} has no {keys}: omitted", stacklevel=2)


def _replaced(
    words: Sequence[str], choices: dict[str, Any], config: dict[str, Any], config_dir: str | None
) -> None:
    """Gives the options that the command line chose in place of an experiment's their values back.

    What an experiment says of its own optimizer is not meant for another: `optimizer=sgd` over an
    experiment with Adam takes nothing of Adam's betas along. Of the fixed part, what the chosen
    file says wins, and the rest stays the experiment's.
    """
    chosen = {word.partition("=")[0] for word in words} & {*GROUPS} - {*OPTIONAL}
    if not choices.get("experiment") or not chosen:
        return
    without = [w for w in words if w.partition("=")[0] not in chosen]
    own = compose_plain(without, config_dir)[1]
    replaced = [group for group in chosen if own[group] != choices[group]]
    if not replaced:
        return
    without = [w for w in words if not w.startswith("experiment=")]
    plain = compose_plain(without, config_dir)[0]
    for group in replaced:
        whole = group in COMPONENTS or not isinstance(config.get(group), dict)
        config[group] = plain[group] if whole else _laid_over(config[group], plain[group])


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; where both have a value, the second's."""
    both = dict(below)
    for key, value in above.items():
        inner = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _laid_over(both[key], value) if inner else value
    return both


FIXED = ("name", "seed", "freeze", "trainer", "callbacks", "logger", "paths")
COMPONENTS = ("data", "model", "task", "optimizer", "schedule")


def run_settings(config: dict[str, Any]) -> RunSettings:
    """The fixed part of a configuration as its dataclass, checked."""
    fixed = {k: v for k, v in config.items() if k not in COMPONENTS}
    for key, value in fixed.items():
        if key in OPTIONAL:
            raise ConfigError(f"{key}: the first line of its file must be '# @package _global_'")
        if key not in FIXED:
            hint = did_you_mean(str(key), [*FIXED, *COMPONENTS])
            raise ConfigError(f"{key}={as_cli_text(value)}: there is no such setting; {hint}")
    made: RunSettings = settings(RunSettings, fixed)
    return made


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every default of the fixed part filled in, in a fixed order."""
    fixed = asdict(run_settings(config))
    for name in COMPONENTS:
        if not config.get(name):
            raise ConfigError(f"{name}: a run needs a {name}; one of {', '.join(options(name))}")
    ordered = ("name", "seed", *COMPONENTS, "freeze", "trainer", "callbacks", "logger", "paths")
    return {name: fixed[name] if name in fixed else config[name] for name in ordered}


def check(config: dict[str, Any], trusted: Sequence[str] = ()) -> Recipe:
    """The recipe of a configuration: completed, and every component checked; this imports torch.

    Raises:
        ConfigError: anything is wrong, in one sentence.
    """
    config = complete(config)
    return make_recipe(config, run_settings(config), trusted)


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
