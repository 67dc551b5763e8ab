import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.images.cifar import CIFAR10, CIFAR100


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def batch_files(make, count=40):
    """Small files in the official format, by name."""
    generator = np.random.default_rng(0)
    classes = len(make.class_names)
    key = "labels" if make is CIFAR10 else "fine_labels"

    def batch(first):
        pixels = generator.integers(0, 256, (count, 3072)).astype(np.uint8)
        return pickle.dumps({"data": pixels, key: [(first + i) % classes for i in range(count)]})

    meta = pickle.dumps({"label_names": [], "fine_label_names": []})
    if make is CIFAR10:
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        return {**{name: batch(i) for i, name in enumerate(names)}, "batches.meta": meta}
    return {"train": batch(0), "test": batch(1), "meta": meta}


@pytest.fixture(params=[CIFAR10, CIFAR100])
def small(request, monkeypatch):
    """The class, torchvision's, and small files in the official format that torchvision takes."""
    datasets = pytest.importorskip("torchvision.datasets")
    make = request.param
    theirs = getattr(datasets, make.__name__)
    files = batch_files(make)
    *batches, meta = files
    listed = [[name, md5(files[name])] for name in batches]
    monkeypatch.setattr(theirs, "train_list", listed[:-1])
    monkeypatch.setattr(theirs, "test_list", listed[-1:])
    monkeypatch.setattr(theirs, "meta", theirs.meta | {"filename": meta, "md5": md5(files[meta])})
    return make, theirs, files


def lay_out(root, theirs, files):
    folder = root / theirs.base_folder
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def draw(folder, counts, suffix="png", size=(32, 32)):
    generator = np.random.default_rng(1)
    for split, count in counts.items():
        for name in CIFAR10.class_names:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (*size, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i:02}.{suffix}")


def counts(module):
    return {split: module.loaders[split].num_samples for split in module.splits}


def test_official_files_are_read_as_torchvision_reads_them(small, tmp_path):
    make, theirs, files = small
    lay_out(tmp_path, theirs, files)
    module = make(root=str(tmp_path), val_size=10, batch_size=16)
    module.setup()
    train = theirs(str(tmp_path), train=True)
    assert counts(module) == {"train": len(train) - 10, "val": 10, "test": 40}
    expected = theirs(str(tmp_path), train=False)
    images = torch.cat([images for images, _ in module.batches("test", 0)])
    pixels = torch.from_numpy(expected.data).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, module.normalize(pixels))
    labels = torch.cat([labels for _, labels in module.batches("test", 0)])
    assert labels.tolist() == expected.targets
    seen = [images for split in ("train", "val") for images, _ in module.batches(split, 0)]
    assert len(torch.cat(seen).flatten(1).unique(dim=0)) == len(train)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_it_downloads_through_torchvision_once(small, web, tmp_path, monkeypatch):
    make, theirs, files = small
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{theirs.base_folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (web.folder / theirs.filename).write_bytes(packed.getvalue())
    monkeypatch.setattr(theirs, "url", f"{web.url}/{theirs.filename}")
    monkeypatch.setattr(theirs, "tgz_md5", md5(packed.getvalue()))
    for _ in range(2):
        make(root=str(tmp_path / "data"), val_size=10).setup()
    assert set(web.requests) == {f"/{theirs.filename}"}
    web.requests.clear()
    make(root=str(tmp_path / "data"), val_size=10).setup()
    assert web.requests == []


def test_without_a_connection_one_sentence_says_what_to_do(small, dead_url, tmp_path, monkeypatch):
    make, theirs, _ = small
    monkeypatch.setattr(theirs, "url", f"{dead_url}/{theirs.filename}")
    with pytest.raises(DataError) as caught:
        make(root=str(tmp_path)).setup()
    message = str(caught.value)
    assert f"{make.__name__} not found in {tmp_path}" in message
    assert dead_url in message and "by hand" in message and "\n" not in message


def test_a_damaged_file_is_downloaded_again_or_told(small, dead_url, tmp_path, monkeypatch):
    make, theirs, files = small
    folder = lay_out(tmp_path, theirs, files)
    path = folder / theirs.test_list[0][0]
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    monkeypatch.setattr(theirs, "url", f"{dead_url}/{theirs.filename}")
    with pytest.raises(DataError, match=f"{make.__name__} not found"):
        make(root=str(tmp_path)).setup()


def test_class_folders_stand_for_the_official_files(tmp_path):
    draw(tmp_path / "copy", {"train": 4, "test": 2})
    module = CIFAR10(root=str(tmp_path), folder="copy", val_size=10, batch_size=100)
    module.setup()
    assert counts(module) == {"train": 30, "val": 10, "test": 20}
    ((_, val_labels),) = module.batches("val", 0)
    assert val_labels.sort().values.tolist() == list(range(10))
    ((images, labels),) = module.batches("test", 0)
    assert labels.bincount().tolist() == [2] * 10
    for name in ("cat", "ship"):
        for i in range(2):
            with Image.open(tmp_path / "copy" / "test" / name / f"{i:02}.png") as image:
                expected = module.preprocess(image)
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)
            torch.testing.assert_close(module.normalize(pixels)[0], expected)
            (place,) = (images == expected).flatten(1).all(1).nonzero().flatten().tolist()
            assert module.class_names[labels[place]] == name


def test_the_first_images_of_an_evaluation_show_many_classes(tmp_path):
    draw(tmp_path / "copy", {"train": 20, "test": 20})
    modules = [
        CIFAR10(root=str(tmp_path), folder="copy", val_size=100, batch_size=20) for _ in range(2)
    ]
    for seed, module in enumerate(modules):
        module.setup(seed=seed)
    for split in ("val", "test"):
        (_, labels), (_, again) = (next(module.batches(split, 0)) for module in modules)
        assert len(labels.unique()) > 5 and torch.equal(labels, again)


def test_missing_folders_and_classes_are_named(tmp_path):
    with pytest.raises(DataError, match="copy/train is not a folder: put the images into"):
        CIFAR10(root=str(tmp_path), folder="copy").setup()
    draw(tmp_path / "copy", {"train": 1, "test": 1})
    for path in (tmp_path / "copy" / "test" / "frog").iterdir():
        path.unlink()
    (tmp_path / "copy" / "test" / "frog").rmdir()
    with pytest.raises(DataError, match="test lacks the class 'frog'"):
        CIFAR10(root=str(tmp_path), folder="copy").setup()


@pytest.mark.parametrize("augment", ["crop_flip", "alexnet", "randaugment", "crop_flip_erase"])
def test_only_training_images_are_augmented_and_mixed(augment, tmp_path):
    draw(tmp_path / "copy", {"train": 3, "test": 1})
    settings = {"root": str(tmp_path), "folder": "copy", "val_size": 10, "batch_size": 20}
    plain = CIFAR10(**settings)
    changed = CIFAR10(**settings, augment=augment, mixup=0.2, cutmix=1.0)
    for module in (plain, changed):
        module.setup(seed=3)
    for split in ("val", "test"):
        for first, second in zip(plain.batches(split, 0), changed.batches(split, 0), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    ((images, _),), ((others, targets),) = (m.batches("train", 0) for m in (plain, changed))
    assert (images != others).flatten(1).any(1).all()
    assert targets.shape == (20, 10) and targets.is_floating_point()


def test_facts_are_known_without_the_data():
    assert CIFAR10().facts() == {
        "num_classes": 10,
        "class_names": list(CIFAR10.class_names),
        "in_channels": 3,
        "image_size": 32,
        "in_features": 3072,
        "pixel_mean": [0.4914, 0.4822, 0.4465],
        "pixel_std": [0.2470, 0.2435, 0.2616],
    }
    names = CIFAR100().class_names
    assert len(names) == 100 and list(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"val_size": 0}, "val_size must be at least 1, not 0"),
        ({"augment": "flop"}, "augment must be one of none, .* not 'flop'"),
        ({"mixup": -1}, r"mixup must be 0 \(none\) or greater, not -1"),
        ({"cutmix": -1}, r"cutmix must be 0 \(none\) or greater, not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        CIFAR10(**settings)


def test_more_validation_images_than_there_are_is_refused(tmp_path):
    draw(tmp_path / "copy", {"train": 1, "test": 1})
    with pytest.raises(ValueError, match="val_size must be less than the 10 training images"):
        CIFAR10(root=str(tmp_path), folder="copy", val_size=10).setup()


@pytest.mark.data
def test_the_real_images_have_the_published_sizes_and_statistics(data_dir):
    if not (data_dir / "cifar10_images").is_dir():
        pytest.skip(f"no cifar10_images in {data_dir}")
    module = CIFAR10(root=str(data_dir), folder="cifar10_images", batch_size=5000)
    module.setup()
    assert counts(module) == {"train": 45_000, "val": 5_000, "test": 10_000}
    ((_, labels),) = module.batches("val", 0)
    assert labels.bincount().tolist() == [500] * 10
    means, squares = zip(
        *[(x.mean((0, 2, 3)), x.square().mean((0, 2, 3))) for x, _ in module.batches("train", 0)],
        strict=True,
    )
    assert torch.stack(means).mean(0).abs().max() < 0.01
    assert (torch.stack(squares).mean(0) - 1).abs().max() < 0.02


@pytest.mark.parametrize(("scaling", "low"), [("symmetric", -1.0), ("unit", 0.0)])
def test_values_of_every_channel_are_scaled_as_generative_models_want_them(
    small, tmp_path, scaling, low
):
    make, theirs, files = small
    lay_out(tmp_path, theirs, files)
    module = make(root=str(tmp_path), val_size=10, batch_size=40, scaling=scaling)
    module.setup()
    ((images, _),) = module.batches("test", 0)
    pixels = torch.from_numpy(theirs(str(tmp_path), train=False).data).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(images, low + (1 - low) * pixels)
    with pytest.raises(ValueError, match="scaling must be 'standard', 'symmetric' or 'unit'"):
        make(root=str(tmp_path), scaling="half")
