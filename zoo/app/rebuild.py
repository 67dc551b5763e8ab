"""From a run folder back to the parts of its run: for evaluation, prediction and `zoo.load`."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.app.build import build_data
from zoo.app.named_runs import checkpoint_of
from zoo.config import run_config
from zoo.config.errors import ConfigError, as_config_error
from zoo.config.recipe import Recipe
from zoo.tasks.task import Task
from zoo.training.checkpoints.checkpoint import CheckpointFolder, read, well_formed
from zoo.training.precision import place, resolve_device, resolve_precision
from zoo.training.settings import RunSettings
from zoo.training.state import Position, task_state, usable_weights


def stored_recipe(
    folder: str | os.PathLike[str], overrides: Sequence[str] = (), trusted: Sequence[str] = ()
) -> Recipe:
    """The recipe of a run folder, checked like one from the command line.

    Raises:
        ConfigError: it is not a run folder, or its configuration names what must not be built.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(f"run={folder}: there is no such folder")
    config = run_config.load(path / "config.yaml")
    if isinstance(config.get("trainer"), dict):  # A short validation is nothing to judge a run by.
        config["trainer"]["limit_eval_batches"] = None
    return run_config.merge(config, overrides, trusted)


def load_weights(task: Task, folder: str | os.PathLike[str], checkpoint: str = "best") -> int:
    """Loads a checkpoint's weights for use: the averaged ones where the run averaged.

    Args:
        task: whose model and state to fill.
        folder: the run folder.
        checkpoint: `best`, `last` or a path; `best` is `last` in a run that selected none.

    Returns:
        The step of the checkpoint.

    Raises:
        CheckpointError: it is missing, damaged or not plain data.
    """
    checkpoints = CheckpointFolder(Path(folder) / "checkpoints")
    path = checkpoints.select(checkpoint)
    if checkpoint == "best" and not path.exists():
        path = checkpoints.select("last")
    state = read(path)
    with well_formed(path):
        task.model.load_state_dict(usable_weights(state))
        task.load_state_dict(task_state(state))
        return Position(**state["position"]).step


@dataclass
class Evaluation:
    """The parts of a stored run, ready to evaluate or predict; the data are not set up yet."""

    config: dict[str, Any]
    settings: RunSettings
    data: Any
    task: Task
    device: torch.device
    autocast: Any
    step: int
    features: str | None = None


def prepare_evaluation(
    folder: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    checkpoint: str = "best",
    trusted: Sequence[str] = (),
) -> Evaluation:
    """Rebuilds a run from its folder alone, with the weights of a checkpoint.

    Raises:
        ConfigError: it is not a run folder, an override would make another run, or there is no such
            checkpoint.
        CheckpointError: the checkpoint cannot be used.
    """
    recipe = stored_recipe(folder, overrides, trusted)
    checkpoint = checkpoint_of(Path(folder), checkpoint)
    settings = recipe.settings
    data = build_data(recipe, Path(folder))
    model = recipe.model.build()
    task = recipe.task.build(model, **data.vocabularies)
    step = load_weights(task, folder, checkpoint)
    with as_config_error("trainer"):
        device = resolve_device(settings.trainer.device)
    features = recipe.task.options.get("features")
    place(model.eval(), device, settings.trainer.channels_last)  # as in training, to the last bit
    task.to(device)
    dtype = resolve_precision(settings.trainer.precision, device)
    autocast = torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()
    return Evaluation(recipe.config, settings, data, task, device, autocast, step, features)


def load(
    folder: str | os.PathLike[str], *, checkpoint: str = "best", trusted: Sequence[str] = ()
) -> tuple[nn.Module, Any]:
    """The trained model of a run, in evaluation mode on the CPU, and its data module.

    Args:
        folder: the run folder.
        checkpoint: `best`, `last` or a path.
        trusted: packages of your own whose components the run uses.

    Returns:
        The model, and the data module, which reads nothing until its `setup()`.

    Raises:
        ConfigError: it is not a run folder.
        CheckpointError: the checkpoint cannot be used.
    """
    parts = prepare_evaluation(
        folder, ["trainer.device=cpu"], checkpoint=checkpoint, trusted=trusted
    )
    return parts.task.model, parts.data
