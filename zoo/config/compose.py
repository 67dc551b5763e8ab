"""Command line to a checked recipe.

Hydra composes; everything it lets through is refused here: unknown keys behind `+`, removed groups,
two options for one group, values of the wrong type, NaN. Nothing in this module imports torch
before the groups and the fixed part are known to be right.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.config.check import settings
from zoo.config.command_line import expanded
from zoo.config.component import known_arguments
from zoo.config.errors import ConfigError, as_cli_text, did_you_mean, one_line
from zoo.config.overrides import GROUPS, OPTIONAL, options, prepare, refuse_to_maximize, sentence
from zoo.config.paths import CONFIGS
from zoo.config.recipe import Recipe, make_recipe
from zoo.config.targets import defaults_of, made_by
from zoo.config.yaml_files import check_yaml
from zoo.training.settings import RunSettings


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
        refuse_to_maximize(OmegaConf.to_container(composed.pop("hydra").sweeper))
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
        text = sentence(cause) or type(cause).__name__
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


def _interruption(error: BaseException | None) -> BaseException | None:
    """The Ctrl-C or signal behind an error, if Hydra stumbled over it and says something else."""
    while isinstance(error, Exception):
        error = error.__context__
    return error


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
    _refuse_empty(words, recipe.config)
    _say_without_effect(recipe, words)
    return recipe


def _refuse_empty(words: Sequence[str], config: dict[str, Any]) -> None:
    """Refuses an empty mapping for one that has values: Hydra lays it over them, and they stay."""
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if re.fullmatch(r"\s*{\s*}\s*", value):
            node = reduce(lambda node, name: node[name], key.split("."), config)
            if node:
                raise ConfigError(
                    f"{word.lstrip('+')}: changes nothing, since a mapping is laid over what is "
                    f"there; give the values that are to change ({key}.{next(iter(node))}=...)"
                )


def _say_without_effect(recipe: Recipe, words: Sequence[str]) -> None:
    """Says which values nothing will read, as the settings and the components know it.

    Those are the words of the line, and what files set to something else than its default: a file
    that lists every argument asks for nothing by that.
    """
    idle = recipe.settings.without_effect()
    values = {key: _value_at(recipe.settings, key) for key in idle}
    defaults = {key: _value_at(RunSettings(), key) for key in idle}
    for part in (recipe.data, recipe.model, recipe.task, recipe.schedule):
        find = getattr(made_by(part.target), "without_effect", None)
        own = defaults_of(part.target)
        found = {} if find is None else find(own | part.arguments)
        for name, reason in found.items():
            key = f"{part.key}.{name}"
            idle[key], defaults[key] = reason, own.get(name)
            values[key] = part.arguments.get(name, own.get(name))
    given = {word.lstrip("+").partition("=")[0]: word.lstrip("+") for word in words}
    for key, reason in idle.items():
        if key in given or values[key] != defaults[key]:
            word = given.get(key, f"{key}={as_cli_text(values[key])}")
            warnings.warn(f"{word} has no effect: {reason}", stacklevel=2)


def _value_at(settings: Any, key: str) -> Any:
    """The setting that a full key names."""
    return reduce(getattr, key.split("."), settings)


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
