import hashlib
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.images.pets import Pets
from zoo.data.masks.from_files import resize
from zoo.data.masks.pets import PetsSegmentation
from zoo.data.sampling import evaluation_order

BREEDS = ("Abyssinian", "american_bulldog", "Bengal")
COUNTS = {"trainval": 10, "test": 3}  # of each breed


def write(root):
    """A few small images, laid out as in the original archives."""
    folder = root / "oxford-iiit-pet"
    for name in ("images", "annotations/trimaps"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in COUNTS.items():
        lines = []
        for label, breed in enumerate(BREEDS, start=1):
            for number in range(count):
                name = f"{breed}_{split}{number}"
                lines.append(f"{name} {label} {2 if breed[0].islower() else 1} 1")
                width, height = (40, 30) if number % 2 else (24, 36)
                pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg")
                values = generator.integers(1, 4, (height, width)).astype(np.uint8)
                Image.fromarray(values).save(folder / "annotations" / "trimaps" / f"{name}.png")
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def pets(tmp_path):
    pytest.importorskip("torchvision")
    write(tmp_path)
    return tmp_path


def breeds(root, **changes):
    settings = {"batch_size": 4, "image_size": 16, "resize": None, "num_workers": 0}
    return Pets(root=str(root), **(settings | changes))


def outlines(root, **changes):
    settings = {"batch_size": 4, "tile_size": 16, "short_side": None, "num_workers": 0}
    return PetsSegmentation(root=str(root), **(settings | changes))


@pytest.fixture
def archives(tmp_path, web, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    folder = write(tmp_path / "source")
    resources = []
    for name in ("images", "annotations"):
        path = web.folder / f"{name}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder / name, name)
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        resources.append((f"{web.url}/{path.name}", md5))
    monkeypatch.setattr(datasets.OxfordIIITPet, "_RESOURCES", tuple(resources))
    return web


@pytest.mark.parametrize("make", [breeds, outlines])
def test_it_downloads_through_torchvision_once(make, archives, tmp_path):
    root = tmp_path / "data"
    make(root).setup()
    assert {"/images.tar.gz", "/annotations.tar.gz"} <= set(archives.requests)
    archives.requests.clear()
    make(root).setup()
    assert archives.requests == []


@pytest.mark.parametrize("make", [breeds, outlines])
def test_without_a_connection_one_sentence_says_what_to_do(make, tmp_path, dead_url, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    resources = ((f"{dead_url}/images.tar.gz", "0"),)
    monkeypatch.setattr(datasets.OxfordIIITPet, "_RESOURCES", resources)
    with pytest.raises(DataError) as caught:
        make(tmp_path).setup()
    message = str(caught.value)
    assert str(tmp_path / "oxford-iiit-pet") in message and "\n" not in message
    assert "images.tar.gz" in message and "by hand" in message


@pytest.mark.parametrize("in_memory", [True, False])
def test_breeds_are_those_that_torchvision_reads(in_memory, pets):
    from torchvision.datasets import OxfordIIITPet

    data = breeds(pets, in_memory=in_memory)
    data.setup()
    theirs = OxfordIIITPet(str(pets), split="test")
    assert data.resolved() == {"class_names": theirs.classes}
    assert theirs.classes == ["Abyssinian", "American Bulldog", "Bengal"]
    images = torch.cat([images for images, _ in data.batches("test", 0)])
    labels = torch.cat([labels for _, labels in data.batches("test", 0)])
    assert images.shape == (9, 3, 16, 16)
    order = evaluation_order(len(theirs)).tolist()
    for image, label, i in zip(images, labels, order, strict=True):
        file, expected = theirs[i]
        torch.testing.assert_close(data.preprocess(file), image)
        assert label == expected
    assert data.facts()["num_classes"] == 3


def test_validation_images_are_taken_from_the_published_training_ones_by_breed(pets):
    data = breeds(pets, val_fraction=0.2)
    data.setup()
    counts = {split: data.loaders[split].num_samples for split in data.splits}
    assert counts == {"train": 24, "val": 6, "test": 9}
    labels = torch.cat([labels for _, labels in data.batches("val", 0)])
    assert labels.bincount().tolist() == [2, 2, 2]
    masks = outlines(pets, val_fraction=0.2)
    masks.setup()
    samples = data.loaders["val"].num_samples, masks.loaders["val"].num_samples
    assert samples == (6, 6)
    assert [path for path, _ in data._samples()["val"]] == [
        str(image) for image, _ in masks._pairs()["val"]
    ]


@pytest.mark.parametrize(("border", "number"), [("class", 2), ("ignore", 255)])
def test_outlines_are_those_that_torchvision_reads(border, number, pets):
    from torchvision.datasets import OxfordIIITPet

    data = outlines(pets, border=border)
    data.setup()
    theirs = OxfordIIITPet(str(pets), split="test", target_types="segmentation")
    for (images, masks), (file, trimap) in zip(data.batches("test", 0), theirs, strict=True):
        assert images.shape[2:] == masks.shape[1:]
        torch.testing.assert_close(data.preprocess(file), images[0])
        values = torch.from_numpy(np.array(trimap)).long()
        assert torch.equal(masks[0], torch.tensor([9, 1, 0, number])[values])
    assert data.facts()["num_classes"] == len(data.class_names) == (3 if border == "class" else 2)


def test_photographs_and_outlines_are_resized_together(pets):
    data = outlines(pets, short_side=12, tile_size=12)
    data.setup()
    shapes = {tuple(masks.shape[1:]) for _, masks in data.batches("test", 0)}
    assert shapes == {(12, 16), (18, 12)}
    for images, masks in data.batches("train", 0):
        assert images.shape == (len(masks), 3, 12, 12) and masks.max() <= 2
        assert masks.dtype == torch.int64 and images.dtype == torch.float32
    file = Image.new("RGB", (36, 24), (255, 0, 0))
    assert PetsSegmentation(short_side=12).preprocess(file).shape == (3, 12, 18)


def test_resizing_keeps_classes_whole_and_puts_images_and_masks_in_the_same_place():
    mask = torch.zeros(40, 60, dtype=torch.int64)
    mask[10:30, 20:50] = 7
    image = (mask.unsqueeze(0).expand(3, -1, -1) * 30).to(torch.uint8)
    small, small_mask = resize(image, 20), resize(mask, 20)
    assert small.shape == (3, 20, 30) and small.dtype == torch.uint8
    assert set(small_mask.unique().tolist()) == {0, 7} and small_mask.dtype == torch.int64
    assert torch.equal(small_mask[6:14, 11:24], torch.full((8, 13), 7))
    assert ((small[0] > 105) == (small_mask == 7)).all()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (breeds, {"batch_size": 0}, "batch_size must be at least 1, not 0"),
        (breeds, {"val_fraction": 1}, "val_fraction must be between 0 and 1, not 1"),
        (outlines, {"val_fraction": 0}, "val_fraction must be between 0 and 1, not 0"),
        (outlines, {"border": "x"}, "border must be 'class' or 'ignore', not 'x'"),
        (outlines, {"short_side": 0}, "short_side must be at least 1 or None, not 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make("x", **settings)
