"""From a recipe to the parts of a run.

The same few steps serve training, evaluation and `zoo.load`, so that a run is rebuilt exactly as it
was built. Components come from the configuration; nothing here knows which.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from zoo.app.learned import check_learned
from zoo.config.errors import ConfigError, as_config_error, one_line
from zoo.config.recipe import Recipe
from zoo.data.module import DataModule
from zoo.tasks.task import Task
from zoo.training.callback import Callback
from zoo.training.callbacks import EarlyStopping, MetricsFile, Profile
from zoo.training.console import Console
from zoo.training.freezing import freeze
from zoo.training.optimizers import make_optimizer
from zoo.training.pretrained import load_pretrained
from zoo.training.run_folder import RunFolder
from zoo.training.tensorboard import TensorBoard


def build_data(recipe: Recipe, folder: Path | None = None) -> DataModule:
    """The data module, with what the run in `folder` has learned from the data, if any.

    Raises:
        ConfigError: a value is refused, or a file of what was learned is damaged.
    """
    data: DataModule = recipe.data.build()
    if folder is not None:
        with as_config_error():
            data.load_artifacts(folder)
        check_learned(folder)
    return data


def load_initial_weights(model: nn.Module, recipe: Recipe, *, fresh: bool) -> list[str]:
    """Loads the weights that a model begins with, and freezes what is not to be trained.

    Args:
        model: as it was initialised.
        recipe: the run's: `model.weights` and `freeze`.
        fresh: whether the run begins; one that goes on has its weights in a checkpoint and does
            not need the file.

    Returns:
        What was done, in lines for the user.

    Raises:
        ConfigError: the file does not fit, or a pattern matches nothing.
    """
    file = recipe.model.options.get("weights")
    notes = []
    if file is None and recipe.model.options.get("weights_entry") is not None:
        raise ConfigError("model.weights_entry goes with model.weights=<file>")
    if file is not None and fresh:
        try:
            classes = recipe.model.arguments.get("num_classes")
            entry = recipe.model.options.get("weights_entry")
            loaded = load_pretrained(model, file, num_classes=classes, entry=entry)
            notes.append(str(loaded))
        except ValueError as error:
            raise ConfigError(f"model.weights={one_line(error)}") from error
    with as_config_error():
        notes.append(freeze(model, recipe.settings.freeze))
    return list(filter(None, notes))


def build_optimizers(recipe: Recipe, task: Task) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each network of the task.

    Raises:
        ConfigError: the configuration names other networks, or a class refused its arguments.
    """
    networks = task.networks()
    single = recipe.optimizers.get("optimizer")
    if single is None and set(recipe.optimizers) != {f"optimizer.{name}" for name in networks}:
        raise ConfigError(
            f"optimizer has {', '.join(recipe.config['optimizer'])}, and the networks of this task "
            f"are {', '.join(networks)}"
        )
    return {
        name: (single or recipe.optimizers[f"optimizer.{name}"]).build_with(make_optimizer, network)
        for name, network in networks.items()
    }


def standard_callbacks(
    recipe: Recipe, folder: RunFolder, changes: Sequence[str] = ()
) -> list[Callback]:
    """The callbacks that the settings ask for, in the order of their events.

    Args:
        recipe: with the settings.
        folder: of the run.
        changes: words that a resumed run goes on with.
    """
    settings = recipe.settings
    callbacks: list[Callback] = [MetricsFile(folder.path), Console(settings.logger)]
    if settings.logger.tensorboard:
        callbacks.append(TensorBoard(settings.logger, folder.path, recipe.config, changes))
    if settings.callbacks.early_stopping.patience is not None:
        callbacks.append(EarlyStopping(settings.callbacks.early_stopping))
    if settings.callbacks.profile.steps is not None:
        callbacks.append(Profile(settings.callbacks.profile, folder.path))
    return callbacks
