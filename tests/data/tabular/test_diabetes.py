import pytest
import torch
from sklearn.datasets import load_diabetes

from zoo.data.tabular.diabetes import Diabetes


def test_training_features_and_targets_have_mean_zero_and_deviation_one():
    module = Diabetes()
    module.setup()
    ((features, targets),) = module.batches("train", 0)
    assert features.shape == (309, 10) and targets.shape == (309, 1)
    assert features.dtype == targets.dtype == torch.float32
    for values in (features, targets):
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            values.std(0, correction=0), torch.ones(values.shape[1]), atol=1e-4, rtol=0
        )
    assert module.facts() == {"in_features": 10, "out_features": 1}


def test_the_other_splits_are_scaled_as_training_is_and_targets_can_be_had_back():
    scaled, raw = Diabetes(), Diabetes(standardize=False)
    for module in (scaled, raw):
        module.setup()
    ((train, _),) = raw.batches("train", 0)
    for split in ("val", "test"):
        ((features, targets),) = scaled.batches(split, 0)
        ((raw_features, raw_targets),) = raw.batches(split, 0)
        expected = (raw_features - train.mean(0)) / train.std(0, correction=0)
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
        restored = targets * scaled.target_std + scaled.target_mean
        torch.testing.assert_close(restored, raw_targets, atol=1e-3, rtol=1e-4)
    assert (raw.target_mean, raw.target_std) == (0, 1)


def test_splits_are_disjoint_and_complete():
    module = Diabetes(standardize=False, batch_size=50)
    module.setup()
    counts = {split: module.loaders[split].num_samples for split in module.splits}
    assert counts == {"train": 309, "val": 67, "test": 66}
    total = sum(targets.sum().item() for s in module.splits for _, targets in module.batches(s, 0))
    assert total == load_diabetes(scaled=False).target.sum()


def test_nonsense_is_refused_with_the_value():
    with pytest.raises(ValueError, match="batch_size must be at least 1 or None, not -3"):
        Diabetes(batch_size=-3)


def test_folds_are_tested_once_each():
    seen = []
    for fold in range(5):
        module = Diabetes(standardize=False, fold=fold, num_folds=5)
        module.setup()
        ((_, targets),) = module.batches("test", 0)
        seen += targets.flatten().tolist()
    assert sorted(seen) == sorted(load_diabetes(scaled=False).target)
    with pytest.raises(ValueError, match=r"fold must be from 0 to 4 \(num_folds\), not 5"):
        Diabetes(fold=5, num_folds=5)
