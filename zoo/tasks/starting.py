"""Where a classifier starts: with the answer that is best as long as it knows nothing else."""

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def start_with_bias(model: nn.Module, bias: Tensor) -> None:
    """Sets the bias of a model's output layer, the last with as many outputs.

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
