import os
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.images import from_files
from zoo.data.images.base import fit_square
from zoo.data.images.image_folder import ImageFolder
from zoo.data.images.reading import STREAMED, ImageFiles
from zoo.data.loading.stream import StreamLoader
from zoo.data.loading.tensor import TensorLoader

CLASSES = ("cat", "dog", "newt")


def draw(folder, counts, size=(12, 10), suffix="png", mode="RGB"):
    generator = np.random.default_rng(len(str(folder)))
    for name, count in zip(CLASSES, counts, strict=False):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{i:02}.{suffix}")
    return folder


def module(folder, **changes):
    settings = {"image_size": 8, "batch_size": 4, "num_workers": 0}
    return ImageFolder(str(folder), **(settings | changes))


def same(first, second):
    return all(
        torch.equal(a, b) and a.stride() == b.stride()
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_class_folders_are_divided_disjointly_completely_and_stratified(tmp_path):
    data = module(draw(tmp_path / "pets", (20, 40, 20)), val_fraction=0.25, test_fraction=0.25)
    assert data.splits == ("train", "val", "test")
    data.setup()
    counts = {split: data.loaders[split].num_samples for split in data.splits}
    assert counts == {"train": 40, "val": 20, "test": 20}
    for split, expected in (("train", [10, 20, 10]), ("val", [5, 10, 5]), ("test", [5, 10, 5])):
        labels = torch.cat([labels for _, labels in data.batches(split, 0)])
        assert (labels.bincount() - torch.tensor(expected)).abs().max() <= 1
    seen = torch.cat([images for s in data.splits for images, _ in data.batches(s, 0)])
    assert len(seen.flatten(1).unique(dim=0)) == 80
    assert data.resolved() == {"class_names": list(CLASSES)}
    assert data.facts() == {
        "num_classes": 3,
        "class_names": list(CLASSES),
        "in_channels": 3,
        "image_size": 8,
        "in_features": 192,
        "pixel_mean": [0.485, 0.456, 0.406],
        "pixel_std": [0.229, 0.224, 0.225],
    }


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
        draw(tmp_path / name, (10, 10))
    data = module(tmp_path)
    assert data.splits == splits
    data.setup()
    assert tuple(data.loaders) == splits
    taken = 0 if "val" in present else 2
    assert data.loaders["train"].num_samples == 20 - taken
    assert data.loaders["val"].num_samples == (20 if "val" in present else 2)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("augment", ["none", "crop_flip", "randaugment"])
def test_in_memory_and_streamed_batches_are_the_same(augment, in_channels, tmp_path):
    draw(tmp_path, (7, 8))
    both = [
        module(tmp_path, augment=augment, in_channels=in_channels, in_memory=in_memory)
        for in_memory in (True, False)
    ]
    for data in both:
        data.setup(seed=3)
    assert isinstance(both[0].loaders["train"], TensorLoader)
    assert isinstance(both[1].loaders["train"], StreamLoader)
    for split in both[0].splits:
        assert same(*(data.batches(split, 2) for data in both))


@pytest.mark.parametrize("preset", STREAMED)
def test_resized_crops_differ_by_epoch_and_sample_but_not_by_workers(preset, tmp_path):
    pytest.importorskip("torchvision")
    draw(tmp_path, (6, 6))
    settings = {"augment": preset, "in_memory": "auto"}
    data = [module(tmp_path, num_workers=workers, **settings) for workers in (0, 2)]
    for each in data:
        each.setup()
        assert isinstance(each.loaders["train"], StreamLoader)
    assert same(data[0].batches("train", 1), data[1].batches("train", 1))
    orders = [data[0].loaders["train"].indices(epoch, 0) for epoch in (1, 2)]
    first, second = (next(data[0].batches("train", epoch))[0] for epoch in (1, 2))
    for i in set(orders[0]) & set(orders[1]):
        assert not torch.equal(first[orders[0].index(i)], second[orders[1].index(i)])
    assert same(data[0].batches("val", 0), data[0].batches("val", 1))
    data[1].loaders["train"].close()


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_are_mixed_with_their_labels_and_colours_taken_from_the_data(in_memory, tmp_path):
    draw(tmp_path, (7, 8))
    data = module(tmp_path, augment="alexnet", mixup=0.2, cutmix=1.0, in_memory=in_memory)
    data.setup()
    for images, targets in data.batches("train", 0):
        assert targets.shape == (len(images), 2)
        torch.testing.assert_close(targets.sum(1), torch.ones(len(images)))
    assert next(data.batches("val", 0))[1].dtype == torch.int64


@pytest.mark.parity
@pytest.mark.parametrize("size", [(40, 30), (31, 57), (24, 24), (9, 8)])
def test_evaluation_cuts_out_the_middle_as_torchvision_does(size, tmp_path):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    draw(tmp_path, (4, 4), size=size)
    data = module(tmp_path, resize=11)
    prepare = v2.Compose([v2.Resize(11), v2.CenterCrop(8), v2.PILToTensor()])
    with Image.open(tmp_path / "cat" / "00.png") as image:
        expected = data.normalize(prepare(image).unsqueeze(0))[0]
        torch.testing.assert_close(data.preprocess(image), expected)


def test_auto_streams_what_does_not_fit(tmp_path, monkeypatch):
    draw(tmp_path, (5, 5))
    data = module(tmp_path)
    data.setup()
    assert isinstance(data.loaders["train"], TensorLoader)
    monkeypatch.setattr(from_files, "MEMORY_LIMIT", 10 * 3 * 64 - 1)
    data.setup()
    assert isinstance(data.loaders["train"], StreamLoader)
    monkeypatch.setattr(from_files, "MEMORY_LIMIT", 10 * 3 * 64)
    monkeypatch.setattr(from_files, "available_memory", lambda device: 4 * 10 * 3 * 64 - 4)
    data.setup()
    assert isinstance(data.loaders["train"], StreamLoader)


def test_images_are_the_centred_square_of_the_file_normalised(tmp_path):
    draw(tmp_path / "train", (1, 1), size=(8, 12))
    draw(tmp_path / "val", (1, 1), size=(8, 12))
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    data = module(tmp_path, mean=mean, std=std)
    data.setup()
    with Image.open(tmp_path / "val" / "dog" / "00.png") as image:
        pixels = torch.from_numpy(np.array(image)[2:10])  # (8, 8, 3)
        expected = ((pixels / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)
        ((images, labels),) = data.batches("val", 0)
        assert labels.tolist() == [0, 1]
        torch.testing.assert_close(images[1], expected)
        torch.testing.assert_close(module(tmp_path, mean=mean, std=std).preprocess(image), expected)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("jpg", "L"), ("PNG", "RGBA"), ("gif", "P"), ("bmp", "1")]
)
def test_files_of_many_kinds_are_read_as_colour_or_grey(suffix, mode, tmp_path):
    draw(tmp_path, (4, 4), suffix=suffix, mode=mode)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    for in_channels in (1, 3):
        data = module(tmp_path, in_channels=in_channels)
        data.setup()
        images, _ = next(data.batches("train", 0))
        assert images.shape[1:] == (in_channels, 8, 8) and images.dtype == torch.float32


def test_many_large_files_are_read_by_several_threads_into_their_places(tmp_path):
    draw(tmp_path, (5, 5), size=(120, 120))
    fast, slow = module(tmp_path, in_memory=True), module(tmp_path, in_memory=False)
    for data in (fast, slow):
        data.setup()
    assert same(fast.batches("train", 0), slow.batches("train", 0))


def test_class_names_of_the_run_give_the_labels_and_must_be_those_of_the_folder(tmp_path):
    draw(tmp_path, (4, 8, 4))
    data = module(tmp_path, class_names=["newt", "dog", "cat"], val_fraction=0.25)
    assert data.facts()["num_classes"] == 3
    data.setup()
    labels = torch.cat([labels for _, labels in data.batches("train", 0)])
    assert labels.bincount().argmax() == 1 and data.resolved()["class_names"][0] == "newt"
    with pytest.raises(DataError, match="holds the classes cat, dog, newt, not cat, emu"):
        module(tmp_path, class_names=["cat", "emu"]).setup()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder: name one that holds"):
        ImageFolder("nowhere", root=str(tmp_path)).setup()


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        module(tmp_path).setup()


# ------------------------------------------------------------------- one class, or none


def test_images_without_class_folders_have_no_classes(tmp_path):
    draw(tmp_path, (20,))
    data = module(tmp_path / "cat")
    data.setup()
    assert "num_classes" not in data.facts() and "class_names" not in data.facts()
    assert data.facts()["image_size"] == 8
    assert "holds images, but no folder for each class" in data.lacks()["num_classes"]
    assert data.notes[0].endswith("16 train, 2 val, 2 test; in train: no classes")
    again = module(tmp_path / "cat", **data.resolved())
    again.setup()
    assert same(again.batches("train", 0), data.batches("train", 0))


def test_one_folder_is_no_classification_and_the_level_is_named(tmp_path):
    draw(tmp_path / "up" / "pets", (10, 10))
    data = module(tmp_path / "up")
    data.setup()
    assert "num_classes" not in data.facts()
    said = rf"one folder, pets, .* \(cat, dog\) are the classes, set data.folder={tmp_path}/up/pets"
    assert re.search(said, data.lacks()["class_names"])
    below = module(tmp_path / "up" / "pets")
    below.setup()
    assert below.facts()["num_classes"] == 2 and below.lacks() == {}
    draw(tmp_path / "one", (20,))
    single = module(tmp_path / "one")
    single.setup()
    assert "holds one class, cat, and at least 2" in single.lacks()["num_classes"]


# -------------------------------------------------------------- splits by their usual names


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("training", "validation", "test"), ("train", "val", "test")),
        (("Train", "Val"), ("train", "val")),
        (("train_set", "valid_set", "test_set"), ("train", "val", "test")),
        (("train2017", "val2017"), ("train", "val")),
        (("TRAINING-IMAGES", "dev"), ("train", "val")),
        (("train", "valid"), ("train", "val")),
    ],
)
def test_split_folders_are_known_in_their_usual_spellings(names, splits, tmp_path):
    for name in names:
        draw(tmp_path / name, (3, 3))
    data = module(tmp_path)
    assert data.splits == splits
    data.setup()
    assert data.class_names == ("cat", "dog")
    assert all(data.loaders[split].num_samples == 6 for split in splits)
    for name, split in zip(names, splits, strict=True):
        assert name == split or f"6 {split} ({name})" in data.notes[0]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("test", "cat"), r"holds test, which looks like a split, but no folder train"),
        (("val", "Test"), r"holds (Test|val), which looks like a split, but no folder train"),
        (("train", "training"), r"holds train and training, which could both be train"),
        (("train", "bus", "car"), r"holds train, .* beside it images in bus"),
        (("train/cat", "train/test"), r"train/test looks like a split where a class should be"),
        (("cat/train", "dog/train"), r"cat/train looks like a split, but it is within what would"),
        (("pets/train/cat", "pets/val/cat"), r"pets/(train|val) .*: set data.folder to the folder"),
    ],
)
def test_what_looks_like_a_split_where_it_cannot_be_is_refused(folders, said, tmp_path):
    for name in folders:
        draw(tmp_path / name, (6,))
    with pytest.raises(DataError, match=said):
        module(tmp_path).setup()


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 elsewhere")
def test_names_that_are_not_utf8_are_read_and_as_classes_refused(tmp_path):
    draw(tmp_path, (9, 9))
    (tmp_path / "cat" / "00.png").rename(tmp_path / "cat" / os.fsdecode(b"caf\xe9.png"))
    data = module(tmp_path)
    data.setup()
    assert data.loaders["train"].num_samples == 14
    (tmp_path / "dog").rename(tmp_path / os.fsdecode(b"d\xf6g"))
    with pytest.raises(DataError, match=r"d\\xf6g is a class whose name is not UTF-8, .*rename"):
        module(tmp_path).setup()


def test_class_names_and_splits_say_what_is_meant(tmp_path):
    draw(tmp_path / "road", (9, 9))
    (tmp_path / "road" / "dog").rename(tmp_path / "road" / "train")
    data = module(tmp_path / "road", class_names=["cat", "train"])
    data.setup()
    assert data.splits == ("train", "val", "test") and data.loaders["train"].num_samples == 14
    for name in ("one", "two"):
        draw(tmp_path / name, (4, 4))
    data = module(tmp_path, splits={"train": "one", "val": "two"})
    assert data.splits == ("train", "val")
    data.setup()
    assert [loader.num_samples for loader in data.loaders.values()] == [8, 8]
    whole = module(tmp_path / "road", splits={"train": "."})
    whole.setup()
    assert whole.class_names == ("cat", "train")
    with pytest.raises(DataError, match=r"three is not a folder, but splits.val names it"):
        module(tmp_path, splits={"train": "one", "val": "three"}).setup()


def test_hidden_things_are_skipped_and_counted(tmp_path):
    draw(tmp_path, (10, 10))
    plain = module(tmp_path)
    plain.setup()
    assert plain.notes == [f"images of {tmp_path}: 16 train, 2 val, 2 test; in train: cat 8, dog 8"]
    draw(tmp_path / "__MACOSX", (3,))
    draw(tmp_path / ".ipynb_checkpoints", (3,))
    (tmp_path / "cat" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "cat" / ".ipynb_checkpoints" / "00.png").write_bytes(b"old")
    (tmp_path / "cat" / "._00.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "dog" / "a.heic").write_bytes(b"")
    data = module(tmp_path)
    data.setup()
    assert same(data.batches("train", 0), plain.batches("train", 0))
    assert data.notes[1] == "not read: 3 hidden, 1 .heic"


def test_a_class_without_images_is_named(tmp_path):
    draw(tmp_path, (3, 0))
    with pytest.raises(DataError, match="dog holds no images"):
        module(tmp_path).setup()


def test_a_class_in_val_that_training_lacks_is_named(tmp_path):
    draw(tmp_path / "train", (3, 3))
    draw(tmp_path / "val", (3, 3, 3))
    with pytest.raises(DataError, match="val holds the class 'newt', which the training images"):
        module(tmp_path).setup()


def test_too_few_images_to_divide_are_told(tmp_path):
    draw(tmp_path, (1, 1))
    with pytest.raises(DataError, match=r"too few samples \(2\) to set some aside for val"):
        module(tmp_path).setup()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("content", [b"no image", b""])
def test_an_unreadable_image_is_named(content, in_memory, tmp_path):
    draw(tmp_path / "train", (3, 3))
    draw(tmp_path / "val", (3, 3))
    (tmp_path / "train" / "dog" / "01.png").write_bytes(content)
    data = module(tmp_path, in_memory=in_memory)
    with pytest.raises(DataError, match=r"dog/01\.png cannot be read as an image"):
        data.setup()
        list(data.batches("train", 0))


def test_a_image_cut_short_is_named(tmp_path):
    draw(tmp_path, (9, 9))
    path = tmp_path / "cat" / "03.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cat/03\.png cannot be read as an image"):
        module(tmp_path, in_memory=True).setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"resize": 7}, "resize must be at least image_size = 8, not 7"),
        ({"cutmix": -1}, "cutmix must be 0 .* not -1"),
        ({"augment": "alexnet", "in_channels": 1}, "augment=alexnet needs images in colour"),
        ({"image_size": 0}, "image_size must be at least 1, not 0"),
        ({"in_channels": 2}, "in_channels must be 1 or 3, not 2"),
        ({"augment": "flop"}, "augment must be one of none, .*resized_crop_flip, .* not 'flop'"),
        ({"in_memory": "yes"}, "in_memory must be 'auto', true or false, not 'yes'"),
        ({"in_memory": True, "augment": "resized_crop_flip"}, "in_memory must not be true with"),
        ({"splits": {"val": "a"}}, "splits must be auto or name a folder for train"),
        ({"splits": {"train": "a", "dev": "b"}}, "splits must be auto or name a folder for train"),
        ({"num_workers": -1}, "num_workers must not be negative, not -1"),
        ({"val_fraction": 0}, "val_fraction must be between 0 and 1, not 0"),
        ({"test_fraction": 0.9}, r"test_fraction must be in \[0, 0.9\), .* not 0.9"),
        ({"mean": [0.5], "std": [0.5]}, "mean must have in_channels = 3 values"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        module("x", **settings)


def test_the_image_of_a_file_is_the_same_by_either_way_of_reading(tmp_path):
    draw(tmp_path, (4, 4))
    path = tmp_path / "cat" / "00.png"
    with Image.open(path) as image:
        expected = fit_square(image, 8, in_channels=3, crop=True)
    files = ImageFiles([(str(path), 0)], image_size=8, in_channels=3)
    assert torch.equal(files[0][0], expected.permute(2, 0, 1))


@pytest.mark.data
def test_real_cifar_images_are_read(data_dir):
    if not (data_dir / "cifar10_images").is_dir():
        pytest.skip(f"no cifar10_images in {data_dir}")
    data = ImageFolder("cifar10_images", root=str(data_dir), in_memory=False, num_workers=0)
    data.setup()
    counts = {split: data.loaders[split].num_samples for split in data.splits}
    assert counts == {"train": 45_000, "val": 5_000, "test": 10_000}
    images, labels = next(data.batches("train", 0))
    assert images.shape == (128, 3, 32, 32) and data.class_names[0] == "airplane"
    assert abs(images.mean()) < 0.3 and labels.max() == 9


@pytest.mark.parametrize("balance", ["undersample", "oversample"])
def test_classes_come_equally_often_in_memory_and_streamed_alike(balance, tmp_path):
    folder = draw(tmp_path / "pets", (30, 10, 4))
    loaded, streamed = (
        module(folder, balance=balance, in_memory=in_memory, test_fraction=0.25)
        for in_memory in (True, False)
    )
    for data in (loaded, streamed):
        data.setup()
    train = [list(data.batches("train", 3)) for data in (loaded, streamed)]
    assert same(*train)
    counts = torch.cat([labels for _, labels in train[0]]).bincount()
    assert len(set(counts.tolist())) == 1
    plain = module(folder, test_fraction=0.25)
    plain.setup()
    assert same(*(list(data.batches("test", 0)) for data in (plain, loaded)))
