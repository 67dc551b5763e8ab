r"""ShallowConvNet for brain signals (Schirrmeister et al., 2017).

"Deep learning with convolutional neural networks for EEG decoding and visualization",
https://arxiv.org/abs/1703.05051

Which movement somebody imagines shows in how strong certain rhythms are at certain places of the
head. So the network is band power, learned: filters in time pick the rhythm, filters over the
electrodes the place; squaring, averaging over time and the logarithm make a power of each, and a
linear layer decides.

`shallow_convnet` is the network as it is written down in many courses, with layers of standard
kinds only. It differs from the paper: an ELU follows each of the two filterings, which in the paper
are linear; the paper's batch normalisation before the square and its dropout before the last layer
are not there. ``elu=False, batch_norm=True, dropout=0.5`` is the paper's network (46,084
parameters: batch normalisation has 80, and replaces 40 biases).

In both, the mean of squares is kept from falling below 1e-6 before the logarithm, as in the
authors' code.

| layer | size (22x1000 input) | parameters |
|---|---|---|
| temporal | 40 x 22 x 976 | 1,040 |
| spatial | 40 x 976 | 35,240 |
| square, mean over 75 every 15, logarithm | 40 x 61 | 0 |
| output | 4 | 9,764 |
| total | | 46,044 |
"""

from typing import TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability, check_shape
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

_SMALLEST_POWER = 1e-6


class ShallowConvNet(nn.Module):
    r"""Filters in time, filters over electrodes, log power, linear decision.

    .. math::
        a &= \mathrm{ELU}(h_\text{time} * x), \quad
        b_j = \mathrm{ELU}\Bigl(\sum_{k, e} W_{jke}\, a_{ke} + c_j\Bigr), \\
        y &= V \log \operatorname{mean}_{75}(b^2) + d

    Args:
        num_classes: width of the output.
        in_channels: electrodes.
        input_length: samples in time.
        hidden_channels: number of filters, in time and over the electrodes.
        kernel_size: samples that a filter in time covers.
        pool_size: samples that a mean covers.
        pool_stride: samples from one mean to the next.
        elu: apply the ELU after each filtering.
        batch_norm: normalise before the square.
        dropout: probability of dropping a log power.

    Shape:
        - input: ``(batch, in_channels, input_length)``
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        num_classes: int = 4,
        *,
        in_channels: int = 22,
        input_length: int = 1000,
        hidden_channels: int = 40,
        kernel_size: int = 25,
        pool_size: int = 75,
        pool_stride: int = 15,
        elu: bool = True,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least_one(
            num_classes=num_classes,
            in_channels=in_channels,
            hidden_channels=hidden_channels,
            kernel_size=kernel_size,
            pool_size=pool_size,
            pool_stride=pool_stride,
        )
        if input_length < (smallest := kernel_size + pool_size - 1):
            raise ValueError(
                f"input_length must be at least {smallest} for kernel_size {kernel_size} and "
                f"pool_size {pool_size}, not {input_length}"
            )
        check_probability(dropout=dropout)
        self.in_channels, self.input_length = in_channels, input_length
        self.pool_size, self.pool_stride = pool_size, pool_stride
        self.temporal = nn.Conv2d(1, hidden_channels, (1, kernel_size))
        self.spatial = nn.Conv2d(
            hidden_channels, hidden_channels, (in_channels, 1), bias=not batch_norm
        )
        self.activation = nn.ELU() if elu else nn.Identity()
        self.norm = nn.BatchNorm1d(hidden_channels) if batch_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        num_means = (input_length - smallest) // pool_stride + 1
        self.output = nn.Linear(hidden_channels * num_means, num_classes)

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.output = fresh_linear(self.output, num_classes).apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        check_shape(x, self.in_channels, self.input_length)
        x = self.activation(self.temporal(x.unsqueeze(1)))  # (batch, filters, electrodes, time)
        x = self.activation(self.norm(self.spatial(x).squeeze(2)))  # (batch, filters, time)
        x = F.avg_pool1d(x.square(), self.pool_size, self.pool_stride)  # (batch, filters, means)
        return self.dropout(x.clamp_min(_SMALLEST_POWER).log())  # (batch, filters, means)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.forward_features(x).flatten(1))  # (batch, num_classes)


def _initialise(layer: nn.Module) -> None:
    """Xavier-uniform weights, biases 0."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class ShallowConvNetOptions(TypedDict, total=False):
    """What the builder hands on to :class:`ShallowConvNet`."""

    in_channels: int
    input_length: int
    hidden_channels: int
    kernel_size: int
    pool_size: int
    pool_stride: int
    elu: bool
    batch_norm: bool
    dropout: float


def shallow_convnet(
    num_classes: int = 4, **options: Unpack[ShallowConvNetOptions]
) -> ShallowConvNet:
    """The network for 22 electrodes, 1000 samples and 4 movements."""
    return ShallowConvNet(num_classes, **options)
