"""Handwritten digits as a graph of nearest neighbours: most of them without a label."""

from typing import Any

import torch
from torch import Tensor

from zoo.data.graphs.batches import split_loaders, undirected
from zoo.data.module import DataModule, Part
from zoo.data.sampling import seeded_generator
from zoo.data.splits import split_indices

SIZE = 1_797
SMALLEST_CLASS = 174
VAL_SHARE = 0.2
"""Of the digits that are not in train."""


class KNNDigits(DataModule):
    """scikit-learn's 1,797 digits of 8x8 pixels, each linked with those that look most like it.

    Two digits are linked if one is among the ``neighbours`` nearest of the other by Euclidean
    distance of the pixels; of equally near ones, the first. The features are the pixels in [0, 1].
    A few labels of each class are drawn for training; of the rest, 20 % are val and 80 % test,
    stratified. Nothing to download.

    Args:
        labels_per_class: digits of each class to train on.
        neighbours: how many a digit chooses.
        data_seed: another seed, other labels.

    Raises:
        ValueError: an argument is out of range.
    """

    splits = ("train", "val", "test")
    repeated = ("data_seed",)  # another draw of labels

    def __init__(
        self, *, labels_per_class: int = 5, neighbours: int = 7, data_seed: int = 0
    ) -> None:
        super().__init__()
        if not 1 <= labels_per_class <= SMALLEST_CLASS // 2:
            raise ValueError(
                f"labels_per_class must be from 1 to {SMALLEST_CLASS // 2}, not {labels_per_class}"
            )
        if not 1 <= neighbours < SIZE:
            raise ValueError(f"neighbours must be from 1 to {SIZE - 1}, not {neighbours}")
        self.labels_per_class = labels_per_class
        self.neighbours = neighbours
        self.data_seed = data_seed

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        from sklearn.datasets import load_digits  # here, because importing it takes a second

        digits = load_digits()
        pixels, labels = torch.from_numpy(digits.data), torch.from_numpy(digits.target)
        order = torch.randperm(SIZE, generator=seeded_generator("knn digits", self.data_seed))
        shuffled = labels[order]
        drawn = [order[shuffled == label][: self.labels_per_class] for label in range(10)]
        train = torch.cat(drawn).sort().values
        is_rest = torch.ones(SIZE, dtype=torch.bool)
        is_rest[train] = False
        rest = is_rest.nonzero().squeeze(1)
        shares = (VAL_SHARE, 1 - VAL_SHARE)
        val, test = split_indices(labels[rest], shares, seed=self.data_seed)
        self.loaders = split_loaders(
            (pixels / 16).float(),
            undirected(nearest(pixels, self.neighbours), SIZE),
            labels.long(),
            {"train": train, "val": rest[val], "test": rest[test]},
            device=device,
            part=part,
        )

    def facts(self) -> dict[str, Any]:
        return {
            "num_nodes": SIZE,
            "in_features": 64,
            "num_classes": 10,
            "class_names": [str(digit) for digit in range(10)],
        }


def nearest(points: Tensor, neighbours: int) -> Tensor:
    """Links from each point to its nearest others, of equally near ones to the first.

    Shape:
        - points: ``(count, dim)``
        - output: ``(2, count * neighbours)``
    """
    squares = points.square().sum(1)
    # Pixels are whole numbers, so that these distances are exact and a tie is one.
    distances = squares.unsqueeze(1) + squares - 2 * points @ points.T  # (count, count)
    distances.fill_diagonal_(torch.inf)
    chosen = distances.argsort(dim=1, stable=True)[:, :neighbours]  # (count, neighbours)
    own = torch.arange(len(points)).unsqueeze(1).expand_as(chosen)
    return torch.stack([own.flatten(), chosen.flatten()])
