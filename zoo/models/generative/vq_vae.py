r"""Vector-quantised variational autoencoder (van den Oord, Vinyals and Kavukcuoglu, 2017).

A. van den Oord, O. Vinyals and K. Kavukcuoglu, "Neural discrete representation learning",
https://arxiv.org/abs/1711.00937

An encoder makes a small map of vectors of an image, each is replaced by the nearest vector of a
codebook, and a decoder makes the image again. The latent variables are the numbers of these codes;
gradients pass the replacement as if it were not there (the straight-through estimator).

Differences from the paper:

- codes that fall out of use are replaced by vectors of the present batch, without which a part of
  the codebook is never used (J. Williams et al., 2020, "Hierarchical quantized autoencoders",
  https://arxiv.org/abs/2002.08111); ``restart_below=0`` is the paper's;
- there is no autoregressive prior of the codes, which the paper learns afterwards.

| sizes | parameters, codebook included |
|---|---|
| 3 channels, 256 hidden, 512 codes of 64 (the paper's for CIFAR-10) | 4,811,843 |
| 1 channel, 64 hidden, 64 codes of 16 | 300,817 |
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one, check_images
from zoo.layers.initialization import deferred_init, reset


class Coding(NamedTuple):
    """An image, coded and made again.

    Attributes:
        output: ``(batch, in_channels, height, width)``.
        encoded: vectors of the encoder, ``(batch, code_dim, height / 4, width / 4)``.
        quantized: the codes nearest to them, likewise; with the codebook's gradient.
        indices: their numbers, ``(batch, height / 4, width / 4)``.
    """

    output: Tensor
    encoded: Tensor
    quantized: Tensor
    indices: Tensor


class VectorQuantizer(nn.Module):
    r"""Replaces each vector by the nearest one of a codebook (equation 1).

    .. math:: z_q(x) = e_k, \qquad k = \mathrm{argmin}_j \lVert z_e(x) - e_j \rVert_2

    With ``update="ema"`` the codes are moving averages of the vectors that they replace (appendix
    A.1), and each forward pass in training is a step; with ``"loss"`` they are parameters, and
    :attr:`Coding.quantized` brings them their gradient.

    Args:
        num_codes: size of the codebook.
        code_dim: length of a code.
        update: how it learns.
        decay: of the moving averages.
        restart_below: a code that replaces fewer vectors a batch than this, on average, becomes
            a random vector of the present batch.

    Shape:
        - input: ``(batch, code_dim, *)``
        - output: codes ``(batch, code_dim, *)`` and their numbers ``(batch, *)``
    """

    codes: Tensor
    usage: Tensor
    sums: Tensor

    @deferred_init
    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        *,
        update: Literal["ema", "loss"] = "ema",
        decay: float = 0.99,
        restart_below: float = 0.1,
    ) -> None:
        super().__init__()
        check_at_least_one(num_codes=num_codes, code_dim=code_dim)
        if update not in ("ema", "loss"):
            raise ValueError(f"update must be 'ema' or 'loss', not {update!r}")
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, not {decay}")
        if restart_below < 0:
            raise ValueError(f"restart_below must be at least 0, not {restart_below}")
        self.num_codes, self.is_averaged = num_codes, update == "ema"
        self.decay, self.restart_below = decay, restart_below
        codes = torch.empty(num_codes, code_dim)
        if self.is_averaged:
            self.register_buffer("codes", codes)
            self.register_buffer("sums", torch.empty(num_codes, code_dim))
        else:
            self.codes = nn.Parameter(codes)
        self.register_buffer("usage", torch.empty(num_codes))

    def init_weights(self) -> None:
        with torch.no_grad():
            self.codes.uniform_(-1 / self.num_codes, 1 / self.num_codes)
            self.usage.fill_(1)
            if self.is_averaged:
                self.sums.copy_(self.codes)

    def no_weight_decay(self) -> set[str]:
        """The codes, which decay would draw together."""
        return set() if self.is_averaged else {"codes"}

    def nearest(self, vectors: Tensor) -> Tensor:
        """The number of the code nearest to each vector, ``(count,)`` of ``(count, code_dim)``."""
        # The vector's own square is the same for all codes.
        distances = self.codes.square().sum(1) - 2 * vectors @ self.codes.t()  # (count, codes)
        return distances.argmin(1)

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        last = encoded.movedim(1, -1)  # (batch, *, code_dim)
        vectors = last.reshape(-1, last.shape[-1])  # (count, code_dim)
        with torch.no_grad():
            numbers = self.nearest(vectors)
        indices = numbers.view(last.shape[:-1])  # (batch, *)
        quantized = self.look_up(indices)
        if self.training:
            with torch.no_grad():
                self._learn(vectors.detach().to(self.codes), numbers)
        return quantized, indices

    def look_up(self, indices: Tensor) -> Tensor:
        """The codes of numbers ``(batch, *)``: ``(batch, code_dim, *)``."""
        # A lookup in a copy, since the codes may change in place before the backward pass.
        return F.embedding(indices, self.codes.clone()).movedim(-1, 1)

    def _learn(self, vectors: Tensor, numbers: Tensor) -> None:
        chosen = F.one_hot(numbers, self.num_codes).to(vectors)  # (count, codes)
        self.usage.lerp_(chosen.sum(0), 1 - self.decay)
        if self.is_averaged:
            self.sums.lerp_(chosen.t() @ vectors, 1 - self.decay)
            usage = self.usage.unsqueeze(
                1
            )  # (codes, 1); of one that is 0, nothing is left to divide
            self.codes.copy_(torch.where(usage > 1e-5, self.sums / usage, self.codes))
        if self.restart_below:
            unused = self.usage < self.restart_below  # (codes,)
            rows = torch.randint(len(vectors), (self.num_codes,), device=vectors.device)
            self.codes.copy_(torch.where(unused.unsqueeze(1), vectors[rows], self.codes))
            self.usage.masked_fill_(unused, 1)
            if self.is_averaged:
                self.sums.copy_(torch.where(unused.unsqueeze(1), self.codes, self.sums))


class ResidualBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, added to the input (section 4.1).

    Shape:
        - input, output: ``(batch, channels, height, width)``
    """

    @deferred_init
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class VQVAE(nn.Module):
    r"""Encoder, codebook and decoder.

    Two convolutions with stride 2 and two residual blocks; the decoder has them in reverse
    (section 4.1).

    Args:
        in_channels: of an image.
        hidden_channels: of every layer.
        num_codes: size of the codebook.
        code_dim: length of a code.
        update: how the codebook learns: ``ema`` or ``loss``, see :class:`VectorQuantizer`.
        decay: of ``ema``.
        restart_below: see :class:`VectorQuantizer`.

    Shape:
        - input: images ``(batch, in_channels, height, width)``, sides multiples of 4
        - output: :class:`Coding`

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        in_channels: int = 3,
        *,
        hidden_channels: int = 256,
        num_codes: int = 512,
        code_dim: int = 64,
        update: Literal["ema", "loss"] = "ema",
        decay: float = 0.99,
        restart_below: float = 0.1,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, hidden_channels=hidden_channels)
        width = hidden_channels
        self.in_channels, self.num_codes = in_channels, num_codes
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            ResidualBlock(width),
            ResidualBlock(width),
            nn.ReLU(),
            nn.Conv2d(width, code_dim, 1),
        )
        self.quantizer = VectorQuantizer(
            num_codes, code_dim, update=update, decay=decay, restart_below=restart_below
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code_dim, width, 1),
            ResidualBlock(width),
            ResidualBlock(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, in_channels, 4, stride=2, padding=1),
        )

    def init_weights(self) -> None:
        reset(self)

    def encode(self, images: Tensor) -> Tensor:
        """The vectors that are quantised, ``(batch, code_dim, height / 4, width / 4)``."""
        check_images(images, in_channels=self.in_channels, smallest=4)
        return self.encoder(images)

    def decode(self, indices: Tensor) -> Tensor:
        """The images of code numbers ``(batch, height / 4, width / 4)``."""
        return self.decoder(self.quantizer.look_up(indices))

    def forward(self, images: Tensor) -> Coding:
        encoded = self.encode(images)
        quantized, indices = self.quantizer(encoded)
        passed = encoded + (quantized - encoded).detach()  # straight through
        return Coding(self.decoder(passed), encoded, quantized, indices)
