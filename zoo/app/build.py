"""From a checked configuration to the parts of a run, and from a run folder back to them.

The same few steps serve training, evaluation and `zoo.load`, so that a run is rebuilt exactly as it
was built. Components come from the configuration; nothing here knows which.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.config.build import SIZES, beside, build, check_component, components, fill
from zoo.config.errors import ConfigError, as_config_error, one_line
from zoo.data.text.vocabulary import Vocabulary
from zoo.tasks.task import Task
from zoo.training.callbacks import Callback, EarlyStopping, Profile
from zoo.training.console import Console
from zoo.training.freezing import freeze
from zoo.training.optimizers import make_optimizer
from zoo.training.pretrained import load_pretrained
from zoo.training.run_folder import RunFolder
from zoo.training.settings import RunSettings
from zoo.training.tensorboard import TensorBoard


def fill_from_data(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """The configuration with what only the data know in place of each `auto`.

    Raises:
        ConfigError: the model or the task asks for something that these data do not have.
    """
    facts = {name: getattr(data, name) for name in SIZES if getattr(data, name, None) is not None}
    facts |= data.resolved() | data.sizes()
    facts = {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}
    source = f"the data ({config['data']['_target_'].rpartition('.')[2]})"
    filled = dict(config)
    filled["data"] = config["data"] | data.resolved()
    for key in ("model", "task"):
        filled[key] = fill(config[key], facts, key, source)
    return filled


def begin_from(
    model: nn.Module,
    config: dict[str, Any],
    *,
    fresh: bool,
    trusted: Sequence[str] = (),
) -> list[str]:
    """Loads the weights that a model begins with, and freezes what is not to be trained.

    Args:
        model: as it was initialised.
        config: the configuration: `model.weights` and `freeze`.
        fresh: whether the run begins; one that goes on has its weights in a checkpoint and does
            not need the file.
        trusted: packages whose components may be built.

    Returns:
        What was done, in lines for the user.

    Raises:
        ConfigError: the file does not fit, or a pattern matches nothing.
    """
    file = beside(config["model"], "model", "model", trusted=trusted).get("weights")
    notes = []
    if file is not None and fresh:
        try:
            classes = config["model"].get("num_classes")
            notes.append(str(load_pretrained(model, file, num_classes=classes)))
        except ValueError as error:
            raise ConfigError(f"model.weights={one_line(error)}") from error
    with as_config_error():
        notes.append(freeze(model, config["freeze"]))
    return list(filter(None, notes))


def build_data(
    config: dict[str, Any], trusted: Sequence[str] = (), *, folder: Path | None = None
) -> Any:
    """The data module, with the vocabularies that the run in `folder` has learned, if any.

    Raises:
        ConfigError: the configuration is wrong, or a vocabulary's file damaged.
    """
    data = build(config["data"], "data", "data", trusted=trusted)
    for file in sorted(folder.glob("*vocabulary.json")) if folder else ():
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            data.vocabularies[file.stem] = Vocabulary.from_json(content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file} cannot be read ({one_line(error)}); without it this run's tokens have no "
                "meaning: restore it"
            ) from error
    return data


def build_task(
    config: dict[str, Any], model: nn.Module, data: Any, trusted: Sequence[str] = ()
) -> Task:
    """The task, given the model and whichever of the data's vocabularies it takes.

    Raises:
        ConfigError: the configuration is wrong, or the data lack a vocabulary that it needs.
    """
    task: Task = build(
        config["task"], "task", "task", trusted=trusted, model=model, **data.vocabularies
    )
    return task


def build_optimizers(
    config: dict[str, Any], task: Task, *, trusted: Sequence[str] = ()
) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each network of the task.

    Raises:
        ConfigError: the configuration names other networks, or a class refused its arguments.
    """
    nodes = {k: n for k, (n, group) in components(config).items() if group == "optimizer"}
    networks = task.networks()
    single = nodes.get("optimizer")
    named = {name: single or nodes.get(f"optimizer.{name}") for name in networks}
    if single is None and set(nodes) != {f"optimizer.{name}" for name in networks}:
        raise ConfigError(
            f"optimizer has {', '.join(config['optimizer'])}, and the networks of this task are "
            f"{', '.join(networks)}"
        )
    optimizers = {}
    for name, network in networks.items():
        key = "optimizer" if single else f"optimizer.{name}"
        kind, arguments = check_component(named[name], "optimizer", key, trusted=trusted)
        try:
            optimizers[name] = make_optimizer(kind, network, **arguments)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{key}: {one_line(error)}") from error
    return optimizers


def own_callbacks(settings: RunSettings, trusted: Sequence[str] = ()) -> list[Callback]:
    """The user's own callbacks: `callbacks.extra`.

    Raises:
        ConfigError: one of them is wrong.
    """
    return [
        build(node, "callback", f"callbacks.extra.{name}", trusted=trusted)
        for name, node in settings.callbacks.extra.items()
    ]


def standard_callbacks(
    config: dict[str, Any], settings: RunSettings, folder: RunFolder
) -> list[Callback]:
    """The callbacks that the settings ask for, in the order of their events."""
    callbacks: list[Callback] = [Console(settings.logger)]
    if settings.logger.tensorboard:
        callbacks.append(TensorBoard(settings.logger, folder.path, config))
    if settings.callbacks.early_stopping.patience is not None:
        callbacks.append(EarlyStopping(settings.callbacks.early_stopping))
    if settings.callbacks.profile.steps is not None:
        callbacks.append(Profile(settings.callbacks.profile, folder.path))
    return callbacks
