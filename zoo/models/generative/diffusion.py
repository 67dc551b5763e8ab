r"""Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020).

https://arxiv.org/abs/2006.11239

Noise is added to an image step by step until nothing else is left, and a network learns to tell
the noise from the image at every step; going back step by step, it makes images of noise. This is
the network in its published sizes, a :class:`~zoo.models.generative.denoising_unet.DenoisingUNet`.
What it learns, and how it is sampled from, is the task's, see
`zoo/tasks/generative/denoising_diffusion.py`.

Differences from the paper's code (https://github.com/hojonathanho/diffusion):

- layers that start at 1e-10 times the usual scale there start at zero;
- a class may be added to the embedded step, and one more class stands for none (Ho and Salimans,
  2022, https://arxiv.org/abs/2207.12598). The paper's network knows no class.

`ddpm_cifar10` is the paper's. `ddpm_mnist` and `ddpm_digits` are ours.

| builder | images | channels | residual blocks a level | attention at | parameters |
|---|---|---|---|---|---|
| `ddpm_cifar10` | 3x32x32 | 128, 256, 256, 256 | 2 | 16x16 | 35,746,307 |
| `ddpm_mnist` | 1x28x28 | 32, 64, 64 | 1 | 14x14 | 1,112,801 |
| `ddpm_digits` | 1x8x8 | 32, 32 | 1 | 4x4 | 284,513 |
"""

from typing import TypedDict, Unpack

from zoo.models.generative.denoising_unet import DenoisingUNet


class UNetOptions(TypedDict, total=False):
    """Keyword arguments of :class:`DenoisingUNet`, without those that a builder sets."""

    num_classes: int | None
    time_scale: float


def ddpm_cifar10(
    image_size: int = 32,
    in_channels: int = 3,
    *,
    channels: tuple[int, ...] = (128, 256, 256, 256),
    layers_per_level: int = 2,
    attention_sizes: tuple[int, ...] = (16,),
    num_groups: int = 32,
    dropout: float = 0.1,
    **options: Unpack[UNetOptions],
) -> DenoisingUNet:
    """The paper's network for 32x32 pixels."""
    return DenoisingUNet(
        image_size,
        in_channels,
        channels=channels,
        layers_per_level=layers_per_level,
        attention_sizes=attention_sizes,
        num_groups=num_groups,
        dropout=dropout,
        **options,
    )


def ddpm_mnist(
    image_size: int = 28,
    in_channels: int = 1,
    *,
    channels: tuple[int, ...] = (32, 64, 64),
    layers_per_level: int = 1,
    attention_sizes: tuple[int, ...] = (14,),
    num_groups: int = 32,
    dropout: float = 0.0,
    **options: Unpack[UNetOptions],
) -> DenoisingUNet:
    """A network of a million parameters for 28x28 pixels."""
    return DenoisingUNet(
        image_size,
        in_channels,
        channels=channels,
        layers_per_level=layers_per_level,
        attention_sizes=attention_sizes,
        num_groups=num_groups,
        dropout=dropout,
        **options,
    )


def ddpm_digits(
    image_size: int = 8,
    in_channels: int = 1,
    *,
    channels: tuple[int, ...] = (32, 32),
    layers_per_level: int = 1,
    attention_sizes: tuple[int, ...] = (4,),
    num_groups: int = 8,
    dropout: float = 0.0,
    **options: Unpack[UNetOptions],
) -> DenoisingUNet:
    """A network for 8x8 pixels."""
    return DenoisingUNet(
        image_size,
        in_channels,
        channels=channels,
        layers_per_level=layers_per_level,
        attention_sizes=attention_sizes,
        num_groups=num_groups,
        dropout=dropout,
        **options,
    )
