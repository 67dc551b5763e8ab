"""The classifier by whose features samples are judged: another run's, copied into the new run.

`task.features=<run folder>` names it. The run folder of the generator keeps what is needed of it in
`features`, so that it can be resumed and evaluated where the other run is gone.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from zoo.app.learned import LEARNED
from zoo.app.rebuild import prepare_evaluation
from zoo.config.errors import ConfigError, one_line
from zoo.metrics.sample_scores import SampleScores
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
    if not hasattr(task, "judge_by"):
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
    if not hasattr(data, "converter"):
        raise ConfigError(f"task.features={named}: {type(data).__name__} has no images; omit it")
    try:
        convert = data.converter(other.data)
    except ValueError as error:
        raise ConfigError(f"task.features={named}: {error}") from error
    task.judge_by(SampleScores(other.task.model, convert))


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
    # Only what lies in the folder itself, whatever a damaged file says.
    names = [Path(name).name for name in learned] if isinstance(learned, dict) else []
    for name in ("config.yaml", "data.json", *names):
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
