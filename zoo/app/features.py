"""The classifier by whose features samples are judged: another run's, copied into the new run.

`task.features=<run folder>` names it. The run folder of the generator keeps what is needed of it in
`features`, so that it can be resumed and evaluated where the other run is gone.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.app.learned import LEARNED
from zoo.app.rebuild import Evaluation, prepare_evaluation
from zoo.config.errors import ConfigError, one_line
from zoo.data.images.base import ImageModule, Normalize
from zoo.metrics.sample_scores import SampleScores
from zoo.tasks.generative import Generative
from zoo.tasks.prediction import Classes
from zoo.tasks.task import Task
from zoo.training.checkpoint import CheckpointError
from zoo.training.run_folder import RunFolder

FOLDER = "features"
ORIGIN = "origin.json"


def attach_features(named: str | None, task: Task, data: Any, *, run: Path | None = None) -> None:
    """Gives a task the classifier that its configuration names, if it names one.

    Args:
        named: the run of the classifier, `task.features`.
        task: of the run.
        data: its data module.
        run: the run folder, where it has begun; None: the run that is named is read.

    Raises:
        ConfigError: the task draws no samples, or the other run does not classify such images.
    """
    if named is None:
        return
    if not isinstance(task, Generative):
        raise ConfigError(
            f"task.features={named}: {type(task).__name__} draws no samples to judge; omit it"
        )
    folder = Path(named) if run is None else run / FOLDER
    if run is not None:
        _check_unchanged(folder)
    try:
        other = prepare_evaluation(folder, ["trainer.device=cpu"])
    except (ConfigError, CheckpointError) as error:
        raise ConfigError(f"task.features={named}: {one_line(error)}") from error
    if other.task.predicts is not Classes or not hasattr(other.task.model, "forward_features"):
        raise ConfigError(
            f"task.features={named}: must be a run that classifies images by a network with "
            f"forward_features, and this one trains {type(other.task.model).__name__} by "
            f"{type(other.task).__name__}"
        )
    task.use(SampleScores(other.task.model, _conversion(named, other, data)))


def keep_features(named: str | None, run: Path) -> None:
    """Copies what `attach_features` needs of the other run into a new run folder."""
    if named is None:
        return
    source, target = Path(named), run / FOLDER
    checkpoint = source / "checkpoints" / "best.pt"
    if not checkpoint.exists():
        checkpoint = checkpoint.with_name("last.pt")
    (target / "checkpoints").mkdir(parents=True)
    learned = RunFolder(source).read("data.json").get(LEARNED)
    for name in ("config.yaml", "data.json", *(learned if isinstance(learned, dict) else ())):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    kept = target / "checkpoints" / "best.pt"
    shutil.copyfile(checkpoint, kept)
    RunFolder(target).write(ORIGIN, {"run": named, "sha256": _digest(kept)})


def _check_unchanged(folder: Path) -> None:
    path = folder / "checkpoints" / "best.pt"
    expected = RunFolder(folder).read(ORIGIN).get("sha256")
    if not path.is_file() or _digest(path) != expected:
        raise ConfigError(
            f"{path} is missing or not as this run copied it, and its scores would be of other "
            "features: restore it"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _conversion(named: str, other: Evaluation, data: Any) -> Callable[[Tensor], Tensor]:
    """What makes of generated images such as the classifier takes.

    Raises:
        ConfigError: their channels or sizes do not allow it.
    """
    theirs = other.data
    if not isinstance(data, ImageModule) or not isinstance(theirs, ImageModule):
        raise ConfigError(f"task.features={named}: both runs must be on images")
    ours, channels, size = data.normalize, data.in_channels, data.image_size
    if theirs.in_channels != channels:
        raise ConfigError(
            f"task.features={named}: it classifies images of {theirs.in_channels} channels, and "
            f"these have {channels}"
        )
    is_framed = theirs.image_size != size
    if is_framed and (type(theirs) is not type(data) or data.raw_size != size):
        raise ConfigError(
            f"task.features={named}: it classifies images of {theirs.image_size} pixels a side, "
            f"and these have {size}; name a run on such images"
        )
    normalize = Normalize(theirs.normalize.mean, theirs.normalize.std, max_value=1.0)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (ours.mean, ours.std))

    def convert(images: Tensor) -> Tensor:
        x = (images.float() * std.to(images.device) + mean.to(images.device)).clamp(0, 1)
        return normalize(theirs.framed(x) if is_framed else x)

    return convert
