import pytest
import torch
from PIL import Image

from zoo.app.prediction_files import indexed
from zoo.data.masks.paired_shapes import COLOURS, PALETTE, PairedShapes
from zoo.data.masks.shapes import Shapes
from zoo.figures.palette import voc_colours

SIZES = {"batch_size": 4, "image_size": 32, "train_size": 10, "val_size": 5, "test_size": 5}


def module(kind=PairedShapes, **changes):
    data = kind(**(SIZES | changes))
    data.setup(seed=1)
    return data


def bytes_of(values):
    """What was drawn, of values from -1 to 1."""
    return ((values + 1) * 127.5).round().long()


@pytest.mark.parametrize("flips", ["none", "all"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_pairs_are_the_masks_in_colour_and_the_images_of_the_shapes(split, flips, monkeypatch):
    pairs = module(flips=flips)
    monkeypatch.setattr(Shapes, "palette", torch.tensor(PALETTE))
    shapes = module(Shapes, flips=flips)
    found = list(pairs.batches(split, 2))
    expected = list(shapes.batches(split, 2))
    assert len(found) == len(expected) == -(-pairs.loaders[split].num_samples // 4)
    for (given, target), (images, masks) in zip(found, expected, strict=True):
        assert given.shape == target.shape and given.dtype == target.dtype == torch.float32
        # Shapes are normalised by mean 0.5 and standard deviation 0.25.
        assert torch.equal(bytes_of(target), ((images / 4 + 0.5) * 255).round().long())
        assert torch.equal(bytes_of(given).movedim(1, -1), voc_colours().long()[masks])


def test_a_mask_tells_the_colours_and_not_the_shade():
    """The pixels of a class have its colour in the mean, and differ from image to image."""
    given, target = next(module(train_size=64, batch_size=64).batches("train", 0))
    for of_mask, colour in zip(COLOURS, PALETTE, strict=True):
        there = (bytes_of(given) == torch.tensor(of_mask).view(3, 1, 1)).all(1)
        pixels = target.movedim(1, -1)[there]  # (pixels, 3)
        assert ((pixels.mean(0) + 1) / 2 - torch.tensor(colour)).abs().max() < 0.03
        assert (pixels.std(0) > 0.1).all()


def test_both_lie_from_minus_one_to_one():
    given, target = next(module(train_size=64, batch_size=64).batches("train", 0))
    for images in (given, target):
        assert -1 <= images.min() < -0.9 and images.max() <= 1
    assert target.max() > 0.9


def test_an_epoch_can_be_begun_in_its_middle():
    data = module()
    (_, second, third), (again, last) = data.batches("train", 1), data.batches("train", 1, 1)
    assert torch.equal(second[0], again[0]) and torch.equal(third[1], last[1])


def test_a_process_without_a_share_of_a_batch_gets_none():
    data = PairedShapes(**SIZES)
    data.setup(seed=1, part=(3, 4))
    *_, last = data.batches("val", 0)  # of five samples the last is alone in its batch
    assert last is None


def test_facts_fill_both_sides_of_a_translation():
    assert module().facts() == {"in_channels": 3, "out_channels": 3, "image_size": 32}


def test_masks_are_prepared_as_in_the_data_whatever_they_are_stored_as():
    data = module()
    given, _ = next(data.batches("test", 0))
    _, masks = next(module(Shapes).batches("test", 0))
    mask = masks[0].byte()
    colours = torch.tensor(COLOURS, dtype=torch.uint8)[masks[0]].numpy()
    for image in (indexed(mask), Image.fromarray(mask.numpy()), Image.fromarray(colours)):
        assert torch.equal(data.preprocess(image), given[0])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (
            Image.new("RGB", (32, 32), (1, 2, 3)),
            r"a pixel is \[1, 2, 3\], and the classes are back",
        ),
        (Image.new("L", (32, 32), 4), r"a pixel is \[4\], and the classes are background \[0\], "),
        (
            Image.new("RGB", (40, 32)),
            "it has 40x32 pixels, and a mask for this run must have 32x32",
        ),
    ],
)
def test_images_that_are_no_masks_are_refused(image, said):
    with pytest.raises(ValueError, match=said):
        module().preprocess(image)
