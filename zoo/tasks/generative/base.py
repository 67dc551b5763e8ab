"""What the tasks of all generative models share: drawing samples and showing them.

A task of this kind says how it draws, and defines those of the other methods that its model is
able to do. Programs ask for them by name, so that one command serves every model.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from zoo.figures.grids import are_images, enlarge, image_grid, input_grid, rescale
from zoo.metrics.sample_scores import SampleScores
from zoo.tasks.prediction import Samples
from zoo.tasks.task import Image, Shown, Task, evaluation_mode, inputs_of

GRID = 64
"""Samples that a dashboard shows."""


class Generative(Task):
    """A task whose model draws samples.

    A subclass defines :meth:`draw`, and may be a :class:`Decodes` or an :class:`Encodes` too.
    Metrics in nats carry the name of what they are: ``nll`` is an exact negative log-likelihood,
    ``negative_elbo`` the bound with one latent sample, ``nll_k<K>`` the importance-weighted bound
    with K of them. Each is the mean over samples of all their pixels or features together.
    """

    predicts = Samples
    scores: SampleScores | None = None
    """What judges samples by a classifier's features, see :meth:`judge_by`."""

    @property
    def normal_latents(self) -> int | None:
        """How many latent variables there are, first in a vector, whose prior is standard normal.

        None for a task that has no such: they could not be moved one at a time.
        """
        return None

    def judge_by(self, scores: SampleScores) -> None:
        """Lets samples be judged by a classifier's features in every evaluation."""
        self.scores = scores
        self.metrics["samples"] = scores

    def judge(
        self, real: Tensor, generated: Tensor | None = None, asked: Tensor | None = None
    ) -> None:
        """Compares as many samples with real ones, if there are features to do it by.

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
        """``samples``, of the same random numbers after every evaluation, if they are images."""
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
