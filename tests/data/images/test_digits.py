import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional as F

from zoo.data.images.digits import Digits


def everything(module, split="train", epoch=0):
    images, labels = zip(*module.batches(split, epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_splits_are_disjoint_complete_and_stratified():
    module = Digits(image_size=8, batch_size=100)
    module.setup()
    parts = {split: everything(module, split) for split in module.splits}
    assert {k: len(v[1]) for k, v in parts.items()} == {"train": 1258, "val": 269, "test": 270}
    rows = torch.cat([images.flatten(1) for images, _ in parts.values()])
    whole = module.normalize(
        torch.from_numpy(load_digits().images).float().unsqueeze(1) / 16
    ).flatten(1)
    assert torch.equal(rows[_order(rows)], whole[_order(whole)])
    for _, labels in parts.values():
        shares = labels.bincount(minlength=10) / len(labels)
        torch.testing.assert_close(shares, torch.full((10,), 0.1), atol=0.012, rtol=0)


def test_folds_are_tested_once_each():
    seen = []
    for fold in range(3):
        module = Digits(image_size=8, batch_size=1000, fold=fold, num_folds=3)
        module.setup()
        images, labels = everything(module, "test")
        seen.append(images.flatten(1))
        assert len(labels) == 599 and labels.bincount().tolist() == pytest.approx([60] * 10, abs=2)
    whole = Digits(image_size=8, batch_size=1000)
    whole.setup()
    parts = [everything(whole, split)[0].flatten(1) for split in whole.splits]
    rows, expected = torch.cat(seen), torch.cat(parts)
    assert torch.equal(rows[_order(rows)], expected[_order(expected)])


def _order(rows):
    keys = rows.double() * torch.rand(64, generator=torch.Generator().manual_seed(0)).double()
    return keys.sum(1).argsort()


def test_the_split_depends_on_split_seed_and_the_order_on_seed():
    def first(split_seed, seed):
        module = Digits(image_size=8, split_seed=split_seed)
        module.setup(seed=seed)
        return next(module.batches("val", 0))[0], next(module.batches("train", 0))[0]

    (val, train), (same_val, other_order) = first(0, 0), first(0, 1)
    assert torch.equal(val, same_val) and not torch.equal(train, other_order)
    assert not torch.equal(val, first(1, 0)[0])


def test_images_are_scaled_up_and_framed_in_black():
    module = Digits(batch_size=2000)
    module.setup()
    images, _ = everything(module, "val")
    assert images.shape == (269, 1, 32, 32) and images.dtype == torch.float32
    black = module.normalize(torch.zeros(1, 1, 1, 1)).item()
    inside = F.pad(torch.ones(24, 24), (4, 4, 4, 4)).bool()
    torch.testing.assert_close(images[..., ~inside], torch.full_like(images[..., ~inside], black))
    assert (images[..., inside] > black).float().mean() > 0.3
    assert module.facts() == {
        "num_classes": 10,
        "class_names": list("0123456789"),
        "in_channels": 1,
        "image_size": 32,
        "in_features": 1024,
        "pixel_mean": [0.3053],
        "pixel_std": [0.3760],
    }


def test_standard_scaling_has_mean_zero_and_deviation_one_and_symmetric_is_within_one():
    module = Digits(image_size=8, batch_size=2000)
    module.setup()
    images, _ = everything(module)
    assert abs(images.mean()) < 0.01 and abs(images.std() - 1) < 0.01
    module = Digits(image_size=8, batch_size=2000, scaling="symmetric")
    module.setup()
    images, _ = everything(module)
    assert (images.min(), images.max()) == (-1, 1)


def test_augmentation_is_for_training_only_and_new_each_epoch():
    plain, changed = Digits(batch_size=2000), Digits(batch_size=2000, augment=True)
    for module in (plain, changed):
        module.setup()
    assert torch.equal(everything(plain, "test")[0], everything(changed, "test")[0])
    first, second = everything(changed, epoch=0)[0], everything(changed, epoch=1)[0]
    order = [changed.loaders["train"].indices(epoch, 0) for epoch in (0, 1)]
    by_sample = [
        images[torch.tensor(o).argsort()] for images, o in zip((first, second), order, strict=True)
    ]
    assert (by_sample[0] - by_sample[1]).abs().amax((1, 2, 3)).min() > 0.1
    assert abs(first.mean() - everything(plain)[0].mean()) < 0.05


def test_an_image_of_a_digit_is_prepared_as_the_data_are_without_setup():
    module = Digits()
    pixels = torch.from_numpy(load_digits().images[3]).float()
    image = Image.fromarray((pixels * 255 / 16).round().byte().numpy())
    module.setup()
    expected = module.normalize(
        F.pad(F.interpolate(pixels[None, None] / 16, size=(24, 24), mode="bilinear"), (4, 4, 4, 4))
    )[0]
    prepared = Digits().preprocess(image)
    torch.testing.assert_close(prepared, expected, atol=0.02, rtol=0)
    large = Digits().preprocess(image.convert("RGB").resize((200, 200)))
    assert large.shape == (1, 32, 32)
    assert torch.corrcoef(torch.stack((large.flatten(), expected.flatten())))[0, 1] > 0.97


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"image_size": 7}, "image_size must be at least 8, not 7"),
        ({"padding": 13}, "padding must leave at least 8 of image_size 32 .*12, not 13"),
        ({"scaling": "none"}, "scaling must be 'standard', 'symmetric' or 'unit', not 'none'"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        Digits(**settings)


def test_bagging_draws_training_images_alone():
    plain, bagged = (Digits(image_size=8, bootstrap_seed=seed) for seed in (None, 3))
    for data in (plain, bagged):
        data.setup()
    for split in plain.splits:
        (x, y), (other, classes) = (data.loaders[split]._tensors for data in (plain, bagged))
        assert len(other) == len(x)
        assert torch.equal(y, classes) == (split != "train")
    assert len(other.flatten(1).unique(dim=0)) == len(x.flatten(1).unique(dim=0))
    train = bagged.loaders["train"]._tensors[0].flatten(1)
    assert len(train.unique(dim=0)) / len(train) == pytest.approx(0.632, abs=0.03)
