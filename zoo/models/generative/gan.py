r"""Generative adversarial network (Goodfellow et al., 2014).

I. Goodfellow, J. Pouget-Abadie, M. Mirza, B. Xu, D. Warde-Farley, S. Ozair, A. Courville and
Y. Bengio, "Generative adversarial networks", https://arxiv.org/abs/1406.2661

One network draws images from noise, another tells them from real ones, and each is trained
against the other. When the second can do no better than guess, the first draws from the data's
distribution.

Differences from the paper (sizes and initialisation are those of its published MNIST code,
https://github.com/goodfeli/adversarial):

- images lie in [-1, 1], from a tanh, where the paper's lie in [0, 1], from a sigmoid; with
  tanh(a) = 2 sigmoid(2a) - 1 that is a change of scale only;
- the discriminator returns the logit, the paper's its sigmoid, which belongs to the loss here;
- the generator's output biases start at zero, not at the mean image;
- the norm of the maxout units' weights is not bounded.

| part | layers (28x28 images, 1 channel) | parameters |
|---|---|---|
| generator | 100 - 1200 relu - 1200 relu - 784 tanh | 2,503,984 |
| discriminator | 784 - 240 maxout - 240 maxout - 1, five pieces per unit | 1,231,441 |
| both | | 3,735,425 |
"""

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.maxout import Maxout


def _initialise(network: nn.Module, *, limit: float) -> None:
    """Weights start in U(-limit, limit) and biases at zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            reset(layer)
            nn.init.uniform_(layer.weight, -limit, limit)
            nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """Noise to images: hidden layers with ReLU, an output layer with tanh.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        latent_dim: length of the noise vector.
        hidden_sizes: width of each hidden layer.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: images in [-1, 1], ``(batch, in_channels, image_size, image_size)``
    """

    @deferred_init
    def __init__(
        self,
        image_size: int,
        in_channels: int,
        *,
        latent_dim: int = 100,
        hidden_sizes: tuple[int, ...] = (1200, 1200),
    ) -> None:
        super().__init__()
        self.image_shape = (in_channels, image_size, image_size)
        layers: list[nn.Module] = []
        width = latent_dim
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(width, in_channels * image_size**2)

    def init_weights(self) -> None:
        _initialise(self, limit=0.05)

    def forward(self, latents: Tensor) -> Tensor:
        pixels = torch.tanh(self.output(self.layers(latents)))
        return pixels.unflatten(1, self.image_shape)  # (batch, channels, size, size)


class Discriminator(nn.Module):
    """Images to the logit of their being real: maxout layers, dropout before every layer.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        maxout_sizes: number of units of each maxout layer.
        pieces: linear maps of each unit.
        input_dropout: probability of silencing a pixel during training.
        dropout: the same for a hidden unit.

    Shape:
        - input: images ``(batch, in_channels, image_size, image_size)``
        - output: logits ``(batch,)``
    """

    @deferred_init
    def __init__(
        self,
        image_size: int,
        in_channels: int,
        *,
        maxout_sizes: tuple[int, ...] = (240, 240),
        pieces: int = 5,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        width = in_channels * image_size**2
        for size in maxout_sizes:
            layers += [Maxout(width, size, pieces=pieces), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(width, 1)

    def init_weights(self) -> None:
        _initialise(self, limit=0.005)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.layers(images.flatten(1))).squeeze(1)  # (batch,)


class GAN(nn.Module):
    r"""A generator G and a discriminator D, to be trained in turns.

    .. math:: \min_G \max_D \; \mathbb E_x \log D(x) + \mathbb E_z \log(1 - D(G(z)))

    (equation 1). ``forward`` is the generator's; the discriminator is called by its name.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        latent_dim: length of the noise vector z.
        hidden_sizes: width of each hidden layer of the generator.
        maxout_sizes: number of units of each maxout layer of the discriminator.
        pieces: linear maps of each maxout unit.
        input_dropout: probability of silencing a pixel before the discriminator during training.
        dropout: the same for each hidden unit of the discriminator.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: images in [-1, 1], ``(batch, in_channels, image_size, image_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        latent_dim: int = 100,
        hidden_sizes: tuple[int, ...] = (1200, 1200),
        maxout_sizes: tuple[int, ...] = (240, 240),
        pieces: int = 5,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_at_least_one(
            image_size=image_size,
            in_channels=in_channels,
            latent_dim=latent_dim,
            hidden_sizes=hidden_sizes,
            maxout_sizes=maxout_sizes,
            pieces=pieces,
        )
        check_probability(input_dropout=input_dropout, dropout=dropout)
        self.latent_dim = latent_dim
        self.image_size, self.in_channels = image_size, in_channels
        self.generator = Generator(
            image_size, in_channels, latent_dim=latent_dim, hidden_sizes=hidden_sizes
        )
        self.discriminator = Discriminator(
            image_size,
            in_channels,
            maxout_sizes=maxout_sizes,
            pieces=pieces,
            input_dropout=input_dropout,
            dropout=dropout,
        )

    def init_weights(self) -> None:
        reset(self)

    def forward(self, latents: Tensor) -> Tensor:
        return self.generator(latents)  # (batch, channels, size, size)
