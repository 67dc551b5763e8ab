"""What a run takes from other runs (`zoo/app/other_runs.py`): whoever judges it, or teaches it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.app.generative.features import attach_features
from zoo.app.other_runs import difference_of_data, other_run
from zoo.config.errors import ConfigError
from zoo.config.recipe import Recipe
from zoo.tasks.task import Task


def attach_other_runs(recipe: Recipe, task: Task, data: Any, *, run: Path | None = None) -> None:
    """Gives a task the networks of the runs that its configuration names.

    Args:
        recipe: of the run.
        task: its task.
        data: its data module.
        run: the run folder, where it has begun; None: the runs that are named are read.

    Raises:
        ConfigError: the task has no use for one, or the other run does not fit.
    """
    attach_features(recipe.task.options.get("features"), task, data, run=run)
    attach_teacher(recipe, task, data, run=run)


def attach_teacher(recipe: Recipe, task: Task, data: Any, *, run: Path | None = None) -> None:
    """Gives a task the network that `task.teacher` names, as above.

    Raises:
        ConfigError: the task learns from no teacher, none is named, or the other run does not
            classify the same samples.
    """
    named = recipe.task.options.get("teacher")
    kind = type(task).__name__
    if not hasattr(task, "learn_from"):
        if named is None:
            return
        raise ConfigError(f"task.teacher={named}: {kind} learns from no teacher; omit it")
    if named is None:
        raise ConfigError(
            f"task.teacher: {kind} learns from another run: task.teacher=<run folder>"
        )
    other = other_run("teacher", named, run)
    if other.task.output_kind != "logits":
        raise ConfigError(
            f"task.teacher={named}: must be a run of a classifier with probabilities, and this one "
            f"trains {type(other.task.model).__name__} by {type(other.task).__name__}"
        )
    convert = _converter(named, recipe.data.node, data, other.config["data"], other.data)
    task.learn_from(other.task.model, convert)


def _converter(
    named: str, node: Mapping[str, Any], data: Any, theirs: Mapping[str, Any], other: Any
) -> Any:
    """What makes of the student's inputs the teacher's; None: they are the same."""
    difference = difference_of_data(node, data, theirs, other)
    if not difference:
        return None
    if not hasattr(data, "converter") or not hasattr(other, "normalize"):
        raise ConfigError(f"task.teacher={named}: was trained on other data: {difference}")
    if list(data.class_names) != list(other.class_names):
        raise ConfigError(
            f"task.teacher={named}: was trained on other classes than these data have"
        )
    try:
        return data.converter(other)
    except ValueError as error:
        raise ConfigError(f"task.teacher={named}: {error}") from error
