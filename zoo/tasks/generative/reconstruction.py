"""Reconstruction: an autoencoder gives back its input; with noise, penalties or classes."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images, enlarge, image_grid, input_grid, rescale
from zoo.metrics.sums import IGNORED, Accuracy, Mean
from zoo.tasks.generative.reconstruction_penalties import activity_kl, contraction, l1
from zoo.tasks.prediction import Table
from zoo.tasks.task import (
    Image,
    Loss,
    Shown,
    Task,
    Vectors,
    evaluation_mode,
    inputs_of,
    require_parts,
)

COLUMNS = 16
"""Images in a row of what is shown."""
MOST_CODES = 1_000  # of an evaluation, for the projector

_CORRUPTIONS = ("none", "masking", "gaussian")
_SPARSITIES = ("none", "l1", "kl")


class Reconstruction(Task):
    r"""The error with which an autoencoder gives back its input, summed over pixels.

    .. math:: L = \frac 1 n \sum_{i=1}^n \Bigl( \ell(x_i, g(f(\tilde x_i)))
        + \lambda \Bigl\lVert \frac{\partial f}{\partial x}(\tilde x_i) \Bigr\rVert_F^2 \Bigr)
        + \beta \, S(f(\tilde x_1), \dots, f(\tilde x_n))

    with codes :math:`f(x)` and reconstructions :math:`g(z)`. The error :math:`\ell` is the squared
    one or the cross-entropy of Bernoulli variables, each summed over the pixels of an image, not
    averaged: penalties that others weigh against an average over D pixels have D times the weight
    here.

    - Denoising (Vincent et al., 2008, https://doi.org/10.1145/1390156.1390294): the network sees
      :math:`\tilde x`, where pixels are masked (set to zero, each with the same probability) or
      have Gaussian noise, and has to give back x. Noise is drawn in training only.
    - Contractive (Rifai et al., 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf): the squared
      norm of the code's Jacobian. For one layer of logistic units it is
      :math:`\sum_j (z_j (1 - z_j))^2 \sum_i W_{ji}^2`, for any other encoder it is found by
      differentiation, one backward pass for each unit of the code.
    - Sparse: S is the mean of :math:`\lVert z \rVert_1` (codes can then shrink while the decoder's
      weights grow, unless weight decay holds these), or
      :math:`\sum_j \mathrm{KL}(\rho \,\|\, \hat\rho_j)` between a target activity and each unit's
      mean activity in the batch (Ng, 2011, "Sparse autoencoder", lecture notes of CS294A; the idea
      is that of Lee, Ekanadham and Ng, 2008). That depends on the batch as a whole, so four
      accumulated batches are not one large one.
    - Joint: the cross-entropy of a classifier of the codes is added with a weight of its own, so
      that the code has to hold what tells the classes apart; images without a label (-100) teach
      the code alone.

    The metrics are the ``squared_error`` of an image and, where it is the loss, its
    ``cross_entropy`` in nats, both of clean inputs, and the classifier's ``accuracy`` if there is
    one. The squared error of a single image tells how
    unlike the training data it is (:meth:`anomaly_scores`): predictions are tables of it, and an
    evaluation shows the images that have the largest.

    A batch is ``(images, labels, ...)``, ``(images,)`` or the images alone.

    Args:
        model: an autoencoder of `zoo/models/generative/autoencoder.py`, or one with its interface.
        loss: the error, ``squared_error`` or ``cross_entropy`` (for logistic output units and
            values from 0 to 1).
        corruption: what is done to the network's input in training: ``none``, ``masking`` or
            ``gaussian``.
        corruption_level: probability of masking a pixel, or the noise's standard deviation.
        sparsity: ``none``, ``l1`` or ``kl``, which is for logistic codes.
        sparsity_weight: :math:`\beta`.
        target_activity: :math:`\rho`.
        contraction_weight: :math:`\lambda`.
        classification_weight: of the cross-entropy of the model's ``classifier``, in nats an image.

    Shape:
        - images: ``(batch, channels, height, width)``
        - labels: ``(batch,)``; used to label codes and by a classifier

    Raises:
        TypeError: if the model lacks a part of the interface.
        ValueError: if an argument is unknown or outside its range, or does not fit the model.
    """

    monitor = "squared_error"
    predicts = Table

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Literal["squared_error", "cross_entropy"] = "squared_error",
        corruption: Literal["none", "masking", "gaussian"] = "none",
        corruption_level: float = 0.3,
        sparsity: Literal["none", "l1", "kl"] = "none",
        sparsity_weight: float = 1.0,
        target_activity: float = 0.05,
        contraction_weight: float = 0.0,
        classification_weight: float = 0.0,
    ) -> None:
        super().__init__(model)
        require_parts(model, "encode", "decode", "code", "output")
        _check_choice("loss", loss, ("squared_error", "cross_entropy"))
        _check_choice("corruption", corruption, _CORRUPTIONS)
        _check_choice("sparsity", sparsity, _SPARSITIES)
        if corruption_level < 0 or (corruption == "masking" and corruption_level >= 1):
            allowed = "in [0, 1)" if corruption == "masking" else "at least 0"
            raise ValueError(f"corruption_level must be {allowed}, not {corruption_level}")
        for name, value in (
            ("sparsity_weight", sparsity_weight),
            ("contraction_weight", contraction_weight),
            ("classification_weight", classification_weight),
        ):
            if value < 0:
                raise ValueError(f"{name} must be at least 0, not {value}")
        if not 0 < target_activity < 1:
            raise ValueError(f"target_activity must be in (0, 1), not {target_activity}")
        code, output = str(model.code), str(model.output)
        if loss == "cross_entropy" and output != "sigmoid":
            raise ValueError(
                f"loss 'cross_entropy' needs logistic output units: set the model's output to "
                f"'sigmoid', not {output!r}"
            )
        if sparsity == "kl" and code != "sigmoid":
            raise ValueError(
                f"sparsity 'kl' needs a code in (0, 1): set the model's code to 'sigmoid', not "
                f"{code!r}"
            )
        if classification_weight and not hasattr(model, "classifier"):
            raise ValueError(
                f"classification_weight={classification_weight} needs a classifier of the codes: "
                "set model.num_classes"
            )
        self.is_unit = output == "sigmoid"
        self.is_bernoulli = loss == "cross_entropy"
        self.corruption, self.corruption_level = corruption, corruption_level
        self.sparsity, self.sparsity_weight = sparsity, sparsity_weight
        self.target_activity = target_activity
        self.contraction_weight = contraction_weight
        self.classification_weight = classification_weight
        self.metrics = {"squared_error": Mean(higher_is_better=False)}
        if self.is_bernoulli:
            self.metrics["cross_entropy"] = Mean(higher_is_better=False)
        if classification_weight:
            self.metrics["accuracy"] = Accuracy()
        self._codes: list[tuple[Tensor, Tensor | None]] = []  # with labels, if there are any
        self._num_codes = 0
        self._worst: tuple[Tensor, Tensor, Tensor] | None = None  # scores, inputs, reconstructions
        self._first: Tensor | None = None  # inputs of the evaluation

    @classmethod
    def without_effect(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        idle = {}
        if arguments["corruption"] == "none":
            idle["corruption_level"] = "corruption is none"
        if arguments["sparsity"] == "none":
            idle["sparsity_weight"] = "sparsity is none"
        if arguments["sparsity"] != "kl":
            idle["target_activity"] = "sparsity is not kl"
        return idle

    def prepare(self, batches: Iterable[Any]) -> None:
        """Looks at the first batch: logistic units give values from 0 to 1 and no others."""
        if self.is_unit:
            images = inputs_of(next(iter(batches)))
            low, high = images.min().item(), images.max().item()
            if low < 0 or high > 1:
                raise ValueError(
                    f"logistic output units give values from 0 to 1, and the data's are from "
                    f"{low:.3g} to {high:.3g}: set data.scaling=unit, or the model's output to "
                    f"'linear'"
                )

    def loss(self, batch: Any) -> Loss:
        images = inputs_of(batch)
        seen = self.corrupt(images)
        codes, outputs, reconstructions = self._parts(seen)
        error = self._errors(images, outputs, reconstructions).mean()
        penalties: dict[str, Tensor] = {}
        if self.contraction_weight:
            penalty = contraction(self.model, seen, codes).mean()
            penalties["contraction"] = self.contraction_weight * penalty
        if self.sparsity != "none":
            penalty = (
                l1(codes) if self.sparsity == "l1" else activity_kl(codes, self.target_activity)
            )
            penalties["sparsity"] = self.sparsity_weight * penalty
        if self.classification_weight:
            nats = self._classification(codes, labels_of(batch))
            penalties["classification"] = self.classification_weight * nats
        if not penalties:
            return error, len(images)
        terms = {"reconstruction": error} | penalties
        total = sum(penalties.values(), start=error)
        return total, len(images), {name: term.detach() for name, term in terms.items()}

    def corrupt(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the network sees of images in training.

        Args:
            images: clean ones.
            generator: of random numbers, on the images' device; torch's own if None.

        Shape:
            - output: as the images
        """
        if self.corruption == "none":
            return images
        random = torch.empty_like(images)
        if self.corruption == "masking":
            return images * (random.uniform_(generator=generator) >= self.corruption_level)
        return images + self.corruption_level * random.normal_(generator=generator)

    def evaluate(self, batch: Any) -> None:
        images = inputs_of(batch)
        codes, outputs, reconstructions = self._parts(images)
        scores = squared_errors(images, reconstructions)  # (batch,)
        self.metrics["squared_error"].update(scores.mean(), len(images))
        if self.is_bernoulli:
            error = self._errors(images, outputs, reconstructions).mean()
            self.metrics["cross_entropy"].update(error, len(images))
        if self.classification_weight:
            self.metrics["accuracy"].update(self._logits(codes), labels_of(batch))
        self._remember(batch, images, codes, reconstructions, scores)

    def reset(self) -> None:
        super().reset()
        self._codes, self._num_codes = [], 0
        self._worst, self._first = None, None

    def predict(self, batch: Any) -> Table:
        """The squared error of each image, which is its anomaly score."""
        scores = self.anomaly_scores(inputs_of(batch)).tolist()
        return Table([{"squared_error": score} for score in scores])

    def anomaly_scores(self, inputs: Tensor) -> Tensor:
        """How unlike the training data images are, by their squared error: ``(batch,)``."""
        return squared_errors(inputs, self.reconstruct(inputs))

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """What the network gives back for images, without corruption: as the images."""
        with evaluation_mode(self.model):
            reconstructions: Tensor = self.model(inputs)
        return reconstructions

    def latents(self, inputs: Tensor) -> Tensor:
        """The codes of images: ``(batch, latent_dim)``."""
        model: Any = self.model
        with evaluation_mode(self.model):
            codes: Tensor = model.encode(inputs)
        return codes

    def decode(self, latents: Tensor) -> Tensor:
        """The images that codes stand for: ``(batch, channels, height, width)``."""
        model: Any = self.model
        with evaluation_mode(self.model):
            images: Tensor = model.decode(latents)
        return images

    def show_inputs(self, batch: Any) -> dict[str, Image]:
        inputs = inputs_of(batch)
        return {"inputs": Image(input_grid(inputs))} if are_images(inputs) else {}

    def show(self) -> dict[str, Shown]:
        """What an evaluation has left to look at.

        ``reconstructions``, inputs above what is made of them; ``denoised``, the same of corrupted
        inputs; ``anomalies``, the inputs with the largest errors; ``codes``, for the projector.
        """
        if self._first is None or self._worst is None:
            return {}
        shown: dict[str, Shown] = {}
        if are_images(self._first):
            images = self._first
            shown["reconstructions"] = _pairs(images, self.reconstruct(images))
            if self.corruption != "none":
                # Of the same random numbers after every evaluation, and nobody else's.
                noise = torch.Generator().manual_seed(0)
                seen = self.corrupt(images.cpu(), noise).to(images.device)
                shown["denoised"] = _pairs(seen, self.reconstruct(seen))
            shown["anomalies"] = _pairs(*self._worst[1:])
        codes = torch.cat([codes for codes, _ in self._codes]).flatten(1)
        labels = [label for _, label in self._codes if label is not None]
        known = len(labels) == len(self._codes)
        names = torch.cat(labels).tolist() if known else range(len(codes))
        return shown | {"codes": Vectors(codes.float(), [str(name) for name in names])}

    def _parts(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, outputs, reconstructions = self.model(images, return_parts=True)
        if reconstructions.shape != images.shape:
            raise ValueError(
                f"the model must return reconstructions of the inputs' shape "
                f"{tuple(images.shape)}, not {tuple(reconstructions.shape)}"
            )
        return codes, outputs, reconstructions

    def _errors(self, images: Tensor, outputs: Tensor, reconstructions: Tensor) -> Tensor:
        """The error of each image: ``(batch,)``."""
        if not self.is_bernoulli:
            return squared_errors(images, reconstructions)
        nats = F.binary_cross_entropy_with_logits(outputs, images, reduction="none")
        return nats.flatten(1).sum(1)

    def _logits(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.model.get_submodule("classifier")(codes.flatten(1))
        return logits

    def _classification(self, codes: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of images that have a label, summed, over the number of all."""
        total = F.cross_entropy(self._logits(codes), labels, ignore_index=IGNORED, reduction="sum")
        return total / len(labels)

    def _remember(
        self, batch: Any, images: Tensor, codes: Tensor, reconstructions: Tensor, scores: Tensor
    ) -> None:
        """Keeps what is shown of an evaluation, on the device."""
        if self._first is None:
            self._first = images[:COLUMNS].clone()
        if (left := MOST_CODES - self._num_codes) > 0:
            labels = None if isinstance(batch, Tensor) or len(batch) < 2 else batch[1]
            is_labelled = isinstance(labels, Tensor) and labels.shape == (len(images),)
            kept = labels[:left].clone() if is_labelled and labels is not None else None
            self._codes.append((codes[:left].clone(), kept))
            self._num_codes += len(codes[:left])
        if self._worst is not None:
            scores = torch.cat([self._worst[0], scores])
            images = torch.cat([self._worst[1], images])
            reconstructions = torch.cat([self._worst[2], reconstructions])
        scores, worst = scores.topk(min(COLUMNS, len(scores)))
        self._worst = scores, images[worst], reconstructions[worst]


def squared_errors(images: Tensor, reconstructions: Tensor) -> Tensor:
    """The squared error of each image, summed over its pixels: ``(batch,)``."""
    return (reconstructions - images).square().flatten(1).sum(1)


def labels_of(batch: Any) -> Tensor:
    """The labels of a batch ``(images, labels, ...)``.

    Raises:
        ValueError: it has none.
    """
    if isinstance(batch, Tensor) or len(batch) < 2:
        raise ValueError(
            "classification_weight needs batches of images and labels: use labelled data"
        )
    labels: Tensor = batch[1]
    return labels


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        *rest, last = map(repr, allowed)
        raise ValueError(f"{name} must be {', '.join(rest)} or {last}, not {value!r}")


def _pairs(above: Tensor, below: Tensor) -> Image:
    """Images over what belongs to them, on one scale of grey."""
    both = enlarge(rescale(torch.cat([above, below.to(above)])))
    return Image(image_grid(both, columns=len(above)))
