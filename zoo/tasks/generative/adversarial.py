"""Adversarial learning: a generator against a discriminator.

Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661, and what has been made of it: conditional
(Mirza and Osindero, 2014, https://arxiv.org/abs/1411.1784), with least squares (Mao et al., 2017,
https://arxiv.org/abs/1611.04076), a hinge (Lim and Ye, 2017, https://arxiv.org/abs/1705.02894;
Miyato et al., 2018, https://arxiv.org/abs/1802.05957), the Wasserstein distance by clipped weights
(Arjovsky et al., 2017, https://arxiv.org/abs/1701.07875) or a gradient penalty (Gulrajani et al.,
2017, https://arxiv.org/abs/1704.00028), and packed (Lin et al., 2018,
https://arxiv.org/abs/1712.04086).
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from zoo.metrics.frechet import FrechetDistance, PrincipalComponents
from zoo.metrics.modes import ModeScores
from zoo.metrics.sample_scores import SampleScores
from zoo.tasks.generative.adversarial_losses import LOSSES, LossName, gradient_penalty, pack
from zoo.tasks.generative.base import GRID, Generative, sample_grid
from zoo.tasks.generative.opponents import Opponents
from zoo.tasks.prediction import Samples
from zoo.tasks.task import Image, Objective, Shown, inputs_of


class AdversarialOptions(TypedDict, total=False):
    """Arguments of :class:`Adversarial` that are the same for every kind of samples."""

    loss: LossName
    generator_every: int
    reuse_fake: bool
    gradient_penalty: float
    weight_clip: float | None
    num_components: int


class Adversarial(Opponents, Generative):
    r"""Algorithm 1: the discriminator learns to tell, then the generator to deceive.

    .. math:: \min_G \max_D \; \mathbb{E}_x \log D(x) + \mathbb{E}_z \log(1 - D(G(z)))

    The model has parts ``generator`` (noise to samples) and ``discriminator`` (samples to one
    number each; for the cross-entropies a logit, :math:`D = \sigma(\mathrm{logits})`), and its
    ``latent_dim`` is the width of the noise, which is standard normal. The logarithms are taken of
    logits, where they cannot overflow: binary cross-entropy with logits is :math:`-\log D` for the
    target 1 and :math:`-\log(1 - D)` for the target 0.

    A model with ``num_classes`` is conditional: both of its networks take the sample's class too,
    as a vector with a one, and a batch holds it. The discriminator of a model with ``packing`` m
    judges m samples at once, joined along their channels.

    A step takes one batch of real samples for one update of the discriminator, and every n-th step
    updates the generator after it.

    The metrics are ``frechet_distance`` between the real samples of a split and as many generated
    ones (see :mod:`zoo.metrics.frechet`; in squared units of the data), which does not depend on
    how good the discriminator is; beside it ``real_frechet_distance``, that between the two halves
    of the real samples (half as many, which differ by chance about twice as much); and the two
    losses, without the penalty.

    A batch is ``(samples, ...)`` or the samples alone, for a conditional model
    ``(samples, classes)``.

    Args:
        model: the two networks.
        loss: ``non_saturating``: the generator minimises :math:`-\log D(G(z))`, what section 3
            recommends; ``minimax``: :math:`\log(1 - D(G(z)))`, as Algorithm 1 is printed;
            ``least_squares``: targets 1 and 0, equation 9 of Mao et al.; ``hinge``;
            ``wasserstein``: the discriminator is a critic whose slope has to be bounded.
        generator_every: n, the paper's k: updates of the discriminator for one of the generator,
            each on a new batch.
        reuse_fake: whether the generator's update judges the same generated samples as the
            discriminator's before it, as PyTorch's DCGAN example does, or draws new ones.
        gradient_penalty: weight of the penalty on the slope of the discriminator (Gulrajani et al.:
            10), which then must not have batch normalisation.
        weight_clip: largest magnitude of the discriminator's weights, to which they are clipped
            after each of its updates (Arjovsky et al.: 0.01).
        num_components: principal components of the training samples that the distance is about.

    Shape:
        - samples: ``(batch, *)``
        - classes: ``(batch,)``
    """

    monitor = "frechet_distance"
    parts = (*Opponents.parts, "latent_dim")

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: LossName = "non_saturating",
        generator_every: int = 1,
        reuse_fake: bool = False,
        gradient_penalty: float = 0.0,
        weight_clip: float | None = None,
        num_components: int = 32,
    ) -> None:
        super().__init__(model)
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
        if generator_every < 1:
            raise ValueError(f"generator_every must be at least 1, not {generator_every}")
        if not 0 <= gradient_penalty < math.inf:
            raise ValueError(f"gradient_penalty must be at least 0, not {gradient_penalty}")
        if weight_clip is not None and not 0 < weight_clip < math.inf:
            raise ValueError(f"weight_clip must be greater than 0, not {weight_clip}")
        if weight_clip is not None and gradient_penalty:
            raise ValueError(
                f"weight_clip={weight_clip} and gradient_penalty={gradient_penalty} bound the same "
                "slope; choose one"
            )
        settings: Any = model
        self.latent_dim = int(settings.latent_dim)
        self.num_classes: int | None = getattr(model, "num_classes", None)
        self.packing: int = getattr(model, "packing", 1)
        self.losses = LOSSES[loss]
        self.generator_every, self.reuse_fake = generator_every, reuse_fake
        self.penalty_weight, self.weight_clip = gradient_penalty, weight_clip
        self.differentiates = gradient_penalty > 0
        if gradient_penalty:
            _refuse_batch_norm(self.discriminator, gradient_penalty)
        elif loss == "wasserstein" and weight_clip is None and not _is_spectral(self.discriminator):
            raise ValueError(
                "loss=wasserstein needs a critic with a bounded slope: set gradient_penalty=10, "
                "weight_clip=0.01, or give the discriminator spectral normalisation"
            )
        if generator_every > 1:
            self.update_every = {"generator": generator_every}
        # Updates of the discriminator; None: begun by a version that did not count them.
        self.critic_updates: int | None = 0
        self.components = PrincipalComponents(num_components)
        self.metrics = {
            "frechet_distance": FrechetDistance(),
            "real_frechet_distance": FrechetDistance(),
            **self.metrics,
        }

    # ------------------------------------------------------------------------------- training

    def objectives(self, batch: Any) -> Iterator[Objective]:
        if self.critic_updates is None:
            raise RuntimeError(
                "this run took several discriminator_steps on each batch, which is done no more: "
                "it can be evaluated, but must be started anew to train, with generator_every="
                f"{self.generator_every}"
            )
        # Asked of the counter, so that the batches of a step agree, before an update moves it.
        yield from self._turns(batch, is_last=(self.critic_updates + 1) % self.generator_every == 0)

    def every_objective(self, batch: Any) -> Iterator[Objective]:
        return self._turns(batch, is_last=True)

    def _turns(self, batch: Any, *, is_last: bool) -> Iterator[Objective]:
        """The discriminator's turn and, after its last one, the generator's."""
        real, classes = self._parts(batch)
        if len(real) % self.packing:
            raise ValueError(
                f"packing={self.packing} needs batches of a multiple of {self.packing} samples, "
                f"not {len(real)}: choose another data.batch_size, and data.drop_last=true"
            )
        is_reused = is_last and self.reuse_fake
        with self.turn("generator" if is_reused else "discriminator"):
            fake = self._generate(real, classes)
        with self.turn("discriminator"):
            loss = self.discriminator_loss(real, fake.detach(), classes)
            terms = None
            if self.penalty_weight:
                penalty = self.penalty(real, fake.detach(), classes)
                loss, terms = loss + self.penalty_weight * penalty, {"penalty": penalty.detach()}
        yield Objective(loss, len(real), "discriminator", terms)
        if is_last:
            with self.turn("generator"):
                if not is_reused:
                    fake = self._generate(real, classes)
                loss = self.generator_loss(fake, classes)
            yield Objective(loss, len(real), "generator")

    def after_update(self, network: str) -> None:
        """Counts the discriminator's updates, and clips its weights."""
        if network != "discriminator":
            return
        assert self.critic_updates is not None
        self.critic_updates += 1
        if self.weight_clip is not None:
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    if parameter.requires_grad:
                        parameter.clamp_(-self.weight_clip, self.weight_clip)

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, classes: Tensor | None = None
    ) -> Tensor:
        r""":math:`-\log D(x) - \log(1 - D(G(z)))`, or what ``loss`` says: mean over the batch.

        Real and generated samples pass one after the other, so that batch normalisation in the
        discriminator does not mix them.
        """
        if fake.shape != real.shape:
            raise ValueError(
                f"the generator must return samples of the real ones' shape {tuple(real.shape)}, "
                f"not {tuple(fake.shape)}"
            )
        return self.losses.discriminator(self._judge(real, classes), self._judge(fake, classes))

    def generator_loss(self, fake: Tensor, classes: Tensor | None = None) -> Tensor:
        r""":math:`-\log D(G(z))`, or what ``loss`` says: mean over the batch."""
        return self.losses.generator(self._judge(fake, classes))

    def penalty(self, real: Tensor, fake: Tensor, classes: Tensor | None = None) -> Tensor:
        """The gradient penalty, unweighted, of packs where samples are packed."""
        critic = self.discriminator if classes is None else partial(self._score, classes=classes)
        return gradient_penalty(critic, pack(real, self.packing), pack(fake, self.packing))

    def _judge(self, samples: Tensor, classes: Tensor | None) -> Tensor:
        return self._score(pack(samples, self.packing), classes)

    def _score(self, packs: Tensor, classes: Tensor | None) -> Tensor:
        if classes is None:
            return self.discriminator(packs)
        return self.discriminator(packs, pack(classes, self.packing))

    def _parts(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The samples, and their classes as vectors with a one, if the model is conditional."""
        samples = inputs_of(batch)
        if self.num_classes is None:
            return samples, None
        return samples, F.one_hot(batch[1], self.num_classes).to(samples.dtype)

    def _generate(self, real: Tensor, classes: Tensor | None) -> Tensor:
        return self.generator(*self._given(real, classes))

    def _given(self, real: Tensor, classes: Tensor | None) -> tuple[Tensor, ...]:
        """What the generator takes: noise, and the classes if there are any."""
        noise = self._noise_for(real)
        return (noise,) if classes is None else (noise, classes)

    def _noise_for(self, real: Tensor) -> Tensor:
        return torch.randn(len(real), self.latent_dim, device=real.device, dtype=real.dtype)

    # ----------------------------------------------------------------------------- evaluation

    def prepare(self, batches: Iterable[Any]) -> None:
        """Finds the principal components of the training samples."""
        self.components.fit(inputs_of(batch) for batch in batches)

    def evaluate(self, batch: Any) -> None:
        real, classes = self._parts(batch)
        fake = self._generate(real, classes)
        self.compare(real, fake)
        self.judge(real, fake, None if classes is None else batch[1])
        count = len(real) // self.packing * self.packing
        if count:
            loss = self.discriminator_loss(real, fake, classes)
            self.metrics["discriminator_loss"].update(loss, count)
            self.metrics["generator_loss"].update(self.generator_loss(fake, classes), count)

    def judge_by(self, scores: SampleScores | ModeScores) -> None:
        """Judges samples; a classifier's features, if these are known, select checkpoints too."""
        super().judge_by(scores)
        if isinstance(scores, SampleScores):
            self.monitor = "feature_distance"

    def compare(self, real: Tensor, fake: Tensor) -> None:
        """Updates the metrics of samples that need no classifier's features."""
        real, fake = self.components(real), self.components(fake)
        self.metrics["frechet_distance"].update(real, fake)
        self.metrics["real_frechet_distance"].update(real[::2], real[1::2])

    # -------------------------------------------------------------------------------- samples

    @property
    def normal_latents(self) -> int:
        return self.latent_dim

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise ``(count, latent_dim)``; with a class in turn behind it if there are classes."""
        noise = torch.randn(count, self.latent_dim, generator=generator)
        if self.num_classes is not None:
            classes = F.one_hot(torch.arange(count) % self.num_classes, self.num_classes)
            noise = torch.cat([noise, classes.to(noise)], dim=1)  # (count, latent_dim + classes)
        return noise.to(next(self.generator.parameters()))

    def decode(self, latents: Tensor) -> Tensor:
        """What the generator makes of noise, with a vector of classes behind it if there are."""
        if self.num_classes is None:
            return self.generator(latents)
        noise, classes = latents.split([self.latent_dim, self.num_classes], dim=1)
        return self.generator(noise, classes)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self.decode(self.draw_latents(count, generator))

    def predict(self, batch: Any) -> Samples:
        """Generated samples for a batch of latent variables, see :meth:`draw_latents`."""
        return Samples(self.decode(inputs_of(batch)))

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return self._given(*self._parts(batch))

    def show(self) -> dict[str, Shown]:
        """``samples`` of the same noise after every evaluation, if they are images.

        Those of a conditional model have a column for each class.
        """
        if self.num_classes is None:
            return super().show()
        columns = self.num_classes
        samples = self.sample(max(1, GRID // columns) * columns).samples
        return {"samples": Image(sample_grid(samples, columns=columns))}

    # ---------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        return {"components": self.components.state_dict(), "critic_updates": self.critic_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.components.load_state_dict(state["components"])
        # Where both networks are updated in every step, the number says nothing.
        unknown = 0 if self.generator_every == 1 else None
        self.critic_updates = state.get("critic_updates", unknown)


def _refuse_batch_norm(discriminator: nn.Module, weight: float) -> None:
    for name, module in discriminator.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"gradient_penalty={weight:g} needs a discriminator without batch normalisation, "
                "under which the slope at a sample depends on the others of its batch, but "
                f"discriminator.{name} is a {type(module).__name__}: build the model without it"
            )


def _is_spectral(discriminator: nn.Module) -> bool:
    return any(is_parametrized(module) for module in discriminator.modules())
