r"""Networks with uncertain weights, by Bayes by Backprop (Blundell et al., 2015).

C. Blundell, J. Cornebise, K. Kavukcuoglu and D. Wierstra, "Weight uncertainty in neural networks",
https://arxiv.org/abs/1505.05424

Every weight is a normal distribution, learned by drawing from it; what the network does not know
shows in how far its answers differ from draw to draw. The loss is the expected one of the data
plus the divergence of these distributions from what was held before the data: see
``zoo/layers/bayesian.py``, and ``zoo/tasks/bayesian_classification.py`` and
``zoo/tasks/bayesian_regression.py`` for how they are learned and judged.

Differences from the paper: a normal prior instead of a mixture of two; convolutions, which the
paper does not have, laid out as LeNet-5 is today.

| builder | inputs | weights | parameters |
|---|---|---|---|
| `BayesianMLP` | 784 | 478,410 | 956,820 |
| `BayesianCNN` | 1 x 32 x 32 | 61,706 | 123,412 |
"""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.bayesian import BayesianConv2d, BayesianLinear
from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.initialization import deferred_init, reset

_SMALLEST_IMAGE = 12


class BayesianMLP(nn.Module):
    """Fully connected layers of uncertain weights with a non-linearity between them.

    Args:
        in_features: elements of one sample once flattened.
        num_classes: width of the output.
        hidden_sizes: width of each hidden layer; none at all gives a linear model.
        activation: non-linearity after each hidden layer.
        prior_scale: standard deviation of each weight before the data.
        initial_scale: that of each weight's distribution in the beginning.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: ``(batch, num_classes)``

    Raises:
        ValueError: if a size is smaller than 1, a scale is not greater than 0 or ``activation`` is
            unknown.
    """

    output_layers: ClassVar[tuple[str, ...]] = ("classifier",)

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_sizes: tuple[int, ...] = (400, 400),
        activation: Literal["relu", "tanh"] = "relu",
        prior_scale: float = 1.0,
        initial_scale: float = 0.05,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features, num_classes=num_classes, hidden_sizes=hidden_sizes
        )
        if activation not in ("relu", "tanh"):
            raise ValueError(f"activation must be relu or tanh, not {activation!r}")
        scales: dict[str, Any] = {"prior_scale": prior_scale, "initial_scale": initial_scale}
        layers: list[nn.Module] = []
        for size in hidden_sizes:
            layers.append(BayesianLinear(in_features, size, **scales))
            layers.append(nn.ReLU() if activation == "relu" else nn.Tanh())
            in_features = size
        self.layers = nn.Sequential(*layers)
        self.classifier = BayesianLinear(in_features, num_classes, **scales)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.layers(x.flatten(1)))  # (batch, num_classes)


class BayesianCNN(nn.Module):
    """LeNet-5 as it is built today, with uncertain weights.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        image_size: height and width, at least 12. Below 32 the image is framed in two rows of
            zeros.
        prior_scale: standard deviation of each weight before the data.
        initial_scale: that of each weight's distribution in the beginning.

    Shape:
        - input: ``(batch, in_channels, image_size, image_size)``
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    output_layers: ClassVar[tuple[str, ...]] = ("output",)

    @deferred_init
    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 1,
        image_size: int = 32,
        prior_scale: float = 1.0,
        initial_scale: float = 0.05,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        if image_size < _SMALLEST_IMAGE:
            raise ValueError(f"image_size must be at least {_SMALLEST_IMAGE}, not {image_size}")
        self.in_channels, self.image_size = in_channels, image_size
        padding = 2 if image_size < 32 else 0
        scales: dict[str, Any] = {"prior_scale": prior_scale, "initial_scale": initial_scale}
        self.c1 = BayesianConv2d(in_channels, 6, 5, padding=padding, **scales)
        self.c3 = BayesianConv2d(6, 16, 5, **scales)
        s4_size = ((image_size + 2 * padding - 4) // 2 - 4) // 2
        self.c5 = BayesianLinear(16 * s4_size**2, 120, **scales)
        self.f6 = BayesianLinear(120, 84, **scales)
        self.output = BayesianLinear(84, num_classes, **scales)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor) -> Tensor:
        check_shape(x, self.in_channels, self.image_size, self.image_size)
        # Sizes in the comments are those of 28x28 and 32x32 images.
        x = F.max_pool2d(torch.relu(self.c1(x)), 2)  # (batch, 6, 14, 14)
        x = F.max_pool2d(torch.relu(self.c3(x)), 2)  # (batch, 16, 5, 5)
        x = torch.relu(self.c5(x.flatten(1)))  # (batch, 120)
        x = torch.relu(self.f6(x))  # (batch, 84)
        return self.output(x)  # (batch, num_classes)
