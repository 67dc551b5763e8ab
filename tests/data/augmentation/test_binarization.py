import pytest
import torch

from zoo.data.augmentation.binarization import Binarize, binarize_once
from zoo.data.images.digits import Digits
from zoo.data.images.mnist import MNIST


def digits(binarize, seed=0, batch_size=2000, **options):
    module = Digits(
        image_size=8, scaling="unit", binarize=binarize, batch_size=batch_size, **options
    )
    module.setup(seed=seed)
    return module


def whole(module, split="train", epoch=0):
    batches = list(module.batches(split, epoch))
    rows = [i for b in range(len(batches)) for i in module.loaders[split].indices(epoch, b)]
    return torch.cat([batch[0] for batch in batches])[torch.tensor(rows).argsort()]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_pixel_is_white_as_often_as_it_is_bright(dtype):
    white = 255 if dtype == torch.uint8 else 1
    brightness = torch.tensor([0.0, 0.2, 0.6, 1.0])
    images = (brightness * white).to(dtype).expand(20_000, 1, 2, 4).contiguous()
    drawn = Binarize(8)(images, torch.rand(20_000, 8, generator=torch.Generator().manual_seed(0)))
    assert drawn.dtype == dtype and set(drawn.unique().tolist()) == {0, white}
    means = drawn.float().mean((0, 1, 2)) / white
    torch.testing.assert_close(means, brightness, atol=0.01, rtol=0)
    assert means[0] == 0 and means[3] == 1


@pytest.mark.parametrize("augment", [False, True])
def test_training_pixels_are_drawn_anew_in_every_epoch(augment):
    module = digits("dynamic", augment=augment)
    first, again = whole(module), whole(module, epoch=1)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, again)
    assert torch.equal(first, whole(digits("dynamic", augment=augment, batch_size=7)))
    assert not torch.equal(first, whole(digits("dynamic", augment=augment, seed=1)))


def test_static_pixels_are_drawn_once():
    first, again = (whole(digits("static"), epoch=epoch) for epoch in (0, 1))
    assert set(first.unique().tolist()) == {0.0, 1.0} and torch.equal(first, again)
    assert torch.equal(first, whole(digits("static", seed=1)))


def test_what_is_judged_is_the_same_whatever_the_settings():
    images = whole(digits("static"), "test")
    assert set(images.unique().tolist()) == {0.0, 1.0}
    for other in (digits("dynamic"), digits("dynamic", seed=3, batch_size=50, augment=True)):
        for epoch in (0, 1):
            assert torch.equal(images, whole(other, "test", epoch))
    assert not torch.equal(images, whole(digits("none"), "test"))


def test_symmetric_pixels_are_minus_one_and_one():
    module = Digits(image_size=8, scaling="symmetric", binarize="dynamic")
    module.setup()
    assert set(whole(module).unique().tolist()) == {-1.0, 1.0}


def test_many_images_get_one_draw_each():
    images = torch.full((9000, 1, 1, 1), 128, dtype=torch.uint8)
    drawn = binarize_once(images, "x")
    assert drawn.float().mean().item() / 255 == pytest.approx(128 / 255, abs=0.02)
    assert not torch.equal(drawn[:4096], drawn[4096:8192])
    assert not torch.equal(drawn, binarize_once(images, "y"))
    assert images.unique().tolist() == [128]


@pytest.mark.parametrize("module", [Digits, MNIST])
def test_grey_scaling_and_unknown_kinds_are_refused(module):
    with pytest.raises(ValueError, match="binarize=dynamic goes with scaling=unit"):
        module(binarize="dynamic")
    with pytest.raises(ValueError, match="'dynamic' or 'static', not 'twice'"):
        module(binarize="twice", scaling="unit")
