"""Learning to remove noise: diffusion models, their variational bound and their samples.

Ho, Jain and Abbeel, 2020, https://arxiv.org/abs/2006.11239
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from zoo.inference.denoising import Variance, ancestral, ddim, evenly_spaced
from zoo.layers.noise_schedule import NoiseSchedule, Prediction, cosine_betas, linear_betas
from zoo.metrics.sums import Mean
from zoo.tasks.generative.from_noise import FromNoise, check_samples, spread_times
from zoo.tasks.task import Loss, inputs_of

_SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas}
_CHOICES = {
    "schedule": tuple(_SCHEDULES),
    "prediction": ("epsilon", "x0", "v"),
    "variance": ("posterior", "beta"),
    "sampler": ("ddim", "ancestral"),
}


class DenoisingDiffusion(FromNoise):
    r"""The noise of each sample, at a step drawn for it, is to be predicted.

    .. math:: L = \mathbb{E}_{t, \epsilon} \left\| \epsilon - \epsilon_\theta\!\left(
        \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon,\; t \right) \right\|^2

    (equation 14; the mean over a sample's values). Instead of the noise the model may predict the
    data, or :math:`v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, x_0` (Salimans
    and Ho, 2022, https://arxiv.org/abs/2202.00512).

    The metrics are ``loss``, the mean over all steps, and ``negative_elbo``, the variational bound
    on the negative log-likelihood in nats a sample (the sum over its values; equation 5). With
    ``levels`` it is one of discrete values: the last step back is a normal distribution, integrated
    over the bin of each value. Without, it is one of a density, in the units in which the data
    come. Both are estimated without bias at the first step and ``bound_samples`` random ones a
    sample, which are the same in every evaluation. Most of the bound lies near the data, so step t
    is drawn with a probability proportional to 1 / (t - 1), and weighted by its inverse.

    A batch is ``(samples, ...)`` or the samples alone, with labels next if the model knows classes.

    Args:
        model: see :class:`~zoo.tasks.generative.from_noise.FromNoise`; times are whole numbers
            from 0.
        num_steps: steps T from data to noise.
        schedule: how noise grows with them, see :mod:`zoo.layers.noise_schedule`.
        prediction: what the model predicts.
        variance: of a step back, in the bound and in ancestral sampling: the posterior's, which
            is right for data of a single point, or beta, right for standard normal data.
        levels: values that each element of the data may have, spread evenly from -1 to 1 (2 for
            binary pixels, 256 for bytes); None: data are real numbers.
        clip: keep guesses of the data between -1 and 1, where the data are, in the bound and in
            sampling.
        bound_samples: steps a sample at which an evaluation asks the model; None: all, which takes
            long.
        sampler: of :mod:`zoo.inference.denoising`; ``"ancestral"`` is the paper's.
        sampling_steps: steps of the sampler, at most ``num_steps``.
        eta: new noise in the steps of DDIM, from 0 for none to 1 for as much as ancestral sampling.
        label_dropout: see :class:`~zoo.tasks.generative.from_noise.FromNoise`.
        guidance: see there; the bound is without.

    Shape:
        - samples: ``(batch, *)``

    Raises:
        ValueError: an argument is outside its range, or training samples are not what ``levels``
            or ``clip`` say.
    """

    changeable: ClassVar[tuple[str, ...]] = (
        *FromNoise.changeable,
        "bound_samples",
        "sampler",
        "eta",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        num_steps: int = 1000,
        schedule: Literal["linear", "cosine"] = "linear",
        prediction: Prediction = "epsilon",
        variance: Variance = "posterior",
        levels: int | None = None,
        clip: bool = True,
        bound_samples: int | None = 1,
        sampler: Literal["ddim", "ancestral"] = "ddim",
        sampling_steps: int = 50,
        eta: float = 0.0,
        label_dropout: float = 0.1,
        guidance: float = 1.0,
    ) -> None:
        super().__init__(
            model, sampling_steps=sampling_steps, label_dropout=label_dropout, guidance=guidance
        )
        given = {"schedule": schedule, "prediction": prediction, "variance": variance}
        for name, value in (given | {"sampler": sampler}).items():
            if value not in _CHOICES[name]:
                known = " or ".join(map(repr, _CHOICES[name]))
                raise ValueError(f"{name} must be {known}, not {value!r}")
        if levels is not None and levels < 2:
            raise ValueError(f"levels must be at least 2, not {levels}")
        if bound_samples is not None and bound_samples < 1:
            raise ValueError(f"bound_samples must be at least 1, not {bound_samples}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be from 0 to 1, not {eta}")
        self.schedule = NoiseSchedule(_SCHEDULES[schedule](num_steps))
        self.prediction, self.variance = prediction, variance
        self.levels, self.clip, self.bound_samples = levels, clip, bound_samples
        self.sampler, self.eta = sampler, eta
        self.path = evenly_spaced(num_steps, sampling_steps)
        self.metrics = {
            "loss": Mean(higher_is_better=False),
            "negative_elbo": Mean(higher_is_better=False),
        }

    @classmethod
    def without_effect(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        if arguments.get("sampler") == "ancestral":
            return {"eta": "it is DDIM's, and task.sampler is ancestral"}
        return {}

    def to(self, device: torch.device | str) -> Self:
        self.schedule.to(device)
        return super().to(device)

    def prepare(self, batches: Iterable[Any]) -> None:
        """Looks whether training samples are what the decoder and the clipping take them for."""
        x = inputs_of(next(iter(batches)))
        low, high = x.amin().item(), x.amax().item()
        if (self.clip or self.levels) and not (-1.001 < low < 0 < high < 1.001):
            raise ValueError(
                f"training samples must have values from -1 to 1, not from {low:.3g} to "
                f"{high:.3g}: set data.scaling=symmetric, or task.clip=false and task.levels=null"
            )
        if self.levels is not None:
            places = (x.cpu().double() + 1) / 2 * (self.levels - 1)
            if (places - places.round()).abs().amax() > 1e-3:
                raise ValueError(
                    f"task.levels={self.levels}: training samples have other values than these, "
                    "spread evenly from -1 to 1; give the number that they have, or null for a "
                    "bound on a density"
                )

    def loss(self, batch: Any) -> Loss:
        x0 = inputs_of(batch)
        check_samples(x0, self.sample_shape)
        t = torch.randint(1, self.schedule.num_steps + 1, (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        x = self.schedule.diffuse(x0, t, noise)
        output = self.output(x, t - 1, self.training_labels(batch))
        return self.errors(output, x0, noise, t).mean(), len(x0)

    def errors(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The mean squared error of what is predicted, of each sample: ``(batch,)``."""
        target = self.schedule.target(self.prediction, x0, noise, t)
        return (output - target).square().flatten(1).mean(1)

    def evaluate(self, batch: Any) -> None:
        x0, labels = inputs_of(batch), self.labels_of(batch)
        count, device = len(x0), x0.device
        steps = self.schedule.num_steps
        error, nats = self.terms(x0, torch.ones(count, dtype=torch.int64, device=device), labels)
        nats = nats + self.prior_term(x0)
        for t, weight in self._bound_steps(count, device):
            more = self.terms(x0, t, labels)
            error, nats = error + weight * more[0], nats + weight * more[1]
        self.metrics["loss"].update((error / steps).mean(), count)
        self.metrics["negative_elbo"].update(nats.mean(), count)
        self.judge(x0, asked=self.each_class(count))

    def terms(self, x0: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        r"""The error at step t of each sample, and what the step contributes to the bound, in nats.

        That is :math:`-\log p(x_0 | x_1)` where all of t is 1, and :math:`KL(q(x_{t-1} | x_t, x_0)
        \,\|\, p(x_{t-1} | x_t))` where none is.

        Shape:
            - output: ``(batch,)`` each
        """
        noise = torch.randn_like(x0)
        x = self.schedule.diffuse(x0, t, noise)
        output = self.output(x, t - 1, labels)
        guess = self._clipped(self.schedule.data(self.prediction, output, x, t))
        # Both are computed: a look at t would wait for the device.
        nats = torch.where(t == 1, self._reconstruction(x0, guess), self._step(x0, x, guess, t))
        return self.errors(output, x0, noise, t), nats

    def prior_term(self, x0: Tensor) -> Tensor:
        r""":math:`KL(q(x_T | x_0) \,\|\, N(0, I))` of each sample, in nats: ``(batch,)``."""
        last = torch.full((len(x0),), self.schedule.num_steps, device=x0.device)
        mean, variance = self.schedule.marginal(x0, last)
        nats = (mean.square() + variance - 1 - variance.log()) / 2
        return nats.flatten(1).sum(1)

    def steps(
        self, x: Tensor, labels: Tensor | None, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        self.schedule.to(x.device)

        def guess(x: Tensor, t: Tensor) -> Tensor:
            output = self.guided(x, t - 1, labels)
            return self._clipped(self.schedule.data(self.prediction, output, x, t))

        if generator is None:
            return ddim(guess, x, self.schedule, steps=self.path)
        if self.sampler == "ddim":
            return ddim(guess, x, self.schedule, steps=self.path, eta=self.eta, generator=generator)
        return ancestral(
            guess,
            x,
            self.schedule,
            steps=self.path,
            variance=self.variance,
            generator=generator,
        )

    def _clipped(self, guess: Tensor) -> Tensor:
        return guess.clamp(-1, 1) if self.clip else guess

    def _bound_steps(self, count: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Steps above 1 for each sample of a batch and what they count: all, or some for all."""
        rest = self.schedule.num_steps - 1
        if self.bound_samples is None or rest == 0:
            for t in range(2, rest + 2):
                yield torch.full((count,), t, device=device), torch.ones(count, device=device)
            return
        ends = torch.arange(1, rest + 1, device=device).reciprocal().cumsum(0)
        ends = ends / ends[-1]
        shares = ends.diff(prepend=ends.new_zeros(1))
        for _ in range(self.bound_samples):
            place = torch.searchsorted(ends, spread_times(count, device), right=True)
            yield 2 + place, 1 / (self.bound_samples * shares[place])

    def _step(self, x0: Tensor, x: Tensor, guess: Tensor, t: Tensor) -> Tensor:
        s = (t - 1).clamp_min(1)  # The first step is another's; here it must not divide by zero.
        t = s + 1
        true, ours = (self.schedule.posterior(data, x, t, s) for data in (x0, guess))
        variance = true.variance if self.variance == "posterior" else self.schedule.beta(t, s, x)
        ratio = true.variance / variance
        apart = (true.mean - ours.mean).square() / variance
        return ((apart + ratio - 1 - ratio.log()) / 2).flatten(1).sum(1)

    def _reconstruction(self, x0: Tensor, guess: Tensor) -> Tensor:
        variance = self._last_variance(x0)
        if self.levels is None:
            nats = ((x0 - guess).square() / variance + (2 * math.pi * variance).log()) / 2
        else:
            nats = -binned_log_probability(x0, guess, variance.sqrt(), levels=self.levels)
        return nats.flatten(1).sum(1)

    def _last_variance(self, like: Tensor) -> Tensor:
        """The variance of the last step back; the posterior's is 0, so that of the step before."""
        one = torch.ones(1, dtype=torch.int64, device=like.device)
        if self.variance == "beta":
            return self.schedule.beta(one, one - 1, like)
        return self.schedule.posterior(like[:1], like[:1], one + 1, one).variance


def binned_log_probability(x: Tensor, mean: Tensor, scale: Tensor, *, levels: int) -> Tensor:
    r"""The logarithm of a normal distribution's probability of the bin around each value.

    .. math:: \log \int_{x - d}^{x + d} N(u; \mu, \sigma^2)\, du, \quad d = \frac{1}{levels - 1}

    where the first bin reaches to minus infinity and the last to infinity (equation 13), so that
    the probabilities of all values sum to 1.

    Args:
        x: values among ``levels`` that are spread evenly from -1 to 1.
        mean: of the distribution.
        scale: its standard deviation.
        levels: how many values there are.
    """
    half = 1 / (levels - 1)
    low = torch.where(x < -1 + half, -math.inf, (x - half - mean) / scale)
    high = torch.where(x > 1 - half, math.inf, (x + half - mean) / scale)
    # Mirrored into the lower tail, where small probabilities differ and do not round to 1.
    mirrored = low > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    upper, lower = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return upper + torch.log1p(-(lower - upper).exp())
