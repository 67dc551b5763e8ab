"""Adversarial learning: a generator against a discriminator.

Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images, enlarge, image_grid, input_grid, rescale
from zoo.metrics.frechet import FrechetDistance, PrincipalComponents
from zoo.metrics.sums import Mean
from zoo.tasks.prediction import Samples
from zoo.tasks.task import Image, Objective, Shown, Task, evaluation_mode, inputs_of

_PARTS = ("generator", "discriminator", "latent_dim")


class Adversarial(Task):
    r"""Algorithm 1: the discriminator learns to tell, then the generator to deceive.

    .. math:: \min_G \max_D \; \mathbb{E}_x \log D(x) + \mathbb{E}_z \log(1 - D(G(z)))

    The model has parts ``generator`` (noise to samples) and ``discriminator`` (samples to logits,
    :math:`D = \sigma(\mathrm{logits})`), and its ``latent_dim`` is the width of the noise, which is
    standard normal. The logarithms are taken of logits, where they cannot overflow: binary
    cross-entropy with logits is :math:`-\log D` for the target 1 and :math:`-\log(1 - D)` for the
    target 0.

    The metrics are ``frechet_distance`` between the real samples of a split and as many generated
    ones (see :mod:`zoo.metrics.frechet`; in squared units of the data), which does not depend on
    how good the discriminator is, and the two losses.

    A batch is ``(samples, ...)`` or the samples alone.

    Args:
        model: the two networks.
        loss: the generator minimises :math:`-\log D(G(z))` (``"non_saturating"``, what section 3
            recommends) or :math:`\log(1 - D(G(z)))` (``"minimax"``, as Algorithm 1 is printed).
        discriminator_steps: the paper's k. All of them see the batch's real samples, each with
            fresh noise.
        num_components: principal components of the training samples that the distance is about.

    Shape:
        - samples: ``(batch, *)``
    """

    monitor = "frechet_distance"
    predicts = Samples

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Literal["non_saturating", "minimax"] = "non_saturating",
        discriminator_steps: int = 1,
        num_components: int = 32,
    ) -> None:
        super().__init__(model)
        if missing := [name for name in _PARTS if not hasattr(model, name)]:
            raise TypeError(
                f"model must have {', '.join(_PARTS)}; {type(model).__name__} lacks "
                f"{', '.join(missing)}"
            )
        if loss not in ("non_saturating", "minimax"):
            raise ValueError(f"loss must be 'non_saturating' or 'minimax', not {loss!r}")
        if discriminator_steps < 1:
            raise ValueError(f"discriminator_steps must be at least 1, not {discriminator_steps}")
        latent_dim: Any = model.latent_dim
        self.latent_dim = int(latent_dim)
        self.is_minimax = loss == "minimax"
        self.discriminator_steps = discriminator_steps
        self.components = PrincipalComponents(num_components)
        self.metrics = {
            "frechet_distance": FrechetDistance(),
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

    def objectives(self, batch: Any) -> Iterator[Objective]:
        real = inputs_of(batch)
        count = len(real)
        for _ in range(self.discriminator_steps):
            with self.turn("discriminator"):
                fake = self.generator(self._noise_for(real)).detach()
                loss = self.discriminator_loss(real, fake)
            yield Objective(loss, count, "discriminator")
        with self.turn("generator"):
            loss = self.generator_loss(self.generator(self._noise_for(real)))
        yield Objective(loss, count, "generator")

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        r""":math:`-\log D(x) - \log(1 - D(G(z)))`, the mean over the batch.

        Real and generated samples pass one after the other, so that batch normalisation in the
        discriminator does not mix them.
        """
        if fake.shape != real.shape:
            raise ValueError(
                f"the generator must return samples of the real ones' shape {tuple(real.shape)}, "
                f"not {tuple(fake.shape)}"
            )
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        real_loss = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
        fake_loss = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
        return real_loss + fake_loss

    def generator_loss(self, fake: Tensor) -> Tensor:
        r""":math:`-\log D(G(z))`, for minimax :math:`\log(1 - D(G(z)))`: mean over the batch."""
        logits = self.discriminator(fake)
        if self.is_minimax:
            return -F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    def prepare(self, batches: Iterable[Any]) -> None:
        """Finds the principal components of the training samples."""
        self.components.fit(inputs_of(batch) for batch in batches)

    def evaluate(self, batch: Any) -> None:
        real = inputs_of(batch)
        fake = self.generator(self._noise_for(real))
        self.metrics["frechet_distance"].update(self.components(real), self.components(fake))
        self.metrics["discriminator_loss"].update(self.discriminator_loss(real, fake), len(real))
        self.metrics["generator_loss"].update(self.generator_loss(fake), len(real))

    def predict(self, batch: Any) -> Samples:
        """Generated samples for a batch of noise ``(batch, latent_dim)``."""
        return Samples(self.generator(inputs_of(batch)))

    def sample(self, count: int, *, seed: int = 0) -> Samples:
        """Generated samples from random numbers of their own: ``(count, *)``."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, self.latent_dim, generator=generator)
        with evaluation_mode(self.generator):
            return self.predict(noise.to(next(self.generator.parameters())))

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return (self._noise_for(inputs_of(batch)),)

    def show_inputs(self, batch: Any) -> dict[str, Image]:
        inputs = inputs_of(batch)
        return {"inputs": Image(input_grid(inputs))} if are_images(inputs) else {}

    def show(self) -> dict[str, Shown]:
        """``samples``, of the same noise after every evaluation, if the samples are images."""
        samples = self.sample(64).samples
        if not are_images(samples):
            return {}
        return {"samples": Image(image_grid(enlarge(rescale(samples)), columns=8))}

    def state_dict(self) -> dict[str, Any]:
        return {"components": self.components.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.components.load_state_dict(state["components"])

    def _noise_for(self, real: Tensor) -> Tensor:
        return torch.randn(len(real), self.latent_dim, device=real.device, dtype=real.dtype)
