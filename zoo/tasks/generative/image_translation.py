"""Paired image-to-image translation: a conditional GAN with an L1 term.

Isola et al., 2017, https://arxiv.org/abs/1611.07004
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images, enlarge, image_grid
from zoo.metrics.first_samples import FirstSamples
from zoo.metrics.sums import Mean
from zoo.tasks.generative.adversarial_losses import LOSSES
from zoo.tasks.generative.opponents import Opponents
from zoo.tasks.prediction import Images
from zoo.tasks.task import Image, Objective, Shown, inputs_of

SHOWN = 8
"""Samples that a dashboard shows."""


class ImageTranslation(Opponents):
    r"""Learns to make the image y that belongs to an image x, where such pairs are known.

    .. math:: \min_G \max_D \; \mathbb E_{x, y} \log D(x, y)
        + \mathbb E_{x, z} \log(1 - D(x, G(x, z)))
        + \lambda \, \mathbb E_{x, y, z} \lVert y - G(x, z) \rVert_1

    The model has parts ``generator`` (x to y; its noise z is its own affair) and ``discriminator``
    (x and y joined along their channels to logits, any number of them). A step updates the
    discriminator, by half of its loss, and then the generator, which maximises
    :math:`\log D(x, G(x, z))` and is judged for the same images. The L1 norm is the mean over
    pixels and channels.

    The metrics are ``l1`` and the losses of both networks; noise takes part. After an evaluation
    there is an image of a few samples: x, G(x, z) and y side by side.

    A batch is ``(x, y)``.

    Args:
        model: the two networks.
        l1_weight: :math:`\lambda`.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - y: from -1 to 1, ``(batch, out_channels, height, width)``

    Raises:
        ValueError: if ``l1_weight`` is negative.
    """

    monitor = "l1"
    predicts = Images

    def __init__(self, model: nn.Module, *, l1_weight: float = 100.0) -> None:
        super().__init__(model)
        if not 0 <= l1_weight < math.inf:
            raise ValueError(f"l1_weight must be at least 0, not {l1_weight}")
        self.l1_weight = l1_weight
        self.losses = LOSSES["non_saturating"]
        self.samples = FirstSamples(SHOWN)
        self.metrics |= {"l1": Mean(higher_is_better=False), "samples": self.samples}

    # ------------------------------------------------------------------------------- training

    def objectives(self, batch: Sequence[Tensor]) -> Iterator[Objective]:
        given, real = batch
        with self.turn("generator"):
            fake = self.translate(given, real)
        with self.turn("discriminator"):
            loss = self.discriminator_loss(given, real, fake.detach())
        yield Objective(loss, len(real), "discriminator")
        with self.turn("generator"):
            loss, terms = self.generator_loss(given, real, fake)
        yield Objective(loss, len(real), "generator", terms)

    def translate(self, given: Tensor, real: Tensor) -> Tensor:
        """What the generator makes of images; it must be like the real ones."""
        fake: Tensor = self.generator(given)
        if fake.shape != real.shape:
            raise ValueError(
                f"the generator must return images of the real ones' shape {tuple(real.shape)}, "
                f"not {tuple(fake.shape)}"
            )
        return fake

    def discriminator_loss(self, given: Tensor, real: Tensor, fake: Tensor) -> Tensor:
        r"""Half of :math:`-\log D(x, y) - \log(1 - D(x, G(x, z)))`, mean over the logits."""
        return self.losses.discriminator(self._judge(given, real), self._judge(given, fake)) / 2

    def generator_loss(
        self, given: Tensor, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        r""":math:`-\log D(x, G(x, z))`, mean over the logits, with the L1 term; and both apart."""
        adversarial, l1 = self.losses.generator(self._judge(given, fake)), F.l1_loss(fake, real)
        terms = {"adversarial": adversarial.detach(), "l1": l1.detach()}
        return adversarial + self.l1_weight * l1, terms

    def _judge(self, given: Tensor, images: Tensor) -> Tensor:
        return self.discriminator(*self.judged(images, (given,)))

    def judged(self, images: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """What the discriminator takes, for images and what the generator made them of."""
        return (torch.cat([*inputs, images], dim=1),)

    # ----------------------------------------------------------------------------- evaluation

    def evaluate(self, batch: Sequence[Tensor]) -> None:
        given, real = batch
        fake = self.translate(given, real)
        loss = self.discriminator_loss(given, real, fake)
        self.metrics["discriminator_loss"].update(loss, len(real))
        loss, terms = self.generator_loss(given, real, fake)
        self.metrics["generator_loss"].update(loss, len(real))
        self.metrics["l1"].update(terms["l1"], len(real))
        if are_images(given) and are_images(real):
            self.samples.update(given, fake, real)

    def predict(self, batch: Any) -> Images:
        """The image for each, ``(batch, out_channels, height, width)`` in [0, 1].

        The noise is the same whenever it is asked, so that a file has one translation.
        """
        given = inputs_of(batch)
        devices = [given.device] if given.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            return Images(_unit(self.generator(given)).clamp(0, 1))

    def show_inputs(self, batch: Sequence[Tensor]) -> dict[str, Image]:
        """``inputs``: the first pairs of a batch."""
        if not all(map(are_images, batch)):
            return {}
        return {"inputs": Image(_strips([part[:SHOWN] for part in batch]))}

    def show(self) -> dict[str, Shown]:
        """``samples``: input, translation and truth side by side, two samples a row."""
        kept = self.samples.compute()
        if not kept:
            return {}
        parts = [torch.stack(part) for part in zip(*kept, strict=True)]
        return {"samples": Image(partial(_strips, parts))}


def _unit(images: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1]."""
    return (images.float() + 1) / 2


def _strips(parts: Sequence[Tensor]) -> Tensor:
    """Lays out samples, the parts of each side by side, two samples a row: ``(3, *, *)``."""
    colours = [_unit(part).clamp(0, 1).expand(-1, 3, -1, -1) for part in parts]
    images = torch.stack(colours, dim=1).flatten(0, 1)  # (samples * parts, 3, height, width)
    return image_grid(enlarge(images), columns=2 * len(parts))
