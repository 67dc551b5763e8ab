"""What is wrong with a sweep is found before its first run: every combination is built once."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.app.place import RunLocation, Train
from zoo.config.errors import ConfigError
from zoo.config.recipe import Recipe
from zoo.config.run_config import dump

if TYPE_CHECKING:
    from zoo.training.trainer import Trainer


@contextlib.contextmanager
def naming_job(number: int, jobs: int, noun: str = "job") -> Iterator[None]:
    """Says of which job of a sweep a refusal is."""
    try:
        yield
    except ConfigError as error:
        where = f" ({noun} {number} of {jobs})" if jobs > 1 else ""
        raise ConfigError(f"{error}{where}; nothing has been run") from error


def repetitions(recipes: Sequence[Recipe]) -> dict[int, int]:
    """The jobs that are earlier ones again, in all values and in the seed."""
    first: dict[str, int] = {}
    found = {}
    for number, recipe in enumerate(recipes):
        earlier = first.setdefault(dump(recipe.config), number)
        if earlier != number:
            found[number] = earlier
    return found


class Built(Exception):
    """Everything of a run has been built, and there is nothing wrong with it."""


@dataclass
class Nowhere(RunLocation):
    """Stops runs where their folder would be made; those on one device share their data.

    Attributes:
        data: what has been set up, by device.
        selected: the validation metrics that select checkpoints, with their direction.
    """

    parent: Path = Path()
    data: dict[str, Any] = field(default_factory=dict)
    selected: set[tuple[str, str]] = field(default_factory=set)

    def set_up_data(self, recipe: Recipe, device: Any, part: tuple[int, int] = (0, 1)) -> Any:
        key = str(device)
        if key not in self.data:
            self.data[key] = super().set_up_data(recipe, device)
        return self.data[key]

    def require_same_selection(self, trainer: "Trainer") -> None:
        if "val" in trainer.data.splits:
            self.selected.add((trainer.monitor, trainer.mode))

    @contextlib.contextmanager
    def open(self, recipe: Recipe, device: Any, data: Any) -> Iterator[Any]:
        raise Built
        yield


def build_all(
    train: Train, recipes: Sequence[Recipe], *, noun: str = "job"
) -> set[tuple[str, str]]:
    """Builds every different run once, for what only constructors refuse.

    Data are set up once for all runs that have the same, whatever their seeds: nothing is learned
    here, and a seed changes only order and augmentation.

    Returns:
        The validation metrics that select checkpoints, with their direction.

    Raises:
        ConfigError: a part refused a value.
    """
    different = {dump(r.config | {"seed": 0, "name": ""}): n for n, r in enumerate(recipes)}
    selected: set[tuple[str, str]] = set()
    alike: dict[str, list[int]] = {}
    for number in different.values():
        alike.setdefault(dump(recipes[number].data.node), []).append(number)
    for numbers in alike.values():
        place = Nowhere(selected=selected)  # One at a time: only one set of data is in memory.
        for number in numbers:
            with naming_job(number, len(recipes), noun):
                try:
                    train(recipes[number], place)
                except ConfigError:
                    raise
                except Exception:
                    continue  # `Built`, or a failure of this one job, which it will report.
    return selected
