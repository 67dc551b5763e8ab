r"""How much noise there is at each step of a diffusion, and what follows from it.

Ho, Jain and Abbeel, 2020, https://arxiv.org/abs/2006.11239. Steps are counted as in the paper: 0
is the data, step t has :math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\,
\epsilon`, and after the last hardly anything but noise is left. (The paper's code, and networks
trained with it, count from 0 where this counts from 1.)
"""

import math
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

Prediction = Literal["epsilon", "x0", "v"]
"""What a network predicts: the noise, the data, or their velocity (Salimans and Ho, 2022)."""

LARGEST_BETA = 0.999  # of the cosine schedule, whose last step would be 1


def linear_betas(num_steps: int) -> Tensor:
    """Noise variances that rise from 1e-4 to 0.02 in a thousand steps.

    With fewer steps each is larger in proportion, so that at the end as little of the data is left
    (as in the code of Nichol and Dhariwal).

    Raises:
        ValueError: so few steps that one would have a variance above 1.
    """
    least = 21
    if num_steps < least:
        raise ValueError(
            f"num_steps must be at least {least} for the linear schedule, not {num_steps}"
        )
    scale = 1000 / num_steps
    return torch.linspace(1e-4 * scale, 0.02 * scale, num_steps, dtype=torch.float64)


def cosine_betas(num_steps: int) -> Tensor:
    r"""Those under which :math:`\bar\alpha` falls along a squared cosine.

    Nichol and Dhariwal, 2021, equation 17, https://arxiv.org/abs/2102.09672.

    Raises:
        ValueError: there are fewer than two steps.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps must be at least 2, not {num_steps}")
    times = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    left = torch.cos((times + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - left[1:] / left[:-1]).clamp(max=LARGEST_BETA)


class Gaussian(NamedTuple):
    """A normal distribution whose dimensions are independent."""

    mean: Tensor
    variance: Tensor


class NoiseSchedule:
    r"""The distributions of a diffusion with given noise variances :math:`\beta_1, ..., \beta_T`.

    Args:
        betas: ``(steps,)``, each between 0 and 1.

    Attributes:
        alphas_bar: the share of the data's variance at each step from 0 on, ``(steps + 1,)``.

    Shape:
        - x0, x, noise, output: ``(batch, *)``
        - t, s: int64 ``(batch,)``, from 0 to the number of steps
    """

    def __init__(self, betas: Tensor) -> None:
        betas = betas.double()
        if betas.ndim != 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas must be a row of numbers between 0 and 1")
        self.alphas_bar = torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])

    @property
    def num_steps(self) -> int:
        """The number T of steps."""
        return len(self.alphas_bar) - 1

    def to(self, device: torch.device | str) -> Self:
        """Moves the schedule to where the data will be."""
        single = torch.device(device).type == "mps"
        self.alphas_bar = self.alphas_bar.to(device, torch.float32 if single else torch.float64)
        return self

    def share(self, t: Tensor, like: Tensor) -> Tensor:
        r""":math:`\bar\alpha_t`, in double precision, to be multiplied with a batch."""
        return self.alphas_bar[t].view(-1, *[1] * (like.ndim - 1))  # (batch, 1, ...)

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""A sample of :math:`q(x_t | x_0)`, made of standard normal noise (equation 4)."""
        signal, rest = self._scales(x0, t)
        return signal * x0 + rest * noise

    def marginal(self, x0: Tensor, t: Tensor) -> Gaussian:
        r""":math:`q(x_t | x_0)` (equation 4)."""
        share = self.share(t, x0)
        return Gaussian(share.sqrt().to(x0.dtype) * x0, (1 - share).to(x0.dtype))

    def posterior(self, x0: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Gaussian:
        r""":math:`q(x_s | x_t, x_0)` for a step s before t (equation 7, where s is t - 1)."""
        at_t, at_s = self.share(t, x), self.share(s, x)
        alpha = at_t / at_s
        to_x0 = at_s.sqrt() * (1 - alpha) / (1 - at_t)
        to_x = alpha.sqrt() * (1 - at_s) / (1 - at_t)
        mean = to_x0.to(x.dtype) * x0 + to_x.to(x.dtype) * x
        return Gaussian(mean, ((1 - alpha) * (1 - at_s) / (1 - at_t)).to(x.dtype))

    def beta(self, t: Tensor, s: Tensor, like: Tensor) -> Tensor:
        r"""The variance of :math:`q(x_t | x_s)`."""
        return (1 - self.share(t, like) / self.share(s, like)).to(like.dtype)

    def target(self, kind: Prediction, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a network that predicts ``kind`` should return at step t."""
        if kind == "epsilon":
            return noise
        if kind == "x0":
            return x0
        signal, rest = self._scales(x0, t)
        return signal * noise - rest * x0

    def data(self, kind: Prediction, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The data that an output of the network stands for at step t, from 1 on."""
        if kind == "x0":
            return output
        signal, rest = self._scales(x, t)
        return (x - rest * output) / signal if kind == "epsilon" else signal * x - rest * output

    def noise(self, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise that makes data what they are at step t, from 1 on."""
        signal, rest = self._scales(x, t)
        return (x - signal * x0) / rest

    def _scales(self, like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        share = self.share(t, like)
        return share.sqrt().to(like.dtype), (1 - share).sqrt().to(like.dtype)
