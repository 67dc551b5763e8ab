r"""Packed GAN, PacGAN (Lin, Khetan, Fanti and Oh, 2018): its networks for points in the plane.

Z. Lin, A. Khetan, G. Fanti and S. Oh, "PacGAN: the power of two samples in generative adversarial
networks", https://arxiv.org/abs/1712.04086

A discriminator that judges several samples at once sees what a single one cannot show: that the
generator keeps to a few modes of the data. Only its first layer grows. With ``packing`` 1 it is the
plain GAN that the paper compares with; the networks are those of its section 4.1 and its published
code (https://github.com/fjxmlzn/PacGAN). For images, `DCGAN` and `WGAN` have the same option.

Differences from that code: the discriminator returns the logit; biases stand where it has them.

| part (points in the plane) | packing 1 | packing 4 |
|---|---|---|
| generator, four layers of 400 | 484,802 | 484,802 |
| discriminator, three maxout layers of 200, five pieces | 405,201 | 411,201 |
"""

from itertools import pairwise

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.maxout import Maxout

STD = 0.02
"""Of all first weights."""


def _initialise(network: nn.Module) -> None:
    reset(network)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """Noise to points: layers with batch normalisation and ReLU, a linear one at the end.

    Args:
        out_features: numbers of a point.
        latent_dim: length of the noise vector.
        hidden_sizes: width of each hidden layer.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: points ``(batch, out_features)``
    """

    @deferred_init
    def __init__(
        self,
        out_features: int = 2,
        *,
        latent_dim: int = 2,
        hidden_sizes: tuple[int, ...] = (400, 400, 400, 400),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in pairwise((latent_dim, *hidden_sizes)):
            layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear((latent_dim, *hidden_sizes)[-1], out_features)

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, latents: Tensor) -> Tensor:
        return self.output(self.layers(latents))  # (batch, out_features)


class Discriminator(nn.Module):
    """Packs of points to the logit of their being real: maxout layers.

    Args:
        in_features: numbers of a pack.
        maxout_sizes: number of units of each maxout layer.
        pieces: linear maps of each unit.

    Shape:
        - input: packs ``(batch, in_features)``
        - output: logits ``(batch,)``
    """

    @deferred_init
    def __init__(
        self,
        in_features: int = 2,
        *,
        maxout_sizes: tuple[int, ...] = (200, 200, 200),
        pieces: int = 5,
    ) -> None:
        super().__init__()
        sizes = (in_features, *maxout_sizes)
        self.layers = nn.Sequential(*(Maxout(*pair, pieces=pieces) for pair in pairwise(sizes)))
        self.output = nn.Linear(sizes[-1], 1)

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, packs: Tensor) -> Tensor:
        return self.output(self.layers(packs)).squeeze(1)  # (batch,)


class PacGAN(nn.Module):
    """A generator and a discriminator of several points at once, to be trained in turns.

    ``forward`` is the generator's; the discriminator is called by its name, with packs of points.

    Args:
        in_features: numbers of a point.
        latent_dim: length of the noise vector.
        packing: points that the discriminator judges at once; 1 for a plain GAN.
        hidden_sizes: width of each hidden layer of the generator.
        maxout_sizes: number of units of each maxout layer of the discriminator.
        pieces: linear maps of each maxout unit.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: points ``(batch, in_features)``

    Raises:
        ValueError: if an argument is smaller than 1.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int = 2,
        *,
        latent_dim: int = 2,
        packing: int = 1,
        hidden_sizes: tuple[int, ...] = (400, 400, 400, 400),
        maxout_sizes: tuple[int, ...] = (200, 200, 200),
        pieces: int = 5,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            latent_dim=latent_dim,
            packing=packing,
            hidden_sizes=hidden_sizes,
            maxout_sizes=maxout_sizes,
            pieces=pieces,
        )
        self.latent_dim, self.packing = latent_dim, packing
        self.generator = Generator(in_features, latent_dim=latent_dim, hidden_sizes=hidden_sizes)
        self.discriminator = Discriminator(
            in_features * packing, maxout_sizes=maxout_sizes, pieces=pieces
        )

    def init_weights(self) -> None:
        reset(self)

    def forward(self, latents: Tensor) -> Tensor:
        return self.generator(latents)  # (batch, in_features)
