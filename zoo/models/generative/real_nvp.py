r"""Real NVP: real-valued non-volume preserving transformations (Dinh et al., 2017).

L. Dinh, J. Sohl-Dickstein and S. Bengio, "Density estimation using Real NVP",
https://arxiv.org/abs/1605.08803

A chain of invertible layers takes data to a standard normal distribution. Each layer scales and
shifts one part of its input by what a network makes of the other part, so the inverse and the
determinant of the Jacobian cost no more than the layer itself, and both density and samples are
exact.

Differences from the paper: no batch normalisation between the layers, where one sample's density
would depend on the others' (it is inside the networks, as there); pixels are compressed to
[alpha, 1 - alpha] before the logit instead of to [alpha, 1], so that white has a finite one; no
weight decay on the networks' weights unless the optimizer has it.

| class | parameters |
|---|---|
| `RealNVP`, 28x28 grey, 2 scales, 32 channels, 2 blocks | 1,267,411 |
| `PointRealNVP`, 2 features, 8 couplings, hidden layers of 64 and 64 | 36,912 |
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.initialization import deferred_init, reset


class Normalized(NamedTuple):
    """What a flow makes of data.

    Attributes:
        latents: standard normal if the flow is right, ``(batch, latent_dim)``.
        log_determinant: logarithm of the Jacobian determinant's absolute value, ``(batch,)``.
    """

    latents: Tensor
    log_determinant: Tensor


class NormedConv2d(nn.Conv2d):
    """A convolution with normalised weights that keeps height and width.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: an odd number.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        weight_norm(self)

    def init_weights(self) -> None:
        # torch's own start, into the weight and not what it is made of.
        weight = torch.empty_like(self.weight)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.weight = weight
        assert self.bias is not None
        limit = 1 / math.sqrt(weight[0].numel())
        nn.init.uniform_(self.bias, -limit, limit)


class ResidualBlock(nn.Module):
    """Two convolutions, each after batch normalisation and ReLU, and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = NormedConv2d(channels, channels, 3)
        self.conv2 = NormedConv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(out)))


class ResidualNetwork(nn.Module):
    """What scales and shifts images: residual blocks, all of which also reach the output at once.

    Args:
        channels: of the input; the output has twice as many.
        hidden_channels: of the blocks.
        num_blocks: how many.
    """

    def __init__(self, channels: int, hidden_channels: int, num_blocks: int) -> None:
        super().__init__()
        self.stem = NormedConv2d(channels, hidden_channels, 3)
        self.blocks = nn.ModuleList(ResidualBlock(hidden_channels) for _ in range(num_blocks))
        self.skips = nn.ModuleList(
            NormedConv2d(hidden_channels, hidden_channels, 1) for _ in range(num_blocks + 1)
        )
        self.norm = nn.BatchNorm2d(hidden_channels)
        self.output = NormedConv2d(hidden_channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        total = self.skips[0](hidden)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            hidden = block(hidden)
            total = total + skip(hidden)
        return self.output(F.relu(self.norm(total)))


class AffineCoupling(nn.Module):
    r"""Scales and shifts what a mask b hides by what a network makes of the rest (equation 9).

    .. math:: y = b \odot x + (1 - b) \odot (x \odot e^{s(b \odot x)} + t(b \odot x))

    The network gives t and a number whose tanh, times a factor for each channel that is learned,
    is s (section 4.1): no scale can run away. The factors start at zero, hence every scale at 1.

    Args:
        network: ``(batch, channels, *)`` to ``(batch, 2 * channels, *)``.
        channels: of the input, or features.
        checkerboard: let the mask alternate from pixel to pixel; else it keeps one half of the
            channels.
        flip: hide what is otherwise kept.

    Shape:
        - input and output: ``(batch, channels, *)``, with two dimensions more for a checkerboard
    """

    def __init__(
        self, network: nn.Module, channels: int, *, checkerboard: bool, flip: bool
    ) -> None:
        super().__init__()
        self.network, self.channels = network, channels
        self.checkerboard, self.flip = checkerboard, flip
        self.factor = nn.Parameter(torch.empty(channels))

    def init_weights(self) -> None:
        reset(self)
        nn.init.zeros_(self.factor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the logarithm of the Jacobian determinant ``(batch,)``."""
        scale, shift = self._scale_and_shift(x)
        return x * scale.exp() + shift, scale.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """The input that :meth:`forward` makes an output of."""
        scale, shift = self._scale_and_shift(y)  # What they depend on is the same in x and y.
        return (y - shift) * (-scale).exp()

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The scale s and the shift t, zero where the mask keeps the input."""
        kept = self._mask(x)
        raw, shift = self.network(x * kept).chunk(2, dim=1)  # (batch, channels, *) each
        factor = self.factor.view(-1, *[1] * (x.ndim - 2))
        return factor * raw.tanh() * (1 - kept), shift * (1 - kept)

    def _mask(self, x: Tensor) -> Tensor:
        if self.checkerboard:
            rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
            kept = (rows[:, None] + columns) % 2  # (height, width)
        else:
            kept = torch.arange(self.channels, device=x.device) < self.channels // 2
            kept = kept.view(-1, *[1] * (x.ndim - 2))  # (channels, 1, 1) of images
        kept = kept.to(x.dtype)
        return 1 - kept if self.flip else kept


class Flow(nn.Module):
    """What flows have in common, whatever their layers are; see :class:`RealNVP`."""

    sample_shape: tuple[int, ...]

    def inverse(self, latents: Tensor) -> Tensor:
        """The data that latent variables stand for: ``(batch, *)``."""
        raise NotImplementedError

    @property
    def latent_dim(self) -> int:
        """Number of latent variables, which is that of a sample's elements."""
        return math.prod(self.sample_shape)

    def latents(self, x: Tensor) -> Tensor:
        """The latent variables of data: ``(batch, latent_dim)``."""
        return self(x).latents

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Logarithm of the density: :math:`\log N(z; 0, 1) + \log |\partial z / \partial x|`.

        Shape:
            - input: ``(batch, *)``
            - output: ``(batch,)``
        """
        latents, log_determinant = self(x)
        normal = -0.5 * (latents.square() + math.log(2 * math.pi)).sum(1)
        return normal + log_determinant

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Data that latent variables from the prior stand for.

        Args:
            count: how many.
            generator: of random numbers, on the CPU; torch's own if None.

        Shape:
            - output: ``(count, *)``
        """
        like = next(self.parameters())
        return self.inverse(torch.randn(count, self.latent_dim, generator=generator).to(like))


class Scale(nn.Module):
    """The layers of one resolution (section 3.6).

    Three couplings with alternating checkerboards, then, with each square of four pixels made a
    pixel of four times the channels, three with alternating halves of the channels. The last
    scale has four checkerboards and nothing else.

    Args:
        channels: of the input.
        hidden_channels: of the networks; twice as many where the pixels are fewer.
        num_blocks: residual blocks of each network.
        is_last: whether no other follows.
    """

    def __init__(
        self, channels: int, hidden_channels: int, num_blocks: int, *, is_last: bool
    ) -> None:
        super().__init__()

        def couplings(channels: int, hidden: int, count: int, checkerboard: bool) -> nn.ModuleList:
            return nn.ModuleList(
                AffineCoupling(
                    ResidualNetwork(channels, hidden, num_blocks),
                    channels,
                    checkerboard=checkerboard,
                    flip=bool(i % 2),
                )
                for i in range(count)
            )

        self.fine = couplings(channels, hidden_channels, 4 if is_last else 3, True)
        self.coarse = couplings(
            4 * channels, 2 * hidden_channels, 0 if is_last else 3, checkerboard=False
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for coupling in self.fine:
            x, log_determinant = coupling(x)
            total = total + log_determinant
        if len(self.coarse):
            x = F.pixel_unshuffle(x, 2)  # (batch, 4 * channels, height / 2, width / 2)
        for coupling in self.coarse:
            x, log_determinant = coupling(x)
            total = total + log_determinant
        return x, total

    def inverse(self, y: Tensor) -> Tensor:
        """The input that :meth:`forward` makes an output of."""
        coupling: Any
        for coupling in reversed(self.coarse):
            y = coupling.inverse(y)
        if len(self.coarse):
            y = F.pixel_shuffle(y, 2)  # (batch, channels, height, width)
        for coupling in reversed(self.fine):
            y = coupling.inverse(y)
        return y


class RealNVP(Flow):
    r"""The flow for images, of several scales.

    .. math:: \log p(x) = \log \mathcal N(f(x); 0, I) +
        \log \left| \det \frac{\partial f(x)}{\partial x} \right|

    (equation 3). Pixels from 0 to 1 become numbers without bounds by
    :math:`\mathrm{logit}(\alpha + (1 - 2 \alpha) x)`, whose determinant is part of the density.
    After each scale half of the variables are done (equations 14 to 16). The inverse is exact in
    evaluation mode; in training the networks' batch normalisation takes its statistics from the
    batch.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        num_scales: resolutions, each half as high and wide as the one before.
        hidden_channels: of the networks of the first scale; twice as many at each further one.
        num_blocks: residual blocks of each network.
        alpha: how far from 0 and 1 the pixels are kept before the logit.

    Shape:
        - input: pixels from 0 to 1, ``(batch, in_channels, image_size, image_size)``
        - output: :class:`Normalized`

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        num_scales: int = 2,
        hidden_channels: int = 32,
        num_blocks: int = 2,
        alpha: float = 0.05,
    ) -> None:
        super().__init__()
        check_at_least_one(
            image_size=image_size,
            in_channels=in_channels,
            num_scales=num_scales,
            hidden_channels=hidden_channels,
            num_blocks=num_blocks,
        )
        if image_size % 2 ** (num_scales - 1):
            raise ValueError(
                f"image_size must be a multiple of {2 ** (num_scales - 1)} for num_scales="
                f"{num_scales}, not {image_size}"
            )
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must be between 0 and 0.5, not {alpha}")
        self.sample_shape, self.alpha = (in_channels, image_size, image_size), alpha
        self.scales = nn.ModuleList(
            Scale(
                in_channels * 2**i,
                hidden_channels * 2**i,
                num_blocks,
                is_last=i == num_scales - 1,
            )
            for i in range(num_scales)
        )

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor) -> Normalized:
        check_shape(x, *self.sample_shape)
        x = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        # The logit's derivative is 1 / (p (1 - p)), with p the sigmoid of what it gives.
        slopes = F.softplus(x) + F.softplus(-x) + math.log(1 - 2 * self.alpha)
        total = slopes.flatten(1).sum(1)
        done = []
        for scale in self.scales:
            x, log_determinant = scale(x)
            total = total + log_determinant
            if scale is not self.scales[-1]:
                x, finished = x.chunk(2, dim=1)  # (batch, 2 * channels, height / 2, width / 2)
                done.append(finished.flatten(1))
        return Normalized(torch.cat([*done, x.flatten(1)], dim=1), total)

    def inverse(self, latents: Tensor) -> Tensor:
        scale: Any
        last_scale: Any = self.scales[-1]
        channels, size, _ = self.sample_shape
        shapes, start = [], 0
        for i in range(len(self.scales)):
            shapes.append((channels * 2**i, size // 2**i, size // 2**i))
        *outer, last = shapes
        parts = []
        for shape in outer:  # Of each scale but the last, the half that was done with it.
            count = math.prod(shape) // 2
            half = (2 * shape[0], shape[1] // 2, shape[2] // 2)
            parts.append(latents[:, start : start + count].unflatten(1, half))
            start += count
        x = last_scale.inverse(latents[:, start:].unflatten(1, last))
        for scale, part in zip(reversed(self.scales[:-1]), reversed(parts), strict=True):
            x = scale.inverse(torch.cat([x, part], dim=1))
        return (x.sigmoid() - self.alpha) / (1 - 2 * self.alpha)


class PointRealNVP(Flow):
    """The flow for vectors: couplings that keep one half of the features and the other in turn.

    Args:
        in_features: length of a vector.
        num_couplings: how many.
        hidden_sizes: width of each hidden layer (ReLU) of each coupling's network.

    Shape:
        - input: ``(batch, in_features)``
        - output: :class:`Normalized`

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int = 2,
        *,
        num_couplings: int = 8,
        hidden_sizes: tuple[int, ...] = (64, 64),
    ) -> None:
        super().__init__()
        check_at_least_one(num_couplings=num_couplings, hidden_sizes=hidden_sizes)
        if in_features < 2:
            raise ValueError(f"in_features must be at least 2, not {in_features}")
        self.sample_shape = (in_features,)

        def network() -> nn.Sequential:
            layers: list[nn.Module] = []
            width = in_features
            for size in hidden_sizes:
                layers += [nn.Linear(width, size), nn.ReLU()]
                width = size
            return nn.Sequential(*layers, nn.Linear(width, 2 * in_features))

        self.couplings = nn.ModuleList(
            AffineCoupling(network(), in_features, checkerboard=False, flip=bool(i % 2))
            for i in range(num_couplings)
        )

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor) -> Normalized:
        check_shape(x, *self.sample_shape)
        total = x.new_zeros(len(x))
        for coupling in self.couplings:
            x, log_determinant = coupling(x)
            total = total + log_determinant
        return Normalized(x, total)

    def inverse(self, latents: Tensor) -> Tensor:
        coupling: Any
        for coupling in reversed(self.couplings):
            latents = coupling.inverse(latents)
        return latents
