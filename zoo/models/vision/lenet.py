r"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998).

"Gradient-based learning applied to document recognition", https://doi.org/10.1109/5.726791

Small kernels slid over the whole image find the same feature wherever it stands, and maps that
shrink from layer to layer forget exactly where that was. All of it, features included, is trained
from pixels by back-propagation.

Differences from the paper, :class:`LeNet5`:

- The output codes. The paper draws each class's 84 fixed values as a 7x12 image of the character
  and prints the images, very small, in a figure only; the transcriptions in circulation
  contradict one another. It also says that an error-correcting code would have done, so that is
  what stands here (:func:`output_codes`). ``output.codes`` is a buffer: other codes can be
  copied into it.
- ``forward`` returns the negated penalties, so that the largest output wins, as everywhere else.
- The images' background is -0.1 and the ink 1.175 in the paper; that is up to the data.

Differences from the paper, :class:`LeNet5Modern`: the network that goes by the name today, with
ReLU, max-pooling, every C3 map connected to all of S2, a linear output layer, and PyTorch's
default initialisation.

| layer | size (32x32 input) | `lenet5_1998` | connections | `lenet5` |
|---|---|---|---|---|
| C1 | 6 x 28 x 28 | 156 | 122,304 | 156 |
| S2 | 6 x 14 x 14 | 12 | 5,880 | 0 |
| C3 | 16 x 10 x 10 | 1,516 | 151,600 | 2,416 |
| S4 | 16 x 5 x 5 | 32 | 2,000 | 0 |
| C5 | 120 | 48,120 | 48,120 | 48,120 |
| F6 | 84 | 10,164 | 10,164 | 10,164 |
| output | 10 | 0 (840 fixed) | 840 | 850 |
| total | | 60,000 | 340,908 | 61,706 |
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

# Table I: the maps of S2 from which each map of C3 takes its input.
C3_CONNECTIONS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)
CODE_LENGTH = 84
_SMALLEST_IMAGE = 12


def _uniform(parameter: Tensor, fan_in: int) -> None:
    """Draws from U(-2.4 / fan_in, 2.4 / fan_in), as appendix A does."""
    nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)


class ScaledTanh(nn.Module):
    r"""The paper's squashing function, steepest and most curved where it is wanted.

    .. math:: f(a) = 1.7159 \tanh(2a/3)

    so that :math:`f(\pm 1) = \pm 1`, and the second derivative is largest there (appendix A).

    Shape:
        - input and output: any
    """

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    r"""Halves the resolution; each map has one trainable coefficient and one bias.

    .. math:: y = w_c \sum_{2 \times 2} x + b_c

    Args:
        channels: number of maps.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: ``(batch, channels, height // 2, width // 2)``
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _uniform(self.weight, 4)
        _uniform(self.bias, 4)

    def forward(self, x: Tensor) -> Tensor:
        total = 4 * F.avg_pool2d(x, 2)  # (batch, channels, height // 2, width // 2)
        return total * self.weight[:, None, None] + self.bias[:, None, None]


class PartialConv2d(nn.Module):
    """A 5x5 convolution in which each output map sees only some of the input maps.

    Only the kernels that exist are parameters; they are laid into a dense kernel, zero elsewhere.

    Args:
        in_channels: number of input maps.
        connections: for each output map, the input maps that it sees.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, len(connections), height - 4, width - 4)``
    """

    index: Tensor

    def __init__(self, in_channels: int, connections: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, len(connections)
        self.connections = connections
        kernels = sum(len(inputs) for inputs in connections)
        self.register_buffer("index", torch.empty(kernels, dtype=torch.int64), persistent=False)
        self.weight = nn.Parameter(torch.empty(kernels, 5, 5))
        self.bias = nn.Parameter(torch.empty(len(connections)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        places = [
            out * self.in_channels + i
            for out, inputs in enumerate(self.connections)
            for i in inputs
        ]
        self.index.copy_(torch.tensor(places))
        weights = self.weight.split([len(inputs) for inputs in self.connections])
        for weight, bias, inputs in zip(weights, self.bias, self.connections, strict=True):
            _uniform(weight, 25 * len(inputs))
            _uniform(bias, 25 * len(inputs))

    def forward(self, x: Tensor) -> Tensor:
        dense = self.weight.new_zeros(self.out_channels * self.in_channels, 5, 5)
        dense = dense.index_copy(0, self.index, self.weight)
        dense = dense.view(self.out_channels, self.in_channels, 5, 5)
        return F.conv2d(x, dense, self.bias)  # (batch, out_channels, height - 4, width - 4)


def output_codes(num_classes: int) -> Tensor:
    r"""One code of 84 values +-1 a class, every two of which differ in exactly 42 places.

    They are orthogonal, rows of Paley's Hadamard matrix of order 84: row :math:`k` marks the
    squares modulo 83, shifted by :math:`k`, and ends in a 1. No class is nearer to one than to
    another, so up to 20 wrong values in F6 leave the right class the nearest.

    Args:
        num_classes: number of codes, at most 83.

    Shape:
        - output: ``(num_classes, 84)``
    """
    prime = CODE_LENGTH - 1
    squares = {i * i % prime for i in range(prime)}
    rows = [
        [1.0 if (place - k) % prime in squares else -1.0 for place in range(prime)] + [1.0]
        for k in range(num_classes)
    ]
    return torch.tensor(rows)


class EuclideanRBF(nn.Module):
    r"""Squared distance to a fixed code a class: a penalty, 0 for a perfect fit (equation 7).

    .. math:: y_k = \sum_j (x_j - c_{kj})^2

    Args:
        num_classes: number of codes, those of :func:`output_codes`.

    Shape:
        - input: ``(batch, 84)``
        - output: ``(batch, num_classes)``
    """

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.empty(num_classes, CODE_LENGTH))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.codes.copy_(output_codes(len(self.codes)))

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] - self.codes).square().sum(2)  # (batch, num_classes)


def _check_num_codes(num_classes: int) -> None:
    if not 1 <= num_classes < CODE_LENGTH:
        raise ValueError(f"num_classes must be 1 to {CODE_LENGTH - 1}, not {num_classes}")


class LeNet5(nn.Module):
    r"""LeNet-5 of 1998: convolutions C1, C3, C5, sub-sampling S2, S4, full layer F6, RBF output.

    The output is :math:`-y_k`, the negated penalty of class k. Cross-entropy on it is the paper's
    discriminative criterion (equation 9) without its extra class for rubbish
    (:math:`j \to \infty`): it pulls F6 towards the right code and pushes it away from the others.

    Args:
        num_classes: width of the output, at most 83.
        in_channels: channels of the image; 1 in the paper.
        image_size: height and width: 32, or 28 to have the image framed in zeros up to 32.

    Shape:
        - input: ``(batch, in_channels, image_size, image_size)``
        - output: negated penalties ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    output_layers: ClassVar[tuple[str, ...]] = ("output",)  # which learns nothing

    @deferred_init
    def __init__(
        self, num_classes: int = 10, *, in_channels: int = 1, image_size: int = 32
    ) -> None:
        super().__init__()
        _check_num_codes(num_classes)
        check_at_least_one(in_channels=in_channels)
        if image_size not in (28, 32):
            raise ValueError(f"image_size must be 32, or 28 to be framed, not {image_size}")
        self.in_channels, self.image_size = in_channels, image_size
        self.squash = ScaledTanh()
        self.c1 = nn.Conv2d(in_channels, 6, 5, padding=(32 - image_size) // 2)
        self.s2 = Subsampling(6)
        self.c3 = PartialConv2d(6, C3_CONNECTIONS)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, CODE_LENGTH)
        self.output = EuclideanRBF(num_classes)

    def init_weights(self) -> None:
        reset(self)
        for layer in (self.c1, self.c5, self.f6):
            fan_in = math.prod(layer.weight.shape[1:])
            _uniform(layer.weight, fan_in)
            assert layer.bias is not None
            _uniform(layer.bias, fan_in)

    def reset_classifier(self, num_classes: int) -> None:
        """Takes the codes of other classes."""
        _check_num_codes(num_classes)
        self.output = EuclideanRBF(num_classes).to(self.output.codes)

    def forward_features(self, x: Tensor) -> Tensor:
        check_shape(x, self.in_channels, self.image_size, self.image_size)
        x = self.squash(self.c1(x))  # (batch, 6, 28, 28)
        x = self.squash(self.s2(x))  # (batch, 6, 14, 14)
        x = self.squash(self.c3(x))  # (batch, 16, 10, 10)
        x = self.squash(self.s4(x))  # (batch, 16, 5, 5)
        x = self.squash(self.c5(x)).flatten(1)  # (batch, 120)
        return self.squash(self.f6(x))  # (batch, 84)

    def forward(self, x: Tensor) -> Tensor:
        return -self.output(self.forward_features(x))  # (batch, num_classes)


class LeNet5Modern(nn.Module):
    """LeNet-5 as it is built today: ReLU, max-pooling, full connections, linear output.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        image_size: height and width, at least 12. Below 32 the image is framed in two rows of
            zeros, so that 28x28 images meet the paper's map sizes.

    Shape:
        - input: ``(batch, in_channels, image_size, image_size)``
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self, num_classes: int = 10, *, in_channels: int = 1, image_size: int = 32
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        if image_size < _SMALLEST_IMAGE:
            raise ValueError(f"image_size must be at least {_SMALLEST_IMAGE}, not {image_size}")
        self.in_channels, self.image_size = in_channels, image_size
        padding = 2 if image_size < 32 else 0
        self.c1 = nn.Conv2d(in_channels, 6, 5, padding=padding)
        self.c3 = nn.Conv2d(6, 16, 5)
        s4_size = ((image_size + 2 * padding - 4) // 2 - 4) // 2
        self.c5 = nn.Linear(16 * s4_size**2, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)

    def init_weights(self) -> None:
        reset(self)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.output = fresh_linear(self.output, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        check_shape(x, self.in_channels, self.image_size, self.image_size)
        # Sizes in the comments are those of 28x28 and 32x32 images.
        x = F.max_pool2d(torch.relu(self.c1(x)), 2)  # (batch, 6, 14, 14)
        x = F.max_pool2d(torch.relu(self.c3(x)), 2)  # (batch, 16, 5, 5)
        x = torch.relu(self.c5(x.flatten(1)))  # (batch, 120)
        return torch.relu(self.f6(x))  # (batch, 84)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.forward_features(x))  # (batch, num_classes)


def lenet5_1998(num_classes: int = 10, *, in_channels: int = 1, image_size: int = 32) -> LeNet5:
    """LeNet-5 as published."""
    return LeNet5(num_classes, in_channels=in_channels, image_size=image_size)


def lenet5(num_classes: int = 10, *, in_channels: int = 1, image_size: int = 32) -> LeNet5Modern:
    """LeNet-5 with ReLU and max-pooling."""
    return LeNet5Modern(num_classes, in_channels=in_channels, image_size=image_size)
