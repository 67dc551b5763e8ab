"""The last layer of a classifier, made anew for other classes."""

from torch import nn

from zoo.layers.checks import check_at_least_one


def fresh_linear(old: nn.Module, num_classes: int) -> nn.Linear:
    """A layer in place of another, of other outputs, with PyTorch's first weights."""
    check_at_least_one(num_classes=num_classes)
    assert isinstance(old, nn.Linear)
    weight = old.weight
    return nn.Linear(
        old.in_features,
        num_classes,
        bias=old.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )


def fresh_conv1x1(old: nn.Module, num_classes: int) -> nn.Conv2d:
    """The same of a 1x1 convolution, which scores the classes in each place."""
    check_at_least_one(num_classes=num_classes)
    assert isinstance(old, nn.Conv2d)
    weight = old.weight
    return nn.Conv2d(old.in_channels, num_classes, 1, device=weight.device, dtype=weight.dtype)
