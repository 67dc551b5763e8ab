r"""The network of the CIFAR-10 speed runs (Jordan, 2024), in the form that Muon trains.

"94% on CIFAR-10 in 3.29 seconds on a single GPU", https://arxiv.org/abs/2404.00498, and
`airbench94_muon`, https://github.com/KellerJordan/cifar10-airbench.

Everything is made for few steps at large rates. The first layer whitens patches of 2x2 pixels: its
filters are the eigenvectors of the patches' covariance and their negatives, scaled to unit
variance, computed from training images and never trained; only its bias is. Six 3x3 convolutions
without biases follow, which start as identities (Dirac) as far as they have inputs, each with a
batch normalisation of quick statistics whose scale stays 1. The logits are divided by the features'
number, so that a large rate of the last layer does no harm.

Names and shapes are those of the authors' `CifarNet`, but for `whiten.is_fitted`. Differences from
it: what is never trained (filters of the first layer, scales) is a buffer and no frozen parameter;
the last pooling is over what there is, which at 32x32 pixels is its 3x3; weights are kept in
float32, and the precision of the computation is the trainer's; the whitening looks at batches as
training has them (moved and mirrored) and not at the first 5,000 images as they are.

| stage | size (32x32 input) | layers |
|---|---|---|
| whiten | 24 x 31 x 31 | 2x2 convolution, GELU |
| layers.1 | 64 x 15 x 15 | 3x3, pool, norm, GELU, 3x3, norm, GELU |
| layers.2 | 256 x 7 x 7 | the same |
| layers.3 | 256 x 3 x 3 | the same |
| head | num_classes | pool, linear without bias |

| builder | parameters | accuracy of the recipe, its authors' mean of 200 runs |
|---|---|---|
| `airbench94` | 1,971,352 | 94.01 % |
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images
from zoo.layers.classifier import fresh_linear
from zoo.layers.convolution import conv3x3
from zoo.layers.initialization import deferred_init, reset

WHITENED = 5000  # images that the first layer is made from
WIDTHS = 64, 256, 256


class Whitening(nn.Module):
    r"""A 2x2 convolution that makes the values of a patch uncorrelated and of variance 1.

    With :math:`\Sigma = V \Lambda V^\top` the second moments of the patches, the filters are
    :math:`\pm (\Lambda + \epsilon)^{-1/2} V^\top`; only the bias is trained.

    Args:
        in_channels: channels of the image.
        eps: :math:`\epsilon`.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, 8 * in_channels, height - 1, width - 1)``
    """

    weight: Tensor
    is_fitted: Tensor

    def __init__(self, in_channels: int, *, eps: float = 5e-4) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.empty(8 * in_channels, in_channels, 2, 2))
        self.register_buffer("is_fitted", torch.empty((), dtype=torch.bool))
        self.bias = nn.Parameter(torch.empty(8 * in_channels))

    def reset_parameters(self) -> None:
        bound = (4 * self.weight.size(1)) ** -0.5  # as torch's convolutions start
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        self.is_fitted.fill_(False)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Makes the filters from images."""
        patches = F.unfold(images.float(), 2).transpose(0, 1).flatten(1)  # (values, patches)
        moments = patches @ patches.T / patches.size(1)  # (values, values)
        variances, vectors = torch.linalg.eigh(moments, UPLO="U")
        filters = vectors.T / (variances.unsqueeze(1) + self.eps).sqrt()  # (values, values)
        self.weight.copy_(torch.cat([filters, -filters]).view_as(self.weight))
        self.is_fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


def shifting_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with a trained shift alone, whose statistics follow quickly."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    del norm.weight
    norm.register_buffer("weight", torch.empty(channels))
    return norm


class ConvGroup(nn.Module):
    r"""Two 3x3 convolutions, of which the first halves the resolution.

    .. math:: y = \sigma(\mathrm{BN}(W_2 * \sigma(\mathrm{BN}(\mathrm{pool}(W_1 * x)))))

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, height // 2, width // 2)``
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels)
        self.norm1 = shifting_norm(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = shifting_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)  # (batch, out_channels, height // 2, width // 2)
        x = F.gelu(self.norm1(x))
        return F.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """The network: whitening, three groups of two convolutions, and a scaled linear layer.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 9x9
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(self, num_classes: int = 10, *, in_channels: int = 3) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        self.in_channels = in_channels
        self.whiten = Whitening(in_channels)
        widths = 8 * in_channels, *WIDTHS
        groups = [ConvGroup(*pair) for pair in zip(widths, WIDTHS, strict=False)]
        self.layers = nn.Sequential(nn.GELU(), *groups)
        self.head = nn.Linear(WIDTHS[-1], num_classes, bias=False)

    def init_weights(self) -> None:
        reset(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # The first filters hand their inputs on; the others start as torch's do.
                nn.init.dirac_(module.weight.data[: module.in_channels])
        self._init_head()

    def _init_head(self) -> None:
        with torch.no_grad():
            self.head.weight.div_(self.head.weight.std())

    def init_from_data(self, batches: Iterable[Tensor]) -> None:
        """Makes the first layer from images, unless it has been loaded with other weights.

        Args:
            batches: normalised training images; only as many are taken as are needed.
        """
        if self.whiten.is_fitted:
            return
        images: list[Tensor] = []
        for batch in batches:
            images.append(batch)
            if sum(map(len, images)) >= WHITENED:
                break
        self.whiten.fit(torch.cat(images)[:WHITENED])

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.head = fresh_linear(self.head, num_classes)
        self._init_head()

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=9)
        # Sizes in the comments are those of 32x32 images.
        x = self.whiten(x)  # (batch, 24, 31, 31)
        return self.layers(x)  # (batch, 256, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, 256, 3, 3)
        x = F.adaptive_max_pool2d(x, 1).flatten(1)  # (batch, 256)
        return self.head(x) / x.size(1)  # (batch, num_classes)


def airbench94(num_classes: int = 10, *, in_channels: int = 3) -> Airbench:
    """The network of `airbench94_muon`."""
    return Airbench(num_classes, in_channels=in_channels)
