"""Non-linearities by name, each with the first weights that suit the layers before it.

Which start suits which unit: a rectifier and what resembles it halve the mean square of what goes
through, which He's variance makes up for; a unit that is the identity near zero wants Glorot's. The
self-normalising unit and the larger of two independent sums keep it as it is, with LeCun's.
"""

from typing import Literal, NamedTuple, cast, get_args

from torch import nn

from zoo.layers.initialization import Start
from zoo.layers.maxout import LargestPiece

Elementwise = Literal[
    "linear",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
]
Activation = Literal[Elementwise, "maxout"]


class _Kind(NamedTuple):
    module: type[nn.Module]
    start: Start


_KINDS = {
    "linear": _Kind(nn.Identity, "glorot"),
    "sigmoid": _Kind(nn.Sigmoid, "glorot"),
    "tanh": _Kind(nn.Tanh, "glorot"),
    "relu": _Kind(nn.ReLU, "he"),
    "leaky_relu": _Kind(nn.LeakyReLU, "he"),  # Maas et al. 2013
    "prelu": _Kind(nn.PReLU, "he"),  # He et al. 2015, https://arxiv.org/abs/1502.01852
    "elu": _Kind(nn.ELU, "he"),  # Clevert et al. 2016, https://arxiv.org/abs/1511.07289
    "selu": _Kind(nn.SELU, "lecun"),  # Klambauer et al. 2017, https://arxiv.org/abs/1706.02515
    "gelu": _Kind(nn.GELU, "he"),  # Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415
    "silu": _Kind(nn.SiLU, "he"),  # Elfwing et al. 2018, https://arxiv.org/abs/1702.03118
    "softplus": _Kind(nn.Softplus, "glorot"),  # Dugas et al. 2001
    "maxout": _Kind(LargestPiece, "lecun"),  # Goodfellow et al. 2013
}


def make_activation(name: Activation, *, slope: float | None = None) -> nn.Module:
    """A non-linearity.

    Args:
        name: which; ``linear`` is none at all. ``maxout`` takes `pieces` values for each unit,
            side by side, and returns the largest.
        slope: below zero, of ``leaky_relu``, and the first one of ``prelu``; None: 0.01 and 0.25.

    Raises:
        ValueError: there is none of this name.
    """
    check_activation(name)
    kind = _KINDS[name].module
    if slope is not None and name in ("leaky_relu", "prelu"):
        return kind(slope) if name == "leaky_relu" else nn.PReLU(init=slope)
    return kind()


def check_activation(name: str, among: object = Activation) -> None:
    """Refuses a name that is none of those of a type.

    Raises:
        ValueError: naming it and what there is.
    """
    names = get_args(among)
    if name not in names:
        raise ValueError(f"activation must be one of {', '.join(names)}, not {name!r}")


def pieces(name: Activation) -> int:
    """How many weighted sums a unit is made of: 2 of maxout, else 1."""
    return 2 if name == "maxout" else 1


def suitable_start(name: Activation) -> Start:
    """How weights in front of the non-linearity start where nothing else is wanted."""
    return _KINDS[name].start


def negative_slope(name: Activation, slope: float | None) -> float:
    """The slope below zero of a rectifier that has one, for He's start; 0 of all others."""
    module = make_activation(name, slope=slope)
    if isinstance(module, nn.PReLU):
        return module.init
    return cast(float, getattr(module, "negative_slope", 0.0))
