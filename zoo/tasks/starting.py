"""Where a network starts, as far as that follows from the training data."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def start_from_data(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Lets a model that has ``init_from_data`` set weights that follow from training inputs.

    Args:
        model: any.
        inputs: of the training batches in their order; it takes as many as it needs.
    """
    if (init := getattr(model, "init_from_data", None)) is not None:
        cast(Callable[[Iterable[Any]], None], init)(inputs)


def start_with_bias(model: nn.Module, bias: Tensor) -> None:
    """Sets the bias of a model's output layer, the last with as many outputs.

    So a classifier starts with the answer that is best as long as it knows nothing else.

    Args:
        model: whose last layer is linear or a convolution.
        bias: ``(outputs,)``.

    Raises:
        ValueError: there is no such layer, or it has no bias.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | _ConvNd)]
    fitting = [m for m in layers if m.bias is not None and m.bias.shape == bias.shape]
    if not fitting:
        raise ValueError(
            f"balanced_start=true: {type(model).__name__} has no linear layer of {len(bias)} "
            "outputs with a bias to start with"
        )
    last = fitting[-1].bias
    assert last is not None
    last.data.copy_(bias)
