r"""Adversarial examples: images changed a little so that a classifier is mistaken.

I. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial examples", 2015,
https://arxiv.org/abs/1412.6572 (FGSM); A. Kurakin, I. Goodfellow and S. Bengio, "Adversarial
examples in the physical world", 2017, https://arxiv.org/abs/1607.02533 (BIM, least likely class);
A. Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018,
https://arxiv.org/abs/1706.06083 (PGD).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["fgsm", "bim", "pgd"]
Goal = Literal["least_likely"]


class Pixels:
    """Pixel values between 0 and 1, and what they are in normalised images.

    Args:
        mean: of each channel, as it was subtracted from pixel values between 0 and 1.
        std: of each channel, by which they were then divided.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._mean, self._std = (torch.tensor(v).double().view(-1, 1, 1) for v in (mean, std))

    def __call__(self, values: Tensor | float, x: Tensor) -> Tensor:
        """Normalised values of pixels, for images like ``x``; of one ``(channels, 1, 1)``."""
        return (values - self._mean.to(x)) / self._std.to(x)

    def values(self, x: Tensor) -> Tensor:
        """The pixel values of normalised images, between 0 and 1."""
        return (x * self._std.to(x) + self._mean.to(x)).clamp(0, 1)

    def length(self, difference: float, x: Tensor) -> Tensor:
        """The normalised length of a difference of pixel values, likewise."""
        return (difference / self._std).to(x)


@dataclass(frozen=True)
class Attack:
    r"""Projected gradient steps within a distance of ``eps`` in every pixel, and within 0 to 1.

    .. math:: x_{t+1} = \Pi\bigl(x_t - \alpha\, \mathrm{sign} \nabla_x m(x_t, y)\bigr), \qquad
        m(x, y) = z_y(x) - \log \sum_{k \ne y} e^{z_k(x)}

    with the logits :math:`z` and :math:`\Pi` the nearest image that is allowed. The cross-entropy
    is :math:`\log(1 + e^{-m})`, whose gradient has the same signs as that of :math:`-m`, but
    vanishes in floating point where the network is sure. Of a ``goal`` the steps go up instead,
    with its class for :math:`y`.

    - ``fgsm``: one step of ``eps`` from the image;
    - ``bim``: ``steps`` steps from the image;
    - ``pgd``: likewise, from a point drawn uniformly from the distance ``eps`` around it.

    The network is used in the mode that it is in; nothing in it is changed in evaluation mode.

    Args:
        kind: one of them.
        eps: largest change of a pixel value, which are between 0 and 1; of 0 an image stays bit
            for bit what it is.
        steps: of ``bim`` and ``pgd``.
        step_size: theirs, in pixel values; None for 2.5 ``eps`` / ``steps``, with which every
            allowed image can be reached and left (Madry et al.).
        goal: ``least_likely``: towards the class that the network finds least likely for the
            unchanged image (Kurakin et al.); None: away from the true class.

    Raises:
        ValueError: an argument is outside its range.
    """

    kind: Kind
    eps: float
    steps: int = 10
    step_size: float | None = None
    goal: Goal | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"attack must be one of {', '.join(get_args(Kind))}, not {self.kind}")
        if not 0 <= self.eps <= 1:
            raise ValueError(f"eps must be between 0 and 1 (white), not {self.eps}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size must be greater than 0, not {self.step_size}")
        if self.goal not in (None, *get_args(Goal)):
            raise ValueError(f"target must be least_likely, not {self.goal}")

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        classes: Tensor,
        pixels: Pixels,
    ) -> Tensor:
        """The changed images, without gradient.

        ``pgd`` draws from torch's own random state.

        Args:
            model: normalised images to logits.
            images: normalised.
            classes: the true ones.
            pixels: how they are normalised.

        Shape:
            - images, output: ``(batch, channels, height, width)``
            - classes: ``(batch,)``
        """
        if not self.eps:
            return images
        is_single = self.kind == "fgsm"
        steps = 1 if is_single else self.steps
        length = self.eps if is_single else self.step_size or 2.5 * self.eps / steps
        step, reach = pixels.length(length, images), pixels.length(self.eps, images)
        # Rounding may have put black and white a little beyond 0 and 1: they are allowed to stay.
        low = torch.minimum(images, torch.maximum(images - reach, pixels(0, images)))
        high = torch.maximum(images, torch.minimum(images + reach, pixels(1, images)))
        if self.goal is not None:
            with torch.no_grad():
                classes = model(images).argmin(1)  # (batch,)
            step = -step
        x = images
        if self.kind == "pgd":
            x = (images + (torch.rand_like(images) * 2 - 1) * reach).clamp(low, high)
        for _ in range(steps):
            x = (x - step * _slope(model, x, classes)).clamp(low, high)
        return x


def margins(logits: Tensor, classes: Tensor) -> Tensor:
    """By how much the logit of a class exceeds all others', softly: ``(batch,)``."""
    own = classes.unsqueeze(1)  # (batch, 1)
    others = logits.scatter(1, own, -math.inf)
    return logits.gather(1, own).squeeze(1) - others.logsumexp(1)


@torch.enable_grad()
def _slope(model: Callable[[Tensor], Tensor], x: Tensor, classes: Tensor) -> Tensor:
    """In which direction the margin rises in every pixel: 1, -1 or 0."""
    x = x.detach().requires_grad_()
    # The sum, since of a mean over a large batch half precision may lose the gradient.
    (gradient,) = torch.autograd.grad(margins(model(x), classes).sum(), x)
    return gradient.sign()
