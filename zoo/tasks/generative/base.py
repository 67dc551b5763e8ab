"""What the tasks of all generative models share: drawing samples and showing them.

A task of this kind says how it draws, and defines those of the other methods that its model is
able to do. Programs ask for them by name, so that one command serves every model.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from zoo.figures.grids import are_images, enlarge, image_grid, input_grid, rescale
from zoo.figures.points import scatter_image
from zoo.metrics.modes import ModeScores
from zoo.metrics.sample_scores import SampleScores
from zoo.tasks.prediction import Samples
from zoo.tasks.task import Image, Shown, Task, evaluation_mode, inputs_of

GRID = 64
"""Samples that a dashboard shows."""
MOST_POINTS = 2_500
"""Samples that are drawn in the plane."""

Modes = tuple[tuple[float, ...], ...]
"""The centres of modes, as data with such give them."""


class Generative(Task):
    """A task whose model draws samples.

    A subclass defines :meth:`draw`, and may be a :class:`Decodes` or an :class:`Encodes` too.
    Metrics in nats carry the name of what they are: ``nll`` is an exact negative log-likelihood,
    ``negative_elbo`` the bound with one latent sample, ``nll_k<K>`` the importance-weighted bound
    with K of them. Each is the mean over samples of all their pixels or features together.
    """

    predicts = Samples
    scores: SampleScores | ModeScores | None = None
    """What judges samples, see :meth:`judge_by`."""

    @property
    def normal_latents(self) -> int | None:
        """How many latent variables there are, first in a vector, whose prior is standard normal.

        None for a task that has no such: they could not be moved one at a time.
        """
        return None

    def judge_by(self, scores: SampleScores | ModeScores) -> None:
        """Lets samples be judged in every evaluation: by a classifier's features, or by modes."""
        self.scores = scores
        self.metrics["samples"] = scores

    def judge_by_modes(self, modes: Modes | None, mode_std: float | None) -> None:
        """Lets samples be judged by the modes that the data have, if these are known.

        Args:
            modes: their centres; None: nothing is known of them.
            mode_std: standard deviation of a mode in each direction.

        Raises:
            ValueError: one is known and the other is not, or is no deviation.
        """
        if modes is None and mode_std is None:
            return
        if modes is None or mode_std is None:
            given, missing = ("mode_std", "modes")[:: 1 if modes is None else -1]
            raise ValueError(f"{given} needs {missing} beside it: give both, or neither")
        if not mode_std > 0:
            raise ValueError(f"mode_std must be greater than 0, not {mode_std}")
        self.judge_by(ModeScores(torch.tensor(modes), mode_std))

    def judge(
        self, real: Tensor, generated: Tensor | None = None, asked: Tensor | None = None
    ) -> None:
        """Compares as many samples with real ones, if there is anything to do it by.

        Args:
            real: samples of the data, ``(batch, *)``.
            generated: of the model; None: they are drawn here.
            asked: the classes that they are to be of, ``(batch,)``.
        """
        if self.scores is None:
            return
        if generated is None:
            # Of its own: the other metrics are the same with and without these.
            generator = torch.Generator().manual_seed(self.scores.updates)
            generated = self.draw(len(real), generator)
        self.scores.update(real, generated, asked)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Samples, made of random numbers from a generator on the CPU.

        Shape:
            - output: ``(count, *)``, on the model's device
        """
        raise NotImplementedError(f"{type(self).__name__} does not define draw")

    def sample(self, count: int, *, seed: int = 0) -> Samples:
        """Samples made of random numbers of their own: ``(count, *)``."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad(), evaluation_mode(self.model):
            return Samples(self.draw(count, generator))

    def show_inputs(self, batch: Any) -> dict[str, Image]:
        inputs = inputs_of(batch)
        return {"inputs": Image(input_grid(inputs))} if are_images(inputs) else {}

    def show(self) -> dict[str, Shown]:
        """``samples``, of the same random numbers after every evaluation.

        Images, or points among the modes by which they are judged; others are not shown.
        """
        if isinstance(self.scores, ModeScores):
            points, modes = self.sample(MOST_POINTS).samples, self.scores.modes
            return {"samples": Image(lambda: scatter_image(points, modes))}
        samples = self.sample(GRID).samples
        return {"samples": Image(sample_grid(samples))} if are_images(samples) else {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


@runtime_checkable
class Decodes(Protocol):
    """Makes samples of latent variables."""

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Latent variables from the prior, ``(count, *)``."""

    def decode(self, latents: Tensor) -> Tensor:
        """The samples that latent variables stand for (means, where they are distributions)."""


@runtime_checkable
class Encodes(Protocol):
    """Finds the latent variables of samples; what :class:`Decodes` makes of them is like these."""

    def latents(self, inputs: Tensor) -> Tensor:
        """Latent variables of samples, ``(batch, *)`` (means, where they are distributions)."""


def latents_of_seed(task: Decodes, seed: int) -> Tensor:
    """The latent variables of the sample that a seed alone gives, ``(1, *)``."""
    with torch.no_grad():
        return task.draw_latents(1, torch.Generator().manual_seed(seed))


def sample_grid(samples: Tensor, *, columns: int = 8) -> Tensor:
    """Lays images out as a dashboard shows them: ``(3, height, width)`` in [0, 1]."""
    return image_grid(enlarge(rescale(samples)), columns=columns)
