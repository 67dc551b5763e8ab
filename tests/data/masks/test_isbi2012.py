import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.masks.isbi2012 import ISBI2012


@pytest.fixture
def slices(tmp_path):
    """Thirty small slices in the layout of the real ones."""
    generator = np.random.default_rng(0)
    for name in ("image", "label"):
        (tmp_path / "isbi2012" / name).mkdir(parents=True)
    for number in range(30):
        pixels = generator.integers(0, 256, (24, 24)).astype(np.uint8)
        pixels[0, 0] = number
        for name, values in (("image", pixels), ("label", (pixels > 80) * np.uint8(255))):
            Image.fromarray(values).save(tmp_path / "isbi2012" / name / f"{number}.png")
    return tmp_path


def module(root, **changes):
    settings = {"batch_size": 4, "tile_size": 16, "elastic": 2.0}
    return ISBI2012(root=str(root), **(settings | changes))


def test_slices_are_split_by_their_numbers(slices):
    data = module(slices, tile_size=None, flips="none", elastic=0.0, jitter=0.0)
    data.setup()
    for split, numbers in (("train", range(20)), ("val", range(20, 24)), ("test", range(24, 30))):
        images = torch.cat([images for images, _ in data.batches(split, 0)])
        corners = (images * 0.1665 + 0.4865)[:, 0, 0, 0] * 255
        found = set(corners.round().int().tolist())
        assert found == set(numbers)


def test_training_sees_tiles_and_evaluation_whole_slices_with_membranes_as_class_zero(slices):
    data = module(slices, tiles_per_image=2, border_weights=True)
    data.setup()
    assert data.num_batches("train") == 10 and data.num_batches("test") == 6
    images, masks, weights = next(data.batches("train", 0))
    assert images.shape == (4, 1, 16, 16) and masks.shape == weights.shape == (4, 16, 16)
    images, masks, weights = next(data.batches("val", 0))
    assert images.shape == (1, 1, 24, 24) and masks.dtype == torch.int64
    pixels = np.array(Image.open(slices / "isbi2012" / "image" / "20.png"))
    assert torch.equal(masks[0], torch.from_numpy((pixels > 80).astype(np.int64)))
    assert data.class_names == ("membrane", "inside")
    assert data.facts() == {
        "num_classes": 2,
        "class_names": ["membrane", "inside"],
        "in_channels": 1,
        "image_size": 16,
    }


def test_a_slice_is_prepared_as_the_data_are_without_setup(slices):
    data = module(slices)
    data.setup()
    image = next(data.batches("test", 0))[0][0]
    with Image.open(slices / "isbi2012" / "image" / "24.png") as file:
        torch.testing.assert_close(ISBI2012().preprocess(file), image)


def test_a_missing_slice_is_named_with_where_to_get_it_and_where_to_put_it(slices):
    (slices / "isbi2012" / "label" / "7.png").unlink()
    with pytest.raises(DataError) as caught:
        module(slices).setup()
    message = str(caught.value)
    assert message.startswith(str(slices / "isbi2012" / "label" / "7.png"))
    assert "https://imagej.net" in message and "registration" in message and "\n" not in message
    assert f"{slices / 'isbi2012' / 'image'}/0.png to 29.png" in message


def test_a_label_with_other_values_or_another_size_is_named(slices):
    path = slices / "isbi2012" / "label" / "3.png"
    Image.fromarray(np.full((24, 24), 128, dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match=r"3\.png holds the value 128, but only 0, 255 have"):
        module(slices).setup()
    Image.fromarray(np.zeros((24, 20), dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match=r"3\.png has 20x24 pixels, but its image .* 24x24"):
        module(slices).setup()


def test_nonsense_is_refused_with_the_value():
    with pytest.raises(ValueError, match="tile_size must be at least 1 or None, not -3"):
        ISBI2012(tile_size=-3)


@pytest.mark.data
def test_real_slices_have_their_sizes_and_statistics(data_dir):
    if not (data_dir / "isbi2012").is_dir():
        pytest.skip(f"no isbi2012 in {data_dir}")
    plain = {"flips": "none", "elastic": 0.0, "jitter": 0.0}
    data = ISBI2012(root=str(data_dir), tile_size=None, tiles_per_image=1, **plain)
    data.setup()
    counts = {split: data.loaders[split].num_samples for split in data.splits}
    assert counts == {"train": 20, "val": 4, "test": 6}
    whole = list(data.batches("train", 0))
    images, masks = (torch.cat(parts) for parts in zip(*whole, strict=True))
    assert images.shape[1:] == (1, 512, 512)
    assert abs(images.mean()) < 0.005 and abs(images.std() - 1) < 0.005
    assert masks.float().mean().item() == pytest.approx(0.7711, abs=1e-3)


@pytest.mark.data
def test_real_slices_make_the_papers_tiles_with_weights(data_dir):
    if not (data_dir / "isbi2012").is_dir():
        pytest.skip(f"no isbi2012 in {data_dir}")
    data = ISBI2012(
        root=str(data_dir), tile_size=572, overhang=92, batch_size=1, border_weights=True
    )
    data.setup()
    images, masks, weights = next(data.batches("train", 0))
    assert images.shape == (1, 1, 572, 572) and set(masks.unique().tolist()) == {0, 1}
    assert weights[masks == 0].mean() > 5 * weights[masks == 1].mean()
    assert 10 < weights.max() < 13
