"""Vector-quantised autoencoding: images through a codebook and back.

van den Oord, Vinyals and Kavukcuoglu, 2017, https://arxiv.org/abs/1711.00937
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images, enlarge, image_grid, rescale
from zoo.metrics.sums import Mean, SumMetric, zero
from zoo.tasks.prediction import Samples
from zoo.tasks.task import Image, Loss, Shown, Task, inputs_of, require_parts

SHOWN = 8
_PARTS = ("encode", "decode", "quantizer", "num_codes")


class Perplexity(SumMetric):
    r"""How many codes are in use: the exponential of the entropy of their shares.

    .. math:: \exp\left(-\sum_k p_k \log p_k\right)

    From 1 (one code alone) to the size of the codebook (all equally often).

    Args:
        num_codes: size of the codebook.

    Shape:
        - indices: code numbers of any shape
    """

    higher_is_better = True

    def __init__(self, num_codes: int) -> None:
        super().__init__(counts=torch.zeros(num_codes, dtype=torch.float64))

    def update(self, indices: Tensor) -> None:
        self.add(counts=counts_of(indices, len(self.sums["counts"])))

    def compute(self) -> Tensor:
        return perplexity(self.sums["counts"])


def counts_of(indices: Tensor, num_codes: int) -> Tensor:
    """How often each code occurs, ``(num_codes,)``; does not wait for the device."""
    flat = indices.flatten()
    counts = torch.zeros(num_codes, device=flat.device)
    return counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=counts.dtype))


def perplexity(counts: Tensor) -> Tensor:
    """The exponential of the entropy of counts."""
    return torch.special.entr(counts / counts.sum()).sum().exp()


class VectorQuantization(Task):
    r"""The three terms of equation 3.

    .. math:: L = \frac{\lVert x - \hat x \rVert^2}{\sigma_x^2}
        + \lVert \mathrm{sg}[z_e(x)] - e \rVert^2 + \beta \lVert z_e(x) - \mathrm{sg}[e] \rVert^2

    Each is a mean over elements, and the first is in units of the training pixels' variance, as in
    the authors' code, so that it is 1 where every image is guessed to be the mean. The second is
    there where the codebook learns by it, and not where it is a moving average. Terms of the
    training curve are ``reconstruction``, ``commitment`` and ``perplexity``, the number of codes in
    use.

    The metrics are ``reconstruction_error``, the squared error of an image summed over its pixels,
    and ``perplexity``. There are no samples, since the prior of the codes is not learned here.

    A batch is ``(images, ...)`` or the images alone.

    Args:
        model: returns output, encoded and quantised vectors and indices; see ``VQVAE`` in
            ``zoo/models/generative/vq_vae.py``.
        beta: weight of the commitment, the last term.

    Shape:
        - images: ``(batch, channels, height, width)``
    """

    monitor = "reconstruction_error"
    predicts = Samples

    def __init__(self, model: nn.Module, *, beta: float = 0.25) -> None:
        super().__init__(model)
        require_parts(model, *_PARTS)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta must be at least 0, not {beta}")
        self.beta, self.variance = beta, 1.0
        self._shown: Tensor | None = None
        self.metrics = {
            "reconstruction_error": Mean(higher_is_better=False),
            "perplexity": Perplexity(self.network.num_codes),
        }

    @property
    def network(self) -> Any:
        """The model, with its own methods."""
        return self.model

    def prepare(self, batches: Iterable[Any]) -> None:
        """Measures the variance of the training pixels."""
        count, total, squares = zero(), zero(), zero()
        for batch in batches:
            pixels = inputs_of(batch).cpu().double()
            count += pixels.numel()
            total += pixels.sum()
            squares += pixels.square().sum()
        variance = float(squares / count - (total / count).square())
        self.variance = variance if variance > 0 else 1.0

    def loss(self, batch: Any) -> Loss:
        images = inputs_of(batch)
        found = self.model(images)
        reconstruction = F.mse_loss(found.output, images.to(found.output)) / self.variance
        commitment = F.mse_loss(found.encoded, found.quantized.detach())
        loss = reconstruction + self.beta * commitment
        if not self.network.quantizer.is_averaged:
            loss = loss + F.mse_loss(found.quantized, found.encoded.detach())
        in_use = perplexity(counts_of(found.indices, self.network.num_codes))
        terms = {"reconstruction": reconstruction, "commitment": commitment, "perplexity": in_use}
        return loss, len(images), {name: term.detach() for name, term in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"variance": self.variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.variance = float(state["variance"])

    def reset(self) -> None:
        super().reset()
        self._shown = None

    def evaluate(self, batch: Any) -> None:
        images = inputs_of(batch)
        found = self.model(images)
        errors = (found.output - images).square().flatten(1).sum(1)  # (batch,)
        self.metrics["reconstruction_error"].update(errors.mean(), len(images))
        self.metrics["perplexity"].update(found.indices)
        if self._shown is None:
            self._shown = images[:SHOWN]

    def latents(self, inputs: Tensor) -> Tensor:
        """The numbers of the codes, ``(batch, height / 4, width / 4)``."""
        encoded = self.network.encode(inputs)
        indices: Tensor = self.network.quantizer(encoded)[1]
        return indices

    def decode(self, latents: Tensor) -> Tensor:
        """The images of code numbers."""
        images: Tensor = self.network.decode(latents)
        return images

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """Images through the codebook and back."""
        return self.decode(self.latents(inputs))

    def predict(self, batch: Any) -> Samples:
        """Reconstructions."""
        return Samples(self.reconstruct(inputs_of(batch)))

    def show(self) -> dict[str, Shown]:
        """``reconstructions`` below their inputs, if they are images."""
        if self._shown is None or not are_images(self._shown):
            return {}
        made = self.reconstruct(self._shown).to(self._shown)
        pairs = rescale(torch.cat([self._shown, made]))
        return {"reconstructions": Image(image_grid(enlarge(pairs), columns=len(made)))}
