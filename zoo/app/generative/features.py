"""The classifier by whose features samples are judged: another run's (`zoo/app/other_runs.py`)."""

from pathlib import Path
from typing import Any

from zoo.app.other_runs import other_run
from zoo.config.errors import ConfigError
from zoo.metrics.sample_scores import SampleScores
from zoo.tasks.prediction import Classes
from zoo.tasks.task import Task


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
    other = other_run("features", named, run)
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
