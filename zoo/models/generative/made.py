r"""MADE: masked autoencoder for distribution estimation (Germain et al., 2015).

M. Germain, K. Gregor, I. Murray and H. Larochelle, "MADE: masked autoencoder for distribution
estimation", https://arxiv.org/abs/1502.03509

An autoencoder whose weights are masked so that each output depends on the inputs before it in some
order only. The outputs are then the conditional probabilities of the pixels, and their product is
the probability of the image: exact, in one pass. Drawing takes one pass a pixel.

Differences from the paper: one ordering and one set of masks (no order- or connectivity-agnostic
training), no direct connections from the input to the output; weights start by PyTorch's default,
and the output's biases at zero or, see ``start_at``, at the logits of the mean image.

| hidden layers (28x28 binary images) | parameters |
|---|---|
| 8000 | 12,552,784 |
| 500 | 785,284 |
| 500, 500 | 1,035,784 |
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.initialization import deferred_init, reset


class MaskedLinear(nn.Linear):
    r"""A linear layer of which only some connections exist: :math:`y = (W \odot M) x + b`.

    Args:
        in_features: width of the input.
        out_features: width of the output.

    Attributes:
        mask: M, ``(out_features, in_features)``; all connections until told otherwise.

    Shape:
        - input: ``(batch, in_features)``
        - output: ``(batch, out_features)``
    """

    mask: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        mask = torch.ones(out_features, in_features, dtype=torch.bool)
        self.register_buffer("mask", mask)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "mask"):  # The base class's constructor calls this before there is one.
            self.mask.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    r"""Binary pixels, each given those before it.

    .. math:: p(x) = \prod_d p(x_d \mid x_{<d})

    Every unit has a degree: an input its place :math:`1 \dots D` in the ordering, a hidden unit a
    number :math:`m` from 1 to :math:`D - 1`. A hidden unit is connected to units of the layer
    before it whose degree is at most its own (equation 12), an output to hidden units whose
    degree is smaller (equation 13). Degrees of hidden units are drawn uniformly, none below the
    smallest of the layer before, which keeps every unit connected (section 4).

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        hidden_sizes: width of each hidden layer.
        ordering: of the pixels: ``natural`` (row by row) or ``random``, drawn with the weights.

    Shape:
        - input: pixels of 0 and 1, ``(batch, in_channels, image_size, image_size)``
        - output: their logits given the pixels before each, of the same shape

    Raises:
        ValueError: if an argument is outside its range.
    """

    is_binary = True
    """What it gives probabilities to is pixels of 0 and 1."""
    order: Tensor
    """The place of each pixel in the ordering, ``(pixels,)``, from 1 on."""

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        hidden_sizes: tuple[int, ...] = (8000,),
        ordering: Literal["natural", "random"] = "natural",
    ) -> None:
        super().__init__()
        check_at_least_one(
            image_size=image_size, in_channels=in_channels, hidden_sizes=hidden_sizes
        )
        pixels = in_channels * image_size**2
        if pixels < 2 or not hidden_sizes:
            raise ValueError(
                "there must be two pixels and a hidden layer at least, not "
                f"{pixels} and hidden_sizes={list(hidden_sizes)}"
            )
        if ordering not in ("natural", "random"):
            raise ValueError(f"ordering must be 'natural' or 'random', not {ordering!r}")
        self.sample_shape = (in_channels, image_size, image_size)
        self.is_shuffled = ordering == "random"
        sizes = (pixels, *hidden_sizes, pixels)
        self.layers = nn.ModuleList(MaskedLinear(*pair) for pair in pairwise(sizes))
        self.register_buffer("order", torch.empty(pixels, dtype=torch.int64))

    def init_weights(self) -> None:
        reset(self.layers)
        pixels, device = len(self.order), self.order.device
        order = torch.randperm(pixels, device=device) if self.is_shuffled else torch.arange(pixels)
        self.order.copy_(order + 1)
        layers: list[Any] = list(self.layers)
        *hidden, output = layers
        degrees = self.order
        for layer in hidden:
            least = min(int(degrees.min()), pixels - 1)
            below, degrees = (
                degrees,
                torch.randint(least, pixels, (layer.out_features,), device=device),
            )
            layer.mask.copy_(degrees[:, None] >= below)
        output.mask.copy_(self.order[:, None] > degrees)
        nn.init.zeros_(output.bias)

    @torch.no_grad()
    def start_at(self, mean_image: Tensor) -> None:
        """Starts the output's biases at the logits of a mean image, unless they are trained.

        A pixel that is never on would take a thousand steps to learn just that.

        Shape:
            - mean_image: between 0 and 1, ``(channels, height, width)``
        """
        output: Any = self.layers[-1]
        if not output.bias.any():
            output.bias.copy_(mean_image.logit().flatten())

    def forward(self, x: Tensor) -> Tensor:
        check_shape(x, *self.sample_shape)
        hidden = x.flatten(1)  # (batch, pixels)
        for layer in self.layers[:-1]:
            hidden = layer(hidden).relu()
        return self.layers[-1](hidden).unflatten(1, self.sample_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the probability of each image.

        Shape:
            - input: pixels of 0 and 1, ``(batch, channels, height, width)``
            - output: ``(batch,)``
        """
        losses = F.binary_cross_entropy_with_logits(self(x), x, reduction="none")
        return -losses.flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Images, drawn pixel by pixel in the order of the masks.

        Args:
            count: how many.
            generator: of random numbers, on the CPU; torch's own if None.

        Shape:
            - output: pixels of 0 and 1, ``(count, channels, height, width)``
        """
        like = next(self.parameters())
        noise = torch.rand(count, len(self.order), generator=generator).to(like.device)
        pixels = torch.zeros_like(noise, dtype=like.dtype)
        for place in self.order.argsort():
            means = self(pixels.unflatten(1, self.sample_shape)).sigmoid().flatten(1)
            pixels[:, place] = (noise[:, place] < means[:, place]).to(pixels)
        return pixels.unflatten(1, self.sample_shape)  # (count, channels, height, width)
