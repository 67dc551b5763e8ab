import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.masks.mask_folder import MaskFolder


def draw(folder, sizes, values=(0, 255), mode="L", suffix="png"):
    """Images whose first channel says the class of each pixel, and their masks."""
    generator = np.random.default_rng(len(str(folder)))
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (width, height) in enumerate(sizes):
        classes = generator.integers(0, len(values), (height, width))
        classes[0, : len(values)] = np.arange(len(values))
        pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        pixels[..., 0] = classes * 40
        Image.fromarray(pixels).save(folder / "images" / f"{number:02}.{suffix}")
        mask = Image.fromarray(np.array(values, dtype=np.uint8)[classes])
        if mode == "P":
            mask = Image.frombytes("P", mask.size, mask.tobytes())
            mask.putpalette([7 * i % 256 for i in range(768)])
        mask.save(folder / "masks" / f"{number:02}.png")
    return folder


def module(folder, **changes):
    settings = {"batch_size": 4, "tile_size": 8, "mean": [0.0] * 3, "std": [1 / 255] * 3}
    return MaskFolder(str(folder), **(settings | changes))


def test_one_folder_is_divided_disjointly_and_completely(tmp_path):
    data = module(draw(tmp_path, [(10, 12)] * 20), val_fraction=0.2, test_fraction=0.2)
    assert data.splits == ("train", "val", "test")
    data.setup()
    counts = {split: data.loaders[split].num_samples for split in data.splits}
    assert counts == {"train": 12, "val": 4, "test": 4}
    seen = [images for s in ("val", "test") for images, _ in data.batches(s, 0)]
    assert len(torch.cat(seen).flatten(1).unique(dim=0)) == 8
    other = module(tmp_path, val_fraction=0.2, test_fraction=0.2, split_seed=1)
    other.setup()
    assert not torch.equal(next(other.batches("val", 0))[0], next(data.batches("val", 0))[0])


@pytest.mark.parametrize(
    ("present", "splits"),
    [
        (("train", "val", "test"), ("train", "val", "test")),
        (("train", "test"), ("train", "val", "test")),
        (("train", "val"), ("train", "val")),
        (("train",), ("train", "val")),
    ],
)
def test_split_folders_are_used_and_only_a_missing_val_is_taken_from_train(
    present, splits, tmp_path
):
    for name in present:
        draw(tmp_path / name, [(9, 9)] * 10)
    data = module(tmp_path)
    assert data.splits == splits
    data.setup()
    assert tuple(data.loaders) == splits
    assert data.loaders["train"].num_samples == (10 if "val" in present else 9)
    assert data.loaders["val"].num_samples == (10 if "val" in present else 1)


@pytest.mark.parametrize(
    ("mode", "values", "resolved"),
    [
        ("L", (0, 255), [0, 255]),
        ("L", (3, 100, 200), [3, 100, 200]),
        ("L", (0, 1, 255), [0, 1]),
        ("L", (0, 2, 255), [0, 2]),
        ("L", (0, 128, 255), [0, 128, 255]),
        ("P", (0, 1, 2), [0, 1, 2]),
        ("P", (0, 2, 255), [0, 1, 2]),
    ],
)
def test_masks_are_turned_into_class_numbers(mode, values, resolved, tmp_path):
    draw(tmp_path, [(20, 16)] * 10, values=values, mode=mode)
    data = module(tmp_path, tiles_per_image=2, jitter=0.0, flips="none")
    data.setup()
    ignored = 255 in values and 255 not in resolved
    assert data.notes[0].endswith("255 is ignored" if ignored else "all count")
    assert f"the masks, {resolved[0]} is 0, {resolved[1]} is 1" in data.notes[0]
    for split in data.splits:
        for images, masks in data.batches(split, 0):
            written = torch.tensor(values)[(images[:, 0] / 40).round().long()]
            numbers = torch.searchsorted(torch.tensor(values), written)
            expected = written if mode == "P" else numbers
            expected = torch.where(written == 255, 255, expected) if ignored else expected
            assert torch.equal(masks, expected) and masks.dtype == torch.int64
    assert ignored == (255 in masks)
    assert data.resolved() == {
        "class_names": [str(value) for value in resolved],
        "mask_values": resolved,
    }
    names = [str(value) for value in resolved]
    sizes = {"num_classes": len(resolved), "in_channels": 3, "image_size": 8}
    assert data.facts() == sizes | {"class_names": names}


def test_split_folders_are_known_in_their_usual_spellings_and_hidden_files_skipped(tmp_path):
    draw(tmp_path / "Training", [(9, 9)] * 4)
    draw(tmp_path / "validation", [(9, 9)] * 3)
    for part in ("images", "masks"):
        (tmp_path / "Training" / part / "._00.png").write_bytes(b"\0\5\x16\7")
    data = module(tmp_path)
    assert data.splits == ("train", "val")
    data.setup()
    assert [loader.num_samples for loader in data.loaders.values()] == [4, 3]
    assert "not read: 2 hidden" in data.notes
    other = module(tmp_path, splits={"train": "validation", "val": "Training"})
    other.setup()
    assert other.loaders["train"].num_samples == 3
    draw(tmp_path, [(9, 9)] * 4)
    with pytest.raises(DataError, match=r"holds Training, .* beside it images in images"):
        module(tmp_path).setup()


def test_values_and_names_can_be_given_and_255_is_then_ignored(tmp_path):
    draw(tmp_path, [(9, 9)] * 10, values=(1, 0, 255))
    data = module(tmp_path, mask_values=[1, 0, 7], class_names=["cell", "ground", "never"])
    assert data.facts()["num_classes"] == 3
    data.setup()
    images, masks = next(data.batches("val", 0))
    assert torch.equal(masks, torch.tensor([0, 1, 255])[(images[:, 0] / 40).round().long()])
    assert data.resolved()["class_names"] == ["cell", "ground", "never"]
    again = module(tmp_path, **data.resolved())
    again.setup()
    assert torch.equal(next(again.batches("val", 0))[1], masks)


def test_what_a_run_stores_is_enough_to_prepare_an_image_without_data(tmp_path):
    data = module("nowhere", class_names=["a", "b"], mask_values=[0, 255], in_channels=3)
    assert data.preprocess(Image.new("L", (7, 5), 9)).shape == (3, 5, 7)
    assert data.facts()["num_classes"] == 2
    with pytest.raises(RuntimeError, match=r"MaskFolder.setup\(\) must be called before its fact"):
        module("nowhere").facts()
    assert module("nowhere").resolved() == {}


def test_tiles_come_from_images_of_any_size_and_small_ones_are_mirrored(tmp_path):
    draw(tmp_path / "train", [(5, 30), (40, 6), (4, 4), (20, 20)])
    draw(tmp_path / "val", [(11, 9), (7, 7)])
    data = module(tmp_path, tiles_per_image=3, border_weights=True, elastic=1.0, flips="all")
    data.setup()
    batches = list(data.batches("train", 0))
    assert [images.shape for images, _, _ in batches] == [(4, 3, 8, 8)] * 3
    assert [images.shape[2:] for images, _, _ in data.batches("val", 0)] == [(9, 11), (7, 7)]


@pytest.mark.parametrize("in_channels", [1, 3])
def test_images_may_be_jpeg_and_are_read_as_grey_or_colour(in_channels, tmp_path):
    draw(tmp_path, [(9, 9)] * 10, suffix="JPG")
    data = MaskFolder(str(tmp_path), tile_size=8, in_channels=in_channels)
    data.setup()
    images, _ = next(data.batches("train", 0))
    assert images.shape[1:] == (in_channels, 8, 8) and abs(images.mean()) < 2


def test_whole_images_train_without_a_tile_size(tmp_path):
    draw(tmp_path, [(12, 8)] * 10)
    data = module(tmp_path, tile_size=None)
    data.setup()
    assert next(data.batches("train", 0))[0].shape == (4, 3, 8, 12)
    assert "image_size" not in data.facts()
    draw(tmp_path, [(12, 8)] * 9 + [(8, 8)] * 3)
    with pytest.raises(ValueError, match="tile_size must be given"):
        module(tmp_path, tile_size=None).setup()


def folder_of_ten(tmp_path):
    return draw(tmp_path, [(9, 9)] * 10)


def without_mask(folder):
    (folder / "masks" / "03.png").unlink()
    return r"images/03\.png has no mask .*masks/03\.png: add it, or remove the image"


def mask_as_jpeg(folder):
    (folder / "masks" / "03.png").rename(folder / "masks" / "03.jpg")
    return r"has no mask .*\(there is 03\.jpg, but masks must be PNG files\)"


def without_image(folder):
    (folder / "images" / "03.png").unlink()
    return r"masks/03\.png has no image of this name in .*images"


def two_images(folder):
    Image.new("RGB", (9, 9)).save(folder / "images" / "03.jpg")
    return r"03\.jpg and 03\.png would have the same mask"


def other_size(folder):
    Image.new("RGB", (9, 8)).save(folder / "images" / "03.png")
    return r"masks/03\.png has 9x9 pixels, but its image .*images/03\.png 9x8"


def smooth_mask(folder):
    Image.fromarray(np.arange(81, dtype=np.uint8).reshape(9, 9)).save(folder / "masks" / "03.png")
    return r"masks/03\.png holds too many grey values for a mask"


def mixed_kinds(folder):
    Image.new("P", (9, 9), 1).save(folder / "masks" / "03.png")
    return r"masks/03\.png is an indexed \(palette\) mask, but .*\d\d\.png a grey one"


def one_value(folder):
    for path in (folder / "masks").iterdir():
        Image.new("L", (9, 9), 255).save(path)
    return "hold 1 class, not at least 2: give mask_values if others can occur"


def nothing_but_ignored(folder):
    for path in (folder / "masks").iterdir():
        mask = Image.frombytes("P", (9, 9), bytes([255]) * 81)
        mask.putpalette([7 * i % 256 for i in range(768)])
        mask.save(path)
    return "hold 0 classes, not at least 2"


def no_masks(folder):
    (folder / "masks").rename(folder / "labels")
    return r"masks is not a folder: put images into .*images and the mask of each"


def no_images(folder):
    for path in (folder / "images").iterdir():
        path.rename(path.with_suffix(".txt"))
    return "images holds no images"


def broken_image(folder):
    (folder / "images" / "03.png").write_bytes(b"nothing")
    return r"images/03\.png cannot be read as an image"


@pytest.mark.parametrize(
    "spoil",
    [
        without_mask,
        mask_as_jpeg,
        without_image,
        two_images,
        other_size,
        smooth_mask,
        mixed_kinds,
        one_value,
        nothing_but_ignored,
        no_masks,
        no_images,
        broken_image,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_wrong_with_the_files_is_said_with_their_names(spoil, tmp_path):
    message = spoil(folder_of_ten(tmp_path))
    with pytest.raises(DataError, match=message):
        module(tmp_path).setup()


def test_a_missing_folder_and_too_few_images_are_told(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder: name one that holds images and"):
        MaskFolder("nowhere", root=str(tmp_path)).setup()
    draw(tmp_path, [(9, 9)] * 2)
    with pytest.raises(DataError, match=r"too few samples \(2\) to set some aside for val"):
        module(tmp_path).setup()


def test_a_value_that_is_not_among_those_given_is_told(tmp_path):
    draw(tmp_path, [(9, 9)] * 10, values=(0, 9))
    with pytest.raises(DataError, match=r"\d\.png holds the value 9, but only 255, 0, 1 have"):
        module(tmp_path, mask_values=[0, 1]).setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"in_channels": 2}, "in_channels must be 1 or 3, not 2"),
        ({"val_fraction": 0}, "val_fraction must be between 0 and 1, not 0"),
        ({"test_fraction": 0.9}, r"test_fraction must be in \[0, 0.9\), .* not 0.9"),
        ({"mean": [0.5], "std": [0.5]}, "mean must have in_channels = 3 values"),
        ({"mask_values": [0]}, r"mask_values must be 2 to 254 different numbers .* not \[0\]"),
        ({"mask_values": [0, 0]}, r"different numbers from 0 to 255, not \[0, 0\]"),
        ({"mask_values": [0, 256]}, r"different numbers from 0 to 255, not \[0, 256\]"),
        (
            {"mask_values": [0, 1], "class_names": ["a", "b", "c"]},
            r"class_names must be as many as the values in the masks \(0, 1\), not a, b, c",
        ),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        module("x", **settings)
