r"""Conditional generative adversarial network (Mirza and Osindero, 2014).

M. Mirza and S. Osindero, "Conditional generative adversarial nets",
https://arxiv.org/abs/1411.1784

Both networks are told the class: the generator draws an image *of* it, and the discriminator
judges whether an image is a real one of it. The sizes are those of the paper's experiment on MNIST
(section 4.1).

Differences from the paper: the noise is normal, not uniform; images lie in [-1, 1], from a tanh,
where the paper's lie in [0, 1], from a sigmoid; the discriminator returns the logit, the paper's
its sigmoid, which belongs to the loss here; the norm of the maxout units' weights is not bounded;
layers start by PyTorch's default, since the paper does not say how. From there, with Adam, the
generator soon draws one image a class whatever the noise; ``batch_norm=True``, which the paper
does not have, keeps it from that.

| part | layers (28x28 images, 10 classes) | parameters |
|---|---|---|
| generator | 100 - 200 relu and 10 - 1000 relu; 1200 relu - 784 tanh | 2,413,984 |
| discriminator | 784 - 240 maxout of 5 and 10 - 50 maxout of 5; 240 maxout of 4 - 1 | 1,224,351 |
"""

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.maxout import Maxout


class Generator(nn.Module):
    """Noise and a class to images.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        num_classes: length of the vector of the class.
        latent_dim: length of the noise vector.
        latent_size: units that see the noise.
        class_size: units that see the class.
        joint_size: units that see both.
        dropout: probability of silencing a hidden unit during training.
        batch_norm: whether the units that see the noise, alone or with the class, are normalised.

    Shape:
        - latents: noise ``(batch, latent_dim)``
        - classes: vectors with a one ``(batch, num_classes)``
        - output: images in [-1, 1], ``(batch, in_channels, image_size, image_size)``
    """

    @deferred_init
    def __init__(
        self,
        image_size: int,
        in_channels: int,
        *,
        num_classes: int,
        latent_dim: int = 100,
        latent_size: int = 200,
        class_size: int = 1000,
        joint_size: int = 1200,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.image_shape = (in_channels, image_size, image_size)
        self.of_latents = nn.Linear(latent_dim, latent_size)
        self.of_classes = nn.Linear(num_classes, class_size)
        self.joint = nn.Linear(latent_size + class_size, joint_size)
        self.output = nn.Linear(joint_size, in_channels * image_size**2)
        self.latents_norm = nn.BatchNorm1d(latent_size) if batch_norm else nn.Identity()
        self.joint_norm = nn.BatchNorm1d(joint_size) if batch_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, latents: Tensor, classes: Tensor) -> Tensor:
        parts = self.latents_norm(self.of_latents(latents)), self.of_classes(classes)
        hidden = self.dropout(torch.cat(parts, dim=1).relu())  # (batch, latent_size + class_size)
        hidden = self.dropout(self.joint_norm(self.joint(hidden)).relu())  # (batch, joint_size)
        return self.output(hidden).tanh().unflatten(1, self.image_shape)


class Discriminator(nn.Module):
    """Images and the class that they should be of to the logit of their being real.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        num_classes: length of the vector of the class.
        image_units: maxout units of five pieces that see the image.
        class_units: maxout units of five pieces that see the class.
        joint_units: maxout units of four pieces that see both.
        dropout: probability of silencing a hidden unit during training.

    Shape:
        - images: ``(batch, in_channels, image_size, image_size)``
        - classes: vectors with a one ``(batch, num_classes)``
        - output: logits ``(batch,)``
    """

    @deferred_init
    def __init__(
        self,
        image_size: int,
        in_channels: int,
        *,
        num_classes: int,
        image_units: int = 240,
        class_units: int = 50,
        joint_units: int = 240,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.of_images = Maxout(in_channels * image_size**2, image_units, pieces=5)
        self.of_classes = Maxout(num_classes, class_units, pieces=5)
        self.joint = Maxout(image_units + class_units, joint_units, pieces=4)
        self.output = nn.Linear(joint_units, 1)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        parts = self.of_images(images.flatten(1)), self.of_classes(classes)
        hidden = self.joint(self.dropout(torch.cat(parts, dim=1)))  # (batch, joint_units)
        return self.output(self.dropout(hidden)).squeeze(1)  # (batch,)


class ConditionalGAN(nn.Module):
    r"""A generator G and a discriminator D that are told the class y, to be trained in turns.

    .. math:: \min_G \max_D \; \mathbb E_x \log D(x \mid y)
        + \mathbb E_z \log(1 - D(G(z \mid y) \mid y))

    (equation 2). ``forward`` is the generator's; the discriminator is called by its name.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        num_classes: number of classes.
        latent_dim: length of the noise vector z.
        latent_size: units of the generator that see the noise.
        class_size: units of the generator that see the class.
        joint_size: units of the generator that see both.
        image_units: maxout units of the discriminator that see the image.
        class_units: maxout units of the discriminator that see the class.
        joint_units: maxout units of the discriminator that see both.
        dropout: probability of silencing a hidden unit of either network during training.
        batch_norm: whether the generator's units that see the noise, alone or with the class, are
            normalised.

    Shape:
        - latents: noise ``(batch, latent_dim)``
        - classes: vectors with a one ``(batch, num_classes)``
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
        num_classes: int = 10,
        latent_dim: int = 100,
        latent_size: int = 200,
        class_size: int = 1000,
        joint_size: int = 1200,
        image_units: int = 240,
        class_units: int = 50,
        joint_units: int = 240,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_at_least_one(
            image_size=image_size,
            in_channels=in_channels,
            num_classes=num_classes,
            latent_dim=latent_dim,
            latent_size=latent_size,
            class_size=class_size,
            joint_size=joint_size,
            image_units=image_units,
            class_units=class_units,
            joint_units=joint_units,
        )
        check_probability(dropout=dropout)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.generator = Generator(
            image_size,
            in_channels,
            num_classes=num_classes,
            latent_dim=latent_dim,
            latent_size=latent_size,
            class_size=class_size,
            joint_size=joint_size,
            dropout=dropout,
            batch_norm=batch_norm,
        )
        self.discriminator = Discriminator(
            image_size,
            in_channels,
            num_classes=num_classes,
            image_units=image_units,
            class_units=class_units,
            joint_units=joint_units,
            dropout=dropout,
        )

    def init_weights(self) -> None:
        reset(self)

    def forward(self, latents: Tensor, classes: Tensor) -> Tensor:
        return self.generator(latents, classes)  # (batch, in_channels, size, size)
