r"""A plain convolutional network, of the form that most of them had until 2014.

It follows no paper: blocks of convolutions, each block followed by a pooling that halves the
image, then fully connected layers, as in LeNet-5 (LeCun et al. 1998,
https://doi.org/10.1109/5.726791), AlexNet and VGG. What stands between them is chosen by name, to
see what it does.

| class | blocks, hidden layers | parameters (32x32 images, 1 channel, 10 classes) |
|---|---|---|
| `CNN` | (16, 16), (32, 32); 64 | 148,154 |
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from zoo.layers.activations import Activation
from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.classifier import fresh_linear
from zoo.layers.hidden import Hidden, Placement, unused_options
from zoo.layers.initialization import Start, deferred_init, reset


class CNN(nn.Module):
    """([convolution x m, max-pooling] x n, [fully connected] x k, linear classifier).

    A block's numbers are the channels of its convolutions, which keep height and width. Weights
    start as those of :class:`zoo.models.mlp.MLP` do; the fan-in of a convolution is what one of its
    units sees.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        image_size: height and width.
        blocks: channels of each convolution of each block.
        kernel_size: height and width of every kernel, odd.
        hidden_sizes: width of each fully connected layer between the last block and the
            classifier; may be none.
        activation: non-linearity after each convolution and hidden layer
            (``zoo/layers/activations.py``).
        slope: below zero, of ``leaky_relu``, and the first one of ``prelu``; None: 0.01 and 0.25.
        batch_norm: ``none``, or batch normalisation ``before`` or ``after`` each non-linearity.
        dropout: probability with which a unit of a fully connected layer is silenced during
            training.
        init: how all weights start instead (``zoo/layers/initialization.py``).
        init_std: standard deviation of ``normal`` and ``uniform``.

    Shape:
        - input: ``(batch, in_channels, image_size, image_size)``
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, a block has no convolution, or nothing is
            left of an image after the poolings.
    """

    @deferred_init
    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        *,
        image_size: int = 32,
        blocks: tuple[tuple[int, ...], ...] = ((16, 16), (32, 32)),
        kernel_size: int = 3,
        hidden_sizes: tuple[int, ...] = (64,),
        activation: Activation = "relu",
        slope: float | None = None,
        batch_norm: Placement = "none",
        dropout: float = 0.0,
        init: Start | None = None,
        init_std: float = 0.01,
    ) -> None:
        super().__init__()
        check_at_least_one(
            num_classes=num_classes, in_channels=in_channels, hidden_sizes=hidden_sizes
        )
        if not blocks or any(not block or min(block) < 1 for block in blocks):
            raise ValueError(
                f"blocks must be lists of at least one number of channels each, not {blocks}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, not {kernel_size}")
        left = image_size // 2 ** len(blocks)
        if left < 1:
            raise ValueError(
                f"image_size must be at least {2 ** len(blocks)} for {len(blocks)} blocks, each "
                f"of which halves it, not {image_size}"
            )
        self.hidden = Hidden(
            activation=activation,
            slope=slope,
            batch_norm=batch_norm,
            dropout=dropout,
            init=init,
            init_std=init_std,
        )
        self.image_shape = (in_channels, image_size, image_size)
        features: list[nn.Module] = []
        for block in blocks:
            for pair in pairwise((in_channels, *block)):
                features += self.hidden.convolution(*pair, kernel_size)
            features.append(nn.MaxPool2d(2))
            in_channels = block[-1]
        self.features = nn.Sequential(*features)
        sizes = (in_channels * left**2, *hidden_sizes)
        layers = [layer for pair in pairwise(sizes) for layer in self.hidden.linear(*pair)]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(sizes[-1], num_classes)

    def init_weights(self) -> None:
        reset(self)
        for layer in (*self.features, *self.layers, self.classifier):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                self.hidden.start(layer, is_output=layer is self.classifier)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier = fresh_linear(self.classifier, num_classes)
        self.hidden.start(self.classifier, is_output=True)

    @classmethod
    def without_effect(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Arguments that nothing reads beside the others, and why."""
        return unused_options(arguments)

    def forward_features(self, x: Tensor) -> Tensor:
        check_shape(x, *self.image_shape)
        return self.features(x)  # (batch, last channels, image_size // 2**n, likewise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.forward_features(x).flatten(1))  # (batch, last of hidden_sizes)
        return self.classifier(x)  # (batch, num_classes)
