"""Variational inference: a bound on the likelihood is what is learned and what is reported.

Kingma and Welling, 2014, https://arxiv.org/abs/1312.6114; Burda, Grosse and Salakhutdinov, 2016,
"Importance weighted autoencoders", https://arxiv.org/abs/1509.00519.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images, enlarge, image_grid, rescale
from zoo.metrics.sums import Mean
from zoo.tasks.generative.base import GRID, Generative, sample_grid
from zoo.tasks.generative.bernoulli import mean_sample
from zoo.tasks.prediction import Samples
from zoo.tasks.task import Image, Objective, Shown, evaluation_mode, inputs_of, require_parts

SHOWN = 8
"""Images a row of a figure, and values of a latent variable that is moved."""
FEW = 16
"""Latent variables, or classes, that have a row or a column of their own."""
AT_ONCE = 2**22
"""Pixels that are decoded at once where many latent samples are drawn."""

_PARTS = ("encode", "decode", "latent_dim", "num_classes", "likelihood")


class VariationalInference(Generative):
    r"""Learns to bound the likelihood of images from below by latent variables.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z|x)} \log p(x|z) - \mathrm{KL}(q(z|x) \,\|\, p(z))
    .. math:: \log p(x) \ge \mathbb{E} \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k | x)}

    The first is equation 3 of Kingma and Welling, with the divergence in closed form; the second,
    equation 8 of Burda et al., rises with K. Each is a sum over pixels and a mean over images, in
    nats. Terms of the training curve are ``reconstruction``, the first's expectation with its sign
    changed, and ``kl``.

    The metrics are ``negative_elbo`` (one latent sample an image), its two parts, and, with
    ``importance_samples``, ``nll_k<K>``. They are bounds whatever ``beta``, warm-up and
    ``free_bits`` are.

    Where the model is conditional, latent variables have the one-hot class behind them in all
    methods of this task, so that whoever decodes, moves or mixes them need not know of classes.

    A batch is ``(images, ...)`` or the images alone; for a conditional model ``(images, classes)``.

    Args:
        model: called with images, classes and ``samples=``; with ``encode``, ``decode``,
            ``latent_dim``, ``num_classes`` and ``likelihood``: see ``VariationalAutoencoder`` in
            ``zoo/models/generative/variational_autoencoder.py``.
        objective: ``elbo``, the first bound, or ``iwae``, the second.
        samples: latent samples an image in training: the K of ``iwae``; of ``elbo`` they make the
            expectation more precise.
        beta: weight of the divergence (Higgins et al., 2017, "beta-VAE").
        kl_warmup_steps: optimizer steps over which that weight rises from 0 (Sønderby et al.,
            2016, "Ladder variational autoencoders").
        free_bits: nats of each latent variable's divergence, averaged over the batch, that cost
            nothing (Kingma et al., 2016, https://arxiv.org/abs/1606.04934).
        importance_samples: the K of ``nll_k<K>`` in every evaluation; 0: none. A stored run may
            change it, so that the costly estimate need be made only once.

    Shape:
        - images: ``(batch, channels, height, width)``
        - classes: ``(batch,)``
    """

    monitor = "negative_elbo"
    changeable: ClassVar[tuple[str, ...]] = ("importance_samples",)

    def __init__(
        self,
        model: nn.Module,
        *,
        objective: Literal["elbo", "iwae"] = "elbo",
        samples: int = 1,
        beta: float = 1.0,
        kl_warmup_steps: int = 0,
        free_bits: float = 0.0,
        importance_samples: int = 0,
    ) -> None:
        super().__init__(model)
        require_parts(model, *_PARTS)
        if objective not in ("elbo", "iwae"):
            raise ValueError(f"objective must be 'elbo' or 'iwae', not {objective!r}")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        for name, value in (
            ("beta", beta),
            ("kl_warmup_steps", kl_warmup_steps),
            ("free_bits", free_bits),
            ("importance_samples", importance_samples),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0, not {value}")
        if objective == "iwae" and (beta, kl_warmup_steps, free_bits) != (1, 0, 0):
            raise ValueError(
                "objective=iwae has no divergence to weigh: leave beta=1, kl_warmup_steps=0 and "
                f"free_bits=0, not {beta}, {kl_warmup_steps} and {free_bits}"
            )
        self.is_importance_weighted = objective == "iwae"
        self.samples, self.beta, self.free_bits = samples, beta, free_bits
        self.kl_warmup_steps = kl_warmup_steps
        self.importance_samples = importance_samples
        self.steps = 0
        self._shown: tuple[Tensor, Tensor | None] | None = None
        self.metrics = {
            "negative_elbo": Mean(higher_is_better=False),
            "reconstruction": Mean(higher_is_better=False),
            "kl": Mean(),
        }
        if importance_samples:
            self.metrics[f"nll_k{importance_samples}"] = Mean(higher_is_better=False)

    @property
    def network(self) -> Any:
        """The model, with its own methods."""
        return self.model

    # ------------------------------------------------------------------------------ learning

    def prepare(self, batches: Iterable[Any]) -> None:
        """Looks whether the data suit the likelihood, and starts the decoder at their mean."""
        mean, _ = mean_sample(
            map(inputs_of, batches), is_bernoulli=self.network.likelihood == "bernoulli"
        )
        if hasattr(self.model, "start_at"):
            self.network.start_at(mean.float().to(self.device))

    def objectives(self, batch: Any) -> Iterator[Objective]:
        step = self.steps
        loss, count, terms = self.loss(batch)
        yield Objective(loss, count, terms=terms)
        self.steps = step + 1  # once for all batches whose gradients are accumulated

    def loss(self, batch: Any) -> tuple[Tensor, int, dict[str, Tensor]]:
        images, classes = self._parts_of(batch)
        found = self.model(images, classes, samples=self.samples)
        reconstruction = -log_likelihood(images, found).mean()
        kl = divergence(found).mean(0)  # (latent_dim,)
        penalty = kl.sum()
        terms = {"reconstruction": reconstruction.detach(), "kl": penalty.detach()}
        if self.is_importance_weighted:
            weights = log_weights(images, found)  # (samples, batch)
            bound = weights.logsumexp(0) - math.log(self.samples)  # (batch,)
            return -bound.mean(), len(images), terms
        if self.free_bits:
            penalty = kl.clamp_min(self.free_bits).sum()
        return reconstruction + self.kl_weight * penalty, len(images), terms

    @property
    def kl_weight(self) -> float:
        """The weight of the divergence in the next step."""
        if self.steps >= self.kl_warmup_steps:
            return self.beta
        return self.beta * self.steps / self.kl_warmup_steps

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = int(state["steps"])

    # ---------------------------------------------------------------------------- evaluation

    def reset(self) -> None:
        super().reset()
        self._shown = None

    def evaluate(self, batch: Any) -> None:
        images, classes = self._parts_of(batch)
        found = self.model(images, classes)
        reconstruction = -log_likelihood(images, found).mean()
        kl, count = divergence(found).sum(1).mean(), len(images)
        self.metrics["negative_elbo"].update(reconstruction + kl, count)
        self.metrics["reconstruction"].update(reconstruction, count)
        self.metrics["kl"].update(kl, count)
        if self.importance_samples:
            nll = -self.importance_weighted_bound(images, classes, self.importance_samples)
            self.metrics[f"nll_k{self.importance_samples}"].update(nll.mean(), count)
        self.judge(images)
        if self._shown is None:
            self._shown = images[:SHOWN], None if classes is None else classes[:SHOWN]

    def importance_weighted_bound(
        self, images: Tensor, classes: Tensor | None, samples: int
    ) -> Tensor:
        """The second bound of each image, ``(batch,)``, with memory for a few samples at a time.

        Args:
            images: ``(batch, channels, height, width)``.
            classes: one-hot, ``(batch, num_classes)``; None if the model has none.
            samples: the K.
        """
        at_once = max(1, AT_ONCE // images.numel())
        total: Tensor | None = None
        for start in range(0, samples, at_once):
            found = self.model(images, classes, samples=min(at_once, samples - start))
            part = log_weights(images, found).logsumexp(0)  # (batch,)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None
        return total - math.log(samples)

    # -------------------------------------------------------------- latent variables, samples

    @property
    def normal_latents(self) -> int:
        size: int = self.network.latent_dim
        return size

    def draw_latents(
        self, count: int, generator: torch.Generator, classes: Tensor | None = None
    ) -> Tensor:
        """Latent variables from the prior; of a conditional model with the classes in turn.

        Args:
            count: how many.
            generator: of the random numbers, on the CPU.
            classes: others, ``(count,)``.
        """
        latents = torch.randn(count, self.network.latent_dim, generator=generator)
        latents = latents.to(self.device)
        if self.network.num_classes is None:
            if classes is not None:
                raise ValueError("this model is not conditional: it has no samples of a class")
            return latents
        if classes is None:
            classes = torch.arange(count) % self.network.num_classes
        one_hot = self._one_hot(classes.to(self.device))
        return torch.cat([latents, one_hot.to(latents)], dim=1)  # (count, latent_dim + classes)

    def decode(self, latents: Tensor) -> Tensor:
        """The mean images of latent variables, and of the class behind them if conditional."""
        size, classes = self.network.latent_dim, None
        if self.network.num_classes is not None:
            latents, classes = latents[:, :size], latents[:, size:]
        output: Tensor = self.network.decode(latents, classes)
        return output.sigmoid() if self.network.likelihood == "bernoulli" else output

    def latents(self, inputs: Tensor, classes: Tensor | None = None) -> Tensor:
        """The means of the posterior, with the classes ``(batch,)`` behind them if conditional."""
        if self.network.num_classes is None:
            mean: Tensor = self.network.encode(inputs)[0]
            return mean
        if classes is None:
            raise ValueError(
                "this model is conditional: the latent variables of an image depend on its class, "
                "which is not known here"
            )
        one_hot = self._one_hot(classes)
        mean = self.network.encode(inputs, one_hot)[0]
        return torch.cat([mean, one_hot.to(mean)], dim=1)  # (batch, latent_dim + classes)

    def draw(self, count: int, generator: torch.Generator, classes: Tensor | None = None) -> Tensor:
        """Mean images of latent variables from the prior."""
        return self.decode(self.draw_latents(count, generator, classes))

    def sample(self, count: int, *, seed: int = 0, classes: Tensor | None = None) -> Samples:
        """Mean images of latent variables from random numbers of their own.

        Args:
            count: how many.
            seed: of the random numbers.
            classes: of each, ``(count,)``; None: a conditional model's in turn.
        """
        generator = torch.Generator().manual_seed(seed)
        with evaluation_mode(self.model):
            return Samples(self.draw(count, generator, classes))

    def reconstruct(self, inputs: Tensor, classes: Tensor | None = None) -> Tensor:
        """Mean images of the posterior's mean."""
        return self.decode(self.latents(inputs, classes))

    def predict(self, batch: Any) -> Samples:
        """Reconstructions."""
        images = inputs_of(batch)
        is_conditional = self.network.num_classes is not None
        return Samples(self.reconstruct(images, batch[1] if is_conditional else None))

    # -------------------------------------------------------------------------------- looking

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        images, classes = self._parts_of(batch)
        return (images,) if classes is None else (images, classes)

    def show(self) -> dict[str, Shown]:
        """Images: ``samples``, ``reconstructions`` below their inputs, ``traversal``.

        A conditional model's samples have a column for each class. A traversal has a row for each
        latent variable, which moves from -2 to 2 while all others are 0.
        """
        samples = self.sample(GRID).samples
        if not are_images(samples):
            return {}
        shown: dict[str, Shown] = {"samples": Image(self._sample_grid(samples))}
        if self._shown is not None:
            images, classes = self._shown
            numbers = None if classes is None else classes.argmax(1)
            pairs = torch.cat([images, self.reconstruct(images, numbers).to(images)])
            grid = image_grid(enlarge(rescale(pairs)), columns=len(images))
            shown["reconstructions"] = Image(grid)
        if self.network.latent_dim <= FEW:
            shown["traversal"] = Image(sample_grid(self._traversal(), columns=SHOWN))
        return shown

    def _sample_grid(self, samples: Tensor) -> Tensor:
        columns = self.network.num_classes
        if columns is None or columns > FEW:
            return sample_grid(samples)
        return sample_grid(self.sample(SHOWN * columns).samples, columns=columns)

    def _traversal(self) -> Tensor:
        """Images ``(latent_dim * SHOWN, ...)``; of a conditional model those of its first class."""
        size = self.network.latent_dim
        steps = torch.linspace(-2, 2, SHOWN, device=self.device)
        moved = torch.eye(size, device=self.device).unsqueeze(1) * steps.view(1, -1, 1)
        latents = moved.flatten(0, 1)  # (latent_dim * SHOWN, latent_dim)
        if self.network.num_classes is not None:
            first = self._one_hot(torch.zeros(len(latents), dtype=torch.long, device=self.device))
            latents = torch.cat([latents, first.to(latents)], dim=1)
        return self.decode(latents)

    def _parts_of(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Images, and one-hot classes if the model is conditional."""
        images = inputs_of(batch)
        if self.network.num_classes is None:
            return images, None
        return images, self._one_hot(batch[1])

    def _one_hot(self, classes: Tensor) -> Tensor:
        return F.one_hot(classes, self.network.num_classes)


def log_likelihood(images: Tensor, found: Any) -> Tensor:
    """The logarithm of p(x|z), a sum over pixels: ``(samples, batch)``."""
    x, output = images.expand_as(found.output), found.output
    if found.output_log_variance is None:
        pixels = -F.binary_cross_entropy_with_logits(output, x.to(output), reduction="none")
    else:
        log_variance = found.output_log_variance
        error = (x - output).square() * (-log_variance).exp()
        pixels = -0.5 * (error + log_variance + math.log(2 * math.pi))
    return pixels.flatten(2).sum(2)


def divergence(found: Any) -> Tensor:
    """KL of each latent variable's posterior from the prior, ``(batch, latent_dim)``."""
    mean, log_variance = found.mean, found.log_variance
    divergences: Tensor = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return divergences


def log_weights(images: Tensor, found: Any) -> Tensor:
    """The logarithm of p(x, z) / q(z|x) of each latent sample, ``(samples, batch)``."""
    ratio = 0.5 * (found.noise.square() - found.latents.square() + found.log_variance)
    # It is log p(z) - log q(z|x) of each latent variable, whose constants cancel.
    return log_likelihood(images, found) + ratio.sum(2)
