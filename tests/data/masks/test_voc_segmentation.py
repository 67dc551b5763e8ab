import hashlib
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.masks.voc_segmentation import VOCSegmentation

SIZES = {"train": [(50, 37), (30, 40), (20, 20), (61, 33)], "val": [(50, 37), (24, 45)]}


def write(root):
    """A few small images, laid out as in the original archive."""
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, sizes in SIZES.items():
        names = [f"2007_{split}_{i}" for i in range(len(sizes))]
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name, (width, height) in zip(names, sizes, strict=True):
            pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
            values = generator.integers(0, 21, (height, width)).astype(np.uint8)
            values[0] = 255
            mask = Image.frombytes("P", (width, height), values.tobytes())
            mask.putpalette([(7 * i) % 256 for i in range(768)])
            mask.save(folder / "SegmentationClass" / f"{name}.png")
    return folder


@pytest.fixture
def archive(tmp_path, web, monkeypatch):
    """The same as an archive on a server that torchvision takes for the original one."""
    voc = pytest.importorskip("torchvision.datasets.voc")
    write(tmp_path / "source")
    path = web.folder / "small.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "source" / "VOCdevkit", "VOCdevkit")
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    entry = voc.DATASET_YEAR_DICT["2012"]
    changed = {"url": f"{web.url}/small.tar", "filename": "small.tar", "md5": md5}
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, "2012", entry | changed)
    return web


def module(root, **changes):
    settings = {"root": str(root), "batch_size": 2, "tile_size": 32, "num_workers": 0}
    return VOCSegmentation(**(settings | changes))


def test_it_downloads_through_torchvision_once_and_reads_the_same(archive, tmp_path):
    from torchvision.datasets import VOCSegmentation as Theirs

    root = tmp_path / "data"
    module(root).setup()
    assert "/small.tar" in archive.requests
    archive.requests.clear()
    data = module(root)
    data.setup()
    assert archive.requests == []
    theirs = Theirs(str(root), image_set="val")
    for (images, masks), (image, mask) in zip(data.batches("val", 0), theirs, strict=True):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert torch.equal(images, data.normalize(pixels.unsqueeze(0)))
        assert torch.equal(masks[0], torch.from_numpy(np.array(mask)).long())
        torch.testing.assert_close(VOCSegmentation().preprocess(image), images[0])


def test_without_a_connection_one_sentence_says_what_to_do(tmp_path, dead_url, monkeypatch):
    voc = pytest.importorskip("torchvision.datasets.voc")
    changed = {"url": f"{dead_url}/small.tar"}
    monkeypatch.setitem(voc.DATASET_YEAR_DICT, "2012", voc.DATASET_YEAR_DICT["2012"] | changed)
    with pytest.raises(DataError) as caught:
        module(tmp_path).setup()
    message = str(caught.value)
    assert str(tmp_path / "VOCdevkit" / "VOC2012") in message and "\n" not in message
    assert "VOCtrainval_11-May-2012.tar" in message and "by hand" in message


def test_training_sees_tiles_and_evaluation_whole_photographs_one_by_one(tmp_path):
    pytest.importorskip("torchvision")
    write(tmp_path)
    data = module(tmp_path)
    assert data.splits == ("train", "val")
    data.setup()
    for images, masks in data.batches("train", 0):
        assert images.shape == (2, 3, 32, 32) and images.dtype == torch.float32
        assert masks.shape == (2, 32, 32) and masks.dtype == torch.int64
    shapes = [tuple(images.shape) for images, _ in data.batches("val", 0)]
    assert shapes == [(1, 3, 37, 50), (1, 3, 45, 24)]
    sizes = {"num_classes": 21, "in_channels": 3, "image_size": 32}
    assert data.facts() == sizes | {"class_names": list(VOCSegmentation.class_names)}


def test_what_a_tile_shows_beyond_its_image_is_black_and_ignored(tmp_path):
    pytest.importorskip("torchvision")
    write(tmp_path)
    data = module(tmp_path, tile_size=70, flips="none", batch_size=4)
    data.setup()
    ((images, masks),) = data.batches("train", 0)
    black = data.normalize(torch.zeros(1, 3, 1, 1))
    for number, image, mask in zip(data.loaders["train"].indices(0, 0), images, masks, strict=True):
        width, height = SIZES["train"][number]
        assert (mask == 255).sum() == 70 * 70 - width * (height - 1)
        outside = (image == black[0]).all(0)
        assert 70 * 70 - width * height <= outside.sum() <= 70 * 70 - width * height + 2


def test_tiles_differ_by_epoch_but_not_by_workers_or_start(tmp_path):
    pytest.importorskip("torchvision")
    write(tmp_path)
    data = [module(tmp_path, num_workers=workers, jitter=0.2, flips="all") for workers in (0, 2)]
    for each in data:
        each.setup(seed=1)
    whole = list(data[0].batches("train", 1))
    for start in (0, 1):
        for batch, expected in zip(data[1].batches("train", 1, start), whole[start:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True))
    assert not torch.equal(next(data[0].batches("train", 2))[1], whole[0][1])
    data[1].loaders["train"].close()


def test_a_listed_image_that_is_missing_is_named(tmp_path):
    pytest.importorskip("torchvision")
    folder = write(tmp_path)
    (folder / "SegmentationClass" / "2007_val_1.png").unlink()
    with pytest.raises(DataError, match=r"2007_val_1\.png is missing, though it is listed for val"):
        module(tmp_path).setup()


def test_a_mask_with_a_number_of_no_class_is_named(tmp_path):
    pytest.importorskip("torchvision")
    folder = write(tmp_path)
    Image.new("L", (50, 37), 33).save(folder / "SegmentationClass" / "2007_val_0.png")
    data = module(tmp_path)
    data.setup()
    with pytest.raises(DataError, match=r"2007_val_0\.png holds the value 33, but only 0, 1"):
        next(data.batches("val", 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"tile_size": 0}, "tile_size must be at least 1, not 0"),
        ({"flips": "some"}, "flips must be 'none', 'horizontal' or 'all', not 'some'"),
        ({"jitter": -1}, r"jitter must be in \[0, 1\], not -1"),
        ({"num_workers": -1}, "num_workers must not be negative, not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        VOCSegmentation(**settings)
