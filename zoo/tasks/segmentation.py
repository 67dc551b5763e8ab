"""Segmentation: one class a pixel."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from zoo.figures.grids import are_images
from zoo.figures.masks import Sample, comparison, input_grid
from zoo.inference.tiling import TTA, OverlapTile, average_symmetries, center
from zoo.metrics.first_samples import FirstSamples
from zoo.metrics.segmentation import SegmentationScores
from zoo.metrics.sums import Mean
from zoo.tasks.prediction import Masks, Table
from zoo.tasks.segmentation_losses import Loss, SegmentationLoss
from zoo.tasks.task import Image, Shown, Task, inputs_of


class Segmentation(Task):
    """Learns the class of each pixel, and judges whole images.

    A batch is ``(images, masks)`` or ``(images, masks, weights)``, with the weight of each pixel in
    cross-entropy and focal loss (the map of Ronneberger et al., 2015, equation 2, say).

    In training, a model with unpadded convolutions is judged on the centre of the mask, which its
    smaller output covers. In evaluation and prediction every pixel gets a class, by the
    overlap-tile strategy (:class:`~zoo.inference.tiling.OverlapTile`): at the border the image is
    mirrored. A model that takes some sizes only has a method ``input_size_for(output_size)``.

    The metrics are ``loss``, ``mean_iou``, ``dice``, ``pixel_accuracy`` and ``pixel_error``
    (:class:`~zoo.metrics.segmentation.SegmentationScores`); after an evaluation there is an
    image of a few samples, and a table with the IoU of each class.

    Args:
        model: images to logits ``(batch, num_classes, *, *)``.
        num_classes: number of classes, background included.
        loss: ``cross_entropy``, ``dice``, ``focal``, or the weighted sum ``cross_entropy_dice``
            (:class:`~zoo.tasks.segmentation_losses.SegmentationLoss`).
        dice_weight: factor of Dice in the sum.
        focal_gamma: exponent of the focal loss.
        class_weights: weight of each class's pixels in cross-entropy and focal; None for equal.
        ignore_index: the number in a mask that marks pixels without a class.
        tile_size: height and width of the tiles that the model is given; None for whole images.
        tile_overlap: the least share of a tile that its neighbour sees too.
        tta: averages predictions over mirror images: ``flips`` (4) or ``dihedral`` (8).
        class_names: for images and tables; the class numbers if None.

    Shape:
        - images: ``(batch, channels, height, width)``
        - masks: int64 ``(batch, height, width)``
        - weights: ``(batch, height, width)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    monitor = "mean_iou"
    mode: Literal["min", "max"] = "max"
    predicts = Masks
    unit = "pixels"

    @classmethod
    def without_effect(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        idle = {}
        if arguments["loss"] != "cross_entropy_dice":
            idle["dice_weight"] = f"task.loss={arguments['loss']} is no sum with Dice"
        if arguments["loss"] != "focal":
            idle["focal_gamma"] = f"task.loss={arguments['loss']} is not focal"
        if arguments["tile_size"] is None:
            idle["tile_overlap"] = "whole images are given to the model without task.tile_size"
        return idle

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        loss: Loss = "cross_entropy",
        dice_weight: float = 1.0,
        focal_gamma: float = 2.0,
        class_weights: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        tile_size: int | None = None,
        tile_overlap: float = 0.25,
        tta: TTA = "none",
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(model)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if 0 <= ignore_index < num_classes:
            raise ValueError(
                f"ignore_index must not be one of the {num_classes} classes, but is {ignore_index}"
            )
        if not 0 <= tile_overlap < 1:
            raise ValueError(f"tile_overlap must be in [0, 1), not {tile_overlap}")
        if tta not in get_args(TTA):
            raise ValueError(f"tta must be one of {', '.join(get_args(TTA))}, not {tta!r}")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"class_names must name {num_classes} classes (num_classes), not {len(class_names)}"
            )
        self.num_classes = num_classes
        self.class_names = class_names
        self.criterion = SegmentationLoss(
            loss,
            num_classes=num_classes,
            dice_weight=dice_weight,
            focal_gamma=focal_gamma,
            class_weights=class_weights,
            ignore_index=ignore_index,
        )
        self.tta: TTA = tta
        self.overlap_tile = OverlapTile(
            tile_size,
            overlap=tile_overlap,
            input_size_for=getattr(model, "input_size_for", None),
        )
        self.scores = SegmentationScores(num_classes, ignore_index=ignore_index)
        self.samples = FirstSamples()
        self.metrics = {
            "loss": Mean(higher_is_better=False),
            "scores": self.scores,
            "samples": self.samples,
        }

    def loss(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        images, *labels = _checked(batch)
        logits = self._logits(images)
        if logits.size(2) > images.size(2) or logits.size(3) > images.size(3):
            raise ValueError(
                f"the model must not return more pixels than it is given, but makes "
                f"{tuple(logits.shape[2:])} of {tuple(images.shape[2:])}"
            )
        labels = [center(label, logits.shape[2:]) for label in labels]
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return self.criterion(logits.log_softmax(1, dtype=dtype), *labels)

    def evaluate(self, batch: Sequence[Tensor]) -> None:
        images, *labels = _checked(batch)
        probabilities = self._probabilities(images)
        tiny = torch.finfo(probabilities.dtype).tiny
        self.metrics["loss"].update(*self.criterion(probabilities.clamp_min(tiny).log(), *labels))
        predicted = probabilities.argmax(1)  # (batch, height, width)
        self.scores.update(predicted, labels[0])
        if are_images(images):
            self.samples.update(images, labels[0], predicted)

    def predict(self, batch: Any) -> Masks:
        """The most probable class of each pixel: int64 ``(batch, height, width)``."""
        return Masks(self._probabilities(inputs_of(batch)).argmax(1))

    def show_inputs(self, batch: Any) -> dict[str, Image]:
        images, masks, *_ = batch
        return {"inputs": Image(input_grid(images, masks))} if are_images(images) else {}

    def show(self) -> dict[str, Shown]:
        """A few samples, and a table of the classes.

        Returns:
            ``samples``: input, target, prediction and overlay, if the inputs are images; and
            ``classes``: IoU and pixels of each class that is there or predicted.
        """
        samples = [Sample(*parts) for parts in self.samples.compute()]
        shown: dict[str, Shown] = {}
        if samples:
            shown["samples"] = Image(partial(comparison, samples, self.class_names))
        if rows := self._report():
            shown["classes"] = Table(rows)
        return shown

    def _report(self) -> list[dict[str, str | float]]:
        pixels = self.scores.sums["matrix"].sum(1).tolist()
        rows: list[dict[str, str | float]] = []
        for index, iou in enumerate(self.scores.iou().tolist()):
            if not math.isnan(iou):
                name = str(index) if self.class_names is None else self.class_names[index]
                rows.append({"class": name, "iou": iou, "pixels": pixels[index]})
        return rows

    def _logits(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        if logits.ndim != 4 or logits.size(1) != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, so the model must return logits of shape "
                f"(batch, {self.num_classes}, height, width), not {tuple(logits.shape)}"
            )
        return logits

    def _probabilities(self, images: Tensor) -> Tensor:
        """Probabilities of every pixel's classes: ``(batch, classes, height, width)``."""

        def network(x: Tensor) -> Tensor:
            logits = self._logits(x)
            return logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))

        return average_symmetries(lambda x: self.overlap_tile(network, x), images, self.tta)


def _checked(batch: Sequence[Tensor]) -> Sequence[Tensor]:
    """The batch, whose masks and weights must fit its images."""
    images, masks, *weights = batch
    expected = (images.size(0), *images.shape[2:])
    for name, label in zip(("masks", "weights"), (masks, *weights), strict=False):
        if tuple(label.shape) != expected:
            raise ValueError(
                f"{name} must be (batch, height, width), here {expected} as the images, "
                f"not {tuple(label.shape)}"
            )
    return batch
