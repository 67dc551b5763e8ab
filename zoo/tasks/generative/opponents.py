"""What tasks of a generator and a discriminator share, whatever the generator is given."""

from typing import ClassVar

from torch import nn

from zoo.metrics.sums import Mean
from zoo.tasks.task import Task, require_parts


class Opponents(Task):
    """A generator and a discriminator that are trained in turns, each by its own optimizer.

    Args:
        model: has both as parts of these names.

    Attributes:
        parts: what a model must have.
    """

    parts: ClassVar[tuple[str, ...]] = ("generator", "discriminator")

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        require_parts(model, *self.parts)
        self.metrics = {
            "discriminator_loss": Mean(higher_is_better=False),
            "generator_loss": Mean(higher_is_better=False),
        }

    @property
    def generator(self) -> nn.Module:
        return self.model.get_submodule("generator")

    @property
    def discriminator(self) -> nn.Module:
        return self.model.get_submodule("discriminator")

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}
