"""Progression of diabetes in 442 patients, from scikit-learn: regression, nothing to download.

Efron, Hastie, Johnstone and Tibshirani, 2004, "Least angle regression", section 1:
https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html. Ten measurements of each patient (age,
sex, body mass index, blood pressure, six of blood serum), and how far the disease has gone a year
later. Divided 70/15/15, or into folds.
"""

from typing import Any

import torch
from torch import Tensor

from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.splits import check_folds, divide_or_fold


class Diabetes(DataModule):
    """Batches ``(features, targets)``, float32 ``(batch, 10)`` and ``(batch, 1)``.

    Args:
        batch_size: patients a batch; ``None`` for the whole split in one batch.
        split_seed: another seed, another division into train, val and test.
        standardize: shift and scale every feature *and the target* to mean 0 and standard deviation
            1 over the training split. A prediction ``y`` then means ``y * target_std +
            target_mean`` in the target's own units, and a mean squared error is the unexplained
            share of the variance. Else both are in their own units.
        drop_last: omit the last training batch of an epoch if it is smaller.
        fold: which fold of a cross-validation is the test; None: there are no folds.
        num_folds: how many there are.

    Attributes:
        target_mean: what was subtracted from the targets (0 where they are left alone).
        target_std: what they were divided by (1 where they are left alone); known after `setup`.
    """

    splits = ("train", "val", "test")
    repeated = ("fold",)
    feature_names = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")

    def __init__(
        self,
        *,
        batch_size: int | None = None,
        split_seed: int = 0,
        standardize: bool = True,
        drop_last: bool = False,
        fold: int | None = None,
        num_folds: int = 10,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size, optional=True)
        check_folds(fold, num_folds)
        self.fold, self.num_folds = fold, num_folds
        self.batch_size = batch_size
        self.split_seed = split_seed
        self.standardize = standardize
        self.drop_last = drop_last
        self.target_mean = 0.0
        self.target_std = 1.0

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        from sklearn.datasets import load_diabetes  # here, because importing it takes a second

        table, progression = load_diabetes(return_X_y=True, scaled=False)
        features, targets = torch.from_numpy(table), torch.from_numpy(progression)  # (n, 10), (n,)
        indices = divide_or_fold(
            len(targets), fold=self.fold, num_folds=self.num_folds, seed=self.split_seed
        )
        if self.standardize:
            train = indices["train"]
            features = _standardized(features, features[train])
            self.target_mean = targets[train].mean().item()
            self.target_std = targets[train].std(correction=0).item()
            targets = _standardized(targets, targets[train])
        features, targets = features.float(), targets.float().unsqueeze(1)
        for split, index in indices.items():
            self.loaders[split] = TensorLoader(
                (features[index], targets[index]),
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )

    def facts(self) -> dict[str, Any]:
        return {"in_features": len(self.feature_names), "out_features": 1}


def _standardized(values: Tensor, train: Tensor) -> Tensor:
    return (values - train.mean(0)) / train.std(0, correction=0)
