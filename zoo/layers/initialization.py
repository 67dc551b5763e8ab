"""How networks get their first weights: once, by ``init_weights``, wherever they were built.

A network's constructor says which layers there are, and its ``init_weights`` how they start. With
:func:`deferred_init` the constructor itself draws nothing: it builds on the meta device, which has
no memory, and ``init_weights`` is called when everything is there. So the same weights come out of
a seed whether a network was built at once, or on the meta device and filled later, as a network
too large for one device has to be::

    with torch.device("meta"):
        network = GPT(...)
    network.to_empty(device="cuda")
    network.init_weights()

Since ``to_empty`` keeps no value and no tie, ``init_weights`` gives *every* parameter and buffer
its value, computed buffers included, and ties weights that are tied.
"""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, get_args

import torch
from torch import Tensor, nn

P = ParamSpec("P")

Start = Literal["he", "glorot", "lecun", "orthogonal", "normal", "uniform", "zeros"]
"""Names of distributions of first weights, see :func:`start_`."""


def deferred_init(
    init: Callable[Concatenate[Any, P], None],
) -> Callable[Concatenate[Any, P], None]:
    """Makes a network's constructor end with ``self.init_weights()``, and draw nothing before.

    It stands on every constructor of a class hierarchy. Of constructors that call one another (a
    base class's, those of networks inside the network) only the outermost initialises, and on the
    meta device none does. Tensors that exist already, of a network handed to the constructor, keep
    their values until ``init_weights`` changes them.

    Raises:
        TypeError: if a subclass's constructor is not decorated.
    """

    @functools.wraps(init)
    def build(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        device = torch.get_default_device()
        if device.type == "meta":
            init(self, *args, **kwargs)
            return
        if type(self).__init__ is not build:
            # The weights would be drawn before the subclass has made its layers.
            raise TypeError(f"{type(self).__qualname__}.__init__ must be decorated: @deferred_init")
        with torch.device("meta"):
            init(self, *args, **kwargs)
        self._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t)
        self.init_weights()

    return build


def reset(module: nn.Module) -> None:
    """Starts a layer, or all in a network, as constructors do: by PyTorch's default.

    In the order in which modules are built, those inside a module before the module itself, calls
    ``init_weights()`` of each network inside, and ``reset_parameters()`` of each layer. The
    module's own ``init_weights`` is not called, because that is where to call this from.

    A network whose weights are then drawn anew calls this nevertheless: like that, a seed gives
    the weights that it gave when the layers' constructors drew their own.

    Raises:
        TypeError: if a module has tensors of its own and neither method.
    """
    child: Any
    for child in module.children():
        if hasattr(child, "init_weights"):
            child.init_weights()
        else:
            reset(child)
    layer: Any = module
    if hasattr(layer, "reset_parameters"):
        layer.reset_parameters()
    elif hasattr(layer, "_reset_parameters"):  # torch.nn.MultiheadAttention
        layer._reset_parameters()
    elif not hasattr(layer, "init_weights") and (own := _own_tensors(module)):
        raise TypeError(
            f"{type(module).__qualname__} must have reset_parameters(), which gives "
            f"{', '.join(own)} a first value"
        )


def start_(weight: Tensor, start: Start, *, std: float = 0.01, slope: float = 0.0) -> None:
    r"""Draws the first weights of a linear layer or a convolution.

    - ``he``: normal with variance :math:`2 / ((1 + a^2)\,\mathrm{fan\_in})`, where :math:`a` is the
      slope below zero (He et al. 2015, https://arxiv.org/abs/1502.01852, equations 10 and 15)
    - ``glorot``: uniform with variance :math:`2 / (\mathrm{fan\_in} + \mathrm{fan\_out})` (Glorot
      and Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html, equation 16)
    - ``lecun``: normal with variance :math:`1 / \mathrm{fan\_in}` (LeCun et al. 1998,
      https://doi.org/10.1007/3-540-49430-8_2, section 4.6)
    - ``orthogonal``: orthonormal rows or columns, whichever are fewer (Saxe et al. 2014,
      https://arxiv.org/abs/1312.6120)
    - ``normal``, ``uniform``: of mean zero and the given standard deviation
    - ``zeros``: by which the units of a hidden layer stay equal to one another for ever

    Args:
        weight: of at least two dimensions, outputs first; filled in place.
        start: one of these.
        std: of ``normal`` and ``uniform``.
        slope: of ``he``.
    """
    if start == "he":
        nn.init.kaiming_normal_(weight, a=slope, nonlinearity="leaky_relu")
    elif start == "glorot":
        nn.init.xavier_uniform_(weight)
    elif start == "lecun":
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
    elif start == "orthogonal":
        nn.init.orthogonal_(weight)
    elif start == "normal":
        nn.init.normal_(weight, std=std)
    elif start == "uniform":
        nn.init.uniform_(weight, -(3**0.5) * std, 3**0.5 * std)
    else:
        nn.init.zeros_(weight)


def check_start(start: str | None, std: float) -> None:
    """Refuses names that `start_` does not know, and standard deviations below zero.

    Raises:
        ValueError: naming the argument `init` or `init_std`, and its value.
    """
    if start is not None and start not in get_args(Start):
        raise ValueError(f"init must be one of {', '.join(get_args(Start))}, not {start!r}")
    if not std >= 0:
        raise ValueError(f"init_std must be at least 0, not {std}")


def _own_tensors(module: nn.Module) -> list[str]:
    return [
        name
        for tensors in (module.named_parameters, module.named_buffers)
        for name, _ in tensors(recurse=False)
    ]
