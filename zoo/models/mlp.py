r"""Multilayer perceptron (Rumelhart, Hinton and Williams, 1986).

"Learning representations by back-propagating errors", https://doi.org/10.1038/323533a0

Layers of weighted sums and a non-linearity, trained by sending the error's derivative backwards
through them. The hidden units come to stand for features of the task that nobody wrote down.

Differences from the paper: its units are logistic, with weights that start uniform in +-0.3; here
they are what the user names (rectified, unless told otherwise), and start as the papers named
under :class:`MLP` say. The two builders are the plain networks of two MNIST papers, without their
elastic distortions (Simard) and without dropout of the pixels and the bound on the weights' norms
(Hinton).

| builder | hidden layers | source | parameters (784 inputs, 10 classes) |
|---|---|---|---|
| `MLP` | 256 | | 203,530 |
| `mlp_800` | 800 | Simard, Steinkraus and Platt 2003 | 636,010 |
| `mlp_800_800` | 800, 800 | Hinton et al. 2012 | 1,276,810 |
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from zoo.layers.activations import Activation
from zoo.layers.checks import check_at_least_one
from zoo.layers.hidden import Hidden, Placement, unused_options
from zoo.layers.initialization import Start, deferred_init, reset


class MLP(nn.Module):
    r"""Fully connected layers with a non-linearity between them, then a linear classifier.

    .. math:: h_0 = x, \qquad h_l = \phi(W_l h_{l-1} + b_l), \qquad y = W_{L+1} h_L + b_{L+1}

    Weights before a ReLU, or a unit that resembles it (leaky and parametric ReLU, ELU, GELU, SiLU),
    start as :math:`\mathcal N(0, 2/\mathrm{fan\_in})` (He et al. 2015,
    https://arxiv.org/abs/1502.01852, equation 10, with the slope below zero equation 15); before
    SELU and maxout of two pieces as :math:`\mathcal N(0, 1/\mathrm{fan\_in})`; before the others
    (tanh, sigmoid, softplus, none) and those of the classifier as
    :math:`\mathcal U(\pm\sqrt{6/(\mathrm{fan\_in} + \mathrm{fan\_out})})` (Glorot and Bengio 2010,
    https://proceedings.mlr.press/v9/glorot10a.html, equation 16). Biases start at zero.

    Args:
        in_features: elements of one sample once flattened.
        num_classes: width of the output.
        hidden_sizes: width of each hidden layer; none at all gives softmax regression.
        activation: non-linearity after each hidden layer (``zoo/layers/activations.py``).
        slope: below zero, of ``leaky_relu``, and the first one of ``prelu``; None: 0.01 and 0.25.
        batch_norm: ``none``, or batch normalisation ``before`` or ``after`` each non-linearity.
        dropout: probability with which each hidden unit is silenced during training.
        init: how all weights start instead, the classifier's too: ``he``, ``glorot``, ``lecun``,
            ``orthogonal``, ``normal``, ``uniform`` or ``zeros`` (``zoo/layers/initialization.py``).
        init_std: standard deviation of ``normal`` and ``uniform``.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if a size is smaller than 1, a name is unknown, ``dropout`` is outside [0, 1)
            or ``init_std`` is negative.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_sizes: tuple[int, ...] = (256,),
        activation: Activation = "relu",
        slope: float | None = None,
        batch_norm: Placement = "none",
        dropout: float = 0.0,
        init: Start | None = None,
        init_std: float = 0.01,
    ) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, num_classes=num_classes)
        if any(size < 1 for size in hidden_sizes):
            raise ValueError(f"hidden_sizes must all be at least 1, not {tuple(hidden_sizes)}")
        self.hidden = Hidden(
            activation=activation,
            slope=slope,
            batch_norm=batch_norm,
            dropout=dropout,
            init=init,
            init_std=init_std,
        )
        sizes = (in_features, *hidden_sizes)
        layers = [layer for pair in pairwise(sizes) for layer in self.hidden.linear(*pair)]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(sizes[-1], num_classes)

    def init_weights(self) -> None:
        for layer in (*self.layers, self.classifier):
            reset(layer)
            if isinstance(layer, nn.Linear):
                self.hidden.start(layer, is_output=layer is self.classifier)

    @classmethod
    def without_effect(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Arguments that nothing reads beside the others, and why."""
        return unused_options(arguments)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layers(x.flatten(1))  # (batch, last of hidden_sizes)
        return self.classifier(hidden)  # (batch, num_classes)


def mlp_800(in_features: int = 784, num_classes: int = 10) -> MLP:
    """One hidden layer of 800 units: the fully connected network of Simard et al. 2003.

    "Best practices for convolutional neural networks applied to visual document analysis",
    https://doi.org/10.1109/ICDAR.2003.1227801. Rectified here, to be trained like the others.
    """
    return MLP(in_features, num_classes, hidden_sizes=(800,))


def mlp_800_800(in_features: int = 784, num_classes: int = 10, *, dropout: float = 0.5) -> MLP:
    """Two hidden layers of 800 units with dropout: Hinton et al. 2012.

    "Improving neural networks by preventing co-adaptation of feature detectors",
    https://arxiv.org/abs/1207.0580, the smallest of its MNIST networks.
    """
    return MLP(in_features, num_classes, hidden_sizes=(800, 800), dropout=dropout)
