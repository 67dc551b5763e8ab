r"""A velocity field for points, as flow matching learns them on toy data in the plane.

Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel and M. Le, "Flow matching for generative modeling",
2023, https://arxiv.org/abs/2210.02747

A point that follows the field from time 0 to time 1 goes from noise to data; the objective is the
task's, `zoo/tasks/generative/flow_matching.py`. The field of images is a
:class:`~zoo.models.generative.denoising_unet.DenoisingUNet`, whose ``time_scale`` is 1000 then.

Differences from the paper: SiLU where it does not name the activation; classes, with one more that
stands for none, are ours.

| class | parameters (2 features) |
|---|---|
| `VelocityMLP` | 133,122 |
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.initialization import deferred_init, reset


class VelocityMLP(nn.Module):
    """Fully connected layers on a point, the time and, if there are classes, one of them.

    Args:
        in_features: coordinates of a point.
        hidden_sizes: width of each hidden layer.
        num_classes: classes that a point may be asked of; ``None``: the network is told no class.

    Attributes:
        sample_shape: ``(in_features,)``.

    Shape:
        - x: ``(batch, in_features)``
        - times: ``(batch,)``, between 0 and 1
        - labels: int64 ``(batch,)``, where ``num_classes`` stands for no class; ``None``: no class
          for the whole batch
        - output: ``(batch, in_features)``

    Raises:
        ValueError: if an argument is outside its range, or the input not such points.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int = 2,
        *,
        hidden_sizes: tuple[int, ...] = (256, 256, 256),
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            hidden_sizes=hidden_sizes,
            num_classes=1 if num_classes is None else num_classes,
        )
        self.sample_shape = (in_features,)
        self.num_classes = num_classes
        told = 1 if num_classes is None else num_classes + 2  # the time and one of the classes
        hidden = [nn.Linear(*sizes) for sizes in pairwise([in_features + told, *hidden_sizes])]
        self.layers = nn.Sequential(*(part for layer in hidden for part in (layer, nn.SiLU())))
        self.output = nn.Linear([in_features + told, *hidden_sizes][-1], in_features)

    def init_weights(self) -> None:
        reset(self)  # PyTorch's default

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        check_shape(x, *self.sample_shape)
        parts = [x, times.to(x.dtype).unsqueeze(1)]
        if self.num_classes is not None:
            if labels is None:
                labels = torch.full((len(x),), self.num_classes, device=x.device)
            parts.append(nn.functional.one_hot(labels, self.num_classes + 1).to(x.dtype))
        elif labels is not None:
            raise ValueError("labels are for a network with num_classes, and this one has none")
        return self.output(self.layers(torch.cat(parts, dim=1)))  # (batch, in_features)
