"""Images made worse, in five degrees, to see how a classifier bears it.

D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", 2019, https://arxiv.org/abs/1903.12261

| corruption | of pixel values between 0 and 1 | severity 1 to 5 |
|---|---|---|
| ``noise`` | normal noise of this standard deviation is added | .08, .12, .18, .26, .38 |
| ``blur`` | blurred by a normal curve of this deviation | .4, .6, .7, .8, 1 in 32 pixels |
| ``contrast`` | deviations from the image's mean times | .4, .3, .2, .1, .05 |
| ``jpeg`` | stored with this quality | 25, 18, 15, 10, 7 |

These are four of the paper's corruptions with the values of its code for ImageNet-C; but for the
blur, which is that for CIFAR-10-C in proportion to the image's side. The results are not rounded to
256 levels, and none is comparable with a table of the paper.
"""

import io
import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Corruption = Literal["noise", "blur", "contrast", "jpeg"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
SEVEREST = 5
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
_JPEG = (25, 18, 15, 10, 7)


def corrupt(images: Tensor, kind: Corruption, severity: int) -> Tensor:
    """Images of one kind and degree of corruption; of degree 0 they stay as they are.

    ``noise`` draws from torch's own random state.

    Args:
        images: values between 0 and 1.
        kind: of the table above.
        severity: 0 to 5.

    Shape:
        - images, output: ``(batch, 1 or 3, height, width)``

    Raises:
        ValueError: there is no such corruption or degree.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"corrupt must be one of {', '.join(CORRUPTIONS)}, not {kind}")
    if not 0 <= severity <= SEVEREST:
        raise ValueError(f"severity must be from 0 to {SEVEREST}, not {severity}")
    if not severity:
        return images
    degree = severity - 1
    if kind == "noise":
        images = images + _NOISE[degree] * torch.randn_like(images)
    elif kind == "blur":
        images = _blurred(images, _BLUR[degree] * min(images.shape[2:]) / 32)
    elif kind == "contrast":
        mean = images.mean((2, 3), keepdim=True)  # (batch, channels, 1, 1)
        images = mean + _CONTRAST[degree] * (images - mean)
    else:
        images = torch.stack([_as_jpeg(image, _JPEG[degree]) for image in images]).to(images)
    return images.clamp(0, 1)


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Convolved with a normal curve, cut off at four deviations; edges are repeated outwards."""
    reach = max(1, math.ceil(4 * deviation))
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    curve = (-0.5 * (places / deviation).square()).exp()
    curve = (curve / curve.sum()).expand(images.size(1), 1, 1, -1)  # (channels, 1, 1, places)
    x = F.pad(images, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, curve, groups=images.size(1))
    return F.conv2d(x, curve.transpose(2, 3), groups=images.size(1))


def _as_jpeg(image: Tensor, quality: int) -> Tensor:
    """An image ``(channels, height, width)`` that was stored as a file and read again."""
    import numpy as np
    from PIL import Image

    levels = image.mul(255).round().to("cpu", torch.uint8)
    rows = levels[0] if len(levels) == 1 else levels.permute(1, 2, 0)  # (height, width, channels)
    file = io.BytesIO()
    Image.fromarray(rows.numpy()).save(file, format="JPEG", quality=quality)
    with Image.open(file) as read:
        stored = torch.from_numpy(np.array(read))
    stored = stored[None] if stored.ndim == 2 else stored.permute(2, 0, 1)
    return stored.float() / 255  # (channels, height, width)
