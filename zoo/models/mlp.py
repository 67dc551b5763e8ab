r"""Multilayer perceptron (Rumelhart, Hinton and Williams, 1986).

"Learning representations by back-propagating errors", https://doi.org/10.1038/323533a0

Layers of weighted sums and a non-linearity, trained by sending the error's derivative backwards
through them. The hidden units come to stand for features of the task that nobody wrote down.

Differences from the paper: its units are logistic, with weights that start uniform in +-0.3; here
they are rectified, tanh or GELU, and start as the papers named under :class:`MLP` say. The two
builders are the plain networks of two MNIST papers, without their elastic distortions (Simard) and
without dropout of the pixels and the bound on the weights' norms (Hinton).

| builder | hidden layers | source | parameters (784 inputs, 10 classes) |
|---|---|---|---|
| `MLP` | 256 | | 203,530 |
| `mlp_800` | 800 | Simard, Steinkraus and Platt 2003 | 636,010 |
| `mlp_800_800` | 800, 800 | Hinton et al. 2012 | 1,276,810 |
"""

from typing import Literal

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset

Activation = Literal["relu", "tanh", "gelu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class MLP(nn.Module):
    r"""Fully connected layers with a non-linearity between them, then a linear classifier.

    .. math:: h_0 = x, \qquad h_l = \phi(W_l h_{l-1} + b_l), \qquad y = W_{L+1} h_L + b_{L+1}

    Weights before a ReLU or GELU start as :math:`\mathcal N(0, 2/\mathrm{fan\_in})` (He et al.
    2015, https://arxiv.org/abs/1502.01852, equation 10: GELU is taken for the ReLU it resembles);
    weights before a tanh and those of the classifier as
    :math:`\mathcal U(\pm\sqrt{6/(\mathrm{fan\_in} + \mathrm{fan\_out})})` (Glorot and Bengio 2010,
    https://proceedings.mlr.press/v9/glorot10a.html, equation 16). Biases start at zero.

    Args:
        in_features: elements of one sample once flattened.
        num_classes: width of the output.
        hidden_sizes: width of each hidden layer; none at all gives softmax regression.
        activation: non-linearity after each hidden layer.
        dropout: probability with which each hidden unit is silenced during training.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if a size is smaller than 1, ``activation`` is unknown or ``dropout`` is
            outside [0, 1).
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_sizes: tuple[int, ...] = (256,),
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, num_classes=num_classes)
        if any(size < 1 for size in hidden_sizes):
            raise ValueError(f"hidden_sizes must all be at least 1, not {tuple(hidden_sizes)}")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be relu, tanh or gelu, not {activation!r}")
        check_probability(dropout=dropout)
        self.activation = activation
        layers: list[nn.Module] = []
        width = in_features
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), _ACTIVATIONS[activation]()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = size
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)

    def init_weights(self) -> None:
        for layer in (*self.layers, self.classifier):
            if isinstance(layer, nn.Linear):
                reset(layer)
                if layer is self.classifier or self.activation == "tanh":
                    nn.init.xavier_uniform_(layer.weight)
                else:
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

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
