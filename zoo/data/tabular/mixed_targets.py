"""Several targets of different kinds, side by side: numbers, and classes by their numbers.

Each column is what :class:`~zoo.data.tabular.targets.Targets` makes of it alone; together they are
float32 ``(rows, columns)``. A model returns for a row what belongs to the first target, then what
belongs to the second: one value of a number, a logit for each class of classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.data.tabular.frame import Frame
from zoo.data.tabular.targets import MixedKinds, Targets


class MixedTargets:
    """What the targets of the training rows say, and with it the targets of any rows.

    Args:
        parts: one column each.
    """

    def __init__(self, parts: Sequence[Targets]) -> None:
        self.parts = list(parts)
        self.value_names: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, frame: Frame, train: Tensor, names: Sequence[str], kinds: MixedKinds, *, scale: bool
    ) -> "MixedTargets":
        """Looks at the training rows.

        Args:
            frame: all rows.
            train: those for training.
            names: the columns.
            kinds: of each.
            scale: whether to standardise numbers.

        Raises:
            DataError: as of :meth:`Targets.fit`.
        """
        return cls(
            [
                Targets.fit(frame, train, [name], kind, scale=scale)
                for name, kind in zip(names, kinds, strict=True)
            ]
        )

    def tensor(self, frame: Frame, split: str) -> Tensor:
        """The targets of rows, ``(rows, columns)``; see :meth:`Targets.tensor`."""
        columns = [part.tensor(frame, split).reshape(-1).float() for part in self.parts]
        return torch.stack(columns, 1)

    def restored(self, prediction: Any) -> Any:
        """A prediction for each target by name, its numbers in the target's own units."""
        restored = {
            part.names[0]: part.restored(prediction.parts[part.names[0]]) for part in self.parts
        }
        return type(prediction)(restored)

    def facts(self) -> dict[str, Any]:
        """What they say to a model, which has as many outputs, and to a task."""
        width = sum(len(part.class_names) or 1 for part in self.parts)
        return {
            "num_classes": width,
            "out_features": width,
            "target_names": [part.names[0] for part in self.parts],
            "target_classes": [list(part.class_names) for part in self.parts],
        }

    def lacks(self) -> dict[str, str]:
        """Which task these targets are for, by the fact that others ask for."""
        return {"class_names": "the targets are of several kinds: set task=multi_task"}

    def note(self, train: Frame) -> str:
        """The targets of the training rows in words, with the task that they are for."""
        lines = [part.note(train).replace(part.task, "task=multi_task") for part in self.parts]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain Python."""
        return {"parts": [part.to_json() for part in self.parts]}


def restored_targets(content: dict[str, Any]) -> Targets | MixedTargets:
    """The targets whose ``to_json()`` was ``content``."""
    if "parts" in content:
        return MixedTargets([Targets(**part) for part in content["parts"]])
    return Targets(**content)
