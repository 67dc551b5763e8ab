import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.images.mnist import MNIST, FashionMNIST, read_idx

COUNTS = {"train": 60, "t10k": 20}


def idx(values):
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(
        f">{values.ndim}I", *values.shape
    )
    return header + values.astype(np.uint8).tobytes()


def raw_files():
    generator = np.random.default_rng(0)
    files = {}
    for part, count in COUNTS.items():
        files[f"{part}-images-idx3-ubyte"] = idx(generator.integers(0, 256, (count, 28, 28)))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(count) % 10)
    return files


@pytest.fixture
def small(monkeypatch):
    """Small files in the real format, known to our checksums and to torchvision's."""
    files = raw_files()
    packed = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}

    def md5(content):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    monkeypatch.setattr(MNIST, "checksums", {name: md5(c) for name, c in files.items()})
    datasets = pytest.importorskip("torchvision.datasets")
    for dataset in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(dataset, "resources", [(name, md5(c)) for name, c in packed.items()])
    return files, packed


def lay_out(root, files, name="MNIST"):
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize("make", [MNIST, FashionMNIST])
@pytest.mark.parametrize("by_mirror", [True, False])
def test_it_downloads_through_torchvision_once(make, by_mirror, small, web, tmp_path, monkeypatch):
    import torchvision

    _, packed = small
    for name, content in packed.items():
        (web.folder / name).write_bytes(content)
    root = tmp_path / "data"
    dataset_class = getattr(torchvision.datasets, make.__name__)
    monkeypatch.setattr(dataset_class, "mirrors", [web.url + "/"] if not by_mirror else [])
    mirror = web.url if by_mirror else None
    make(root=str(root), mirror=mirror, val_size=10).setup()
    assert {f"/{name}" for name in packed} == set(web.requests)
    web.requests.clear()
    module = make(root=str(root), mirror=mirror, val_size=10, batch_size=16)
    module.setup()
    assert web.requests == []
    assert {s: module.loaders[s].num_samples for s in module.splits} == {
        "train": 50,
        "val": 10,
        "test": 20,
    }
    expected = dataset_class(str(root), train=False)
    images = torch.cat([images for images, _ in module.batches("test", 0)])
    labels = torch.cat([labels for _, labels in module.batches("test", 0)])
    torch.testing.assert_close(images, module.normalize(expected.data.unsqueeze(1)))
    assert torch.equal(labels, expected.targets)


def test_without_a_connection_one_sentence_says_what_to_do(small, dead_url, tmp_path):
    with pytest.raises(DataError) as caught:
        MNIST(root=str(tmp_path), mirror=dead_url).setup()
    message = str(caught.value)
    assert "train-images-idx3-ubyte" in message and dead_url in message
    assert str(tmp_path / "MNIST" / "raw") in message and "by hand" in message
    assert "\n" not in message


def test_a_file_that_is_not_what_it_was_is_named(small, tmp_path):
    folder = lay_out(tmp_path, small[0])
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is damaged or another file"):
        MNIST(root=str(tmp_path), val_size=10).setup()


def test_a_file_without_known_checksum_that_is_cut_short_is_named(small, tmp_path):
    folder = lay_out(tmp_path, small[0], "FashionMNIST")
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is not a whole IDX file"):
        FashionMNIST(root=str(tmp_path), val_size=10).setup()


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x08", b"\x00\x00\x0d\x01\x00\x00\x00\x00", b"no"]
)
def test_what_is_no_idx_file_is_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="not a whole IDX file"):
        read_idx(tmp_path / "file")


def test_pixels_are_drawn_anew_in_training_and_once_elsewhere(small, tmp_path):
    lay_out(tmp_path, small[0])
    modules = {
        (kind, seed): MNIST(
            root=str(tmp_path), val_size=10, batch_size=60, scaling="unit", binarize=kind
        )
        for kind, seed in (("dynamic", 0), ("dynamic", 1), ("static", 0))
    }
    for (_, seed), module in modules.items():
        module.setup(seed=seed)
    first, *others = (next(m.batches("test", 0))[0] for m in modules.values())
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert all(torch.equal(first, other) for other in others)
    dynamic = modules["dynamic", 0]
    (one, labels), (two, same) = (next(dynamic.batches("train", e)) for e in (0, 1))
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(one[labels.argsort()].sum(0), two[same.argsort()].sum(0))


@pytest.mark.parametrize("make", [MNIST, FashionMNIST])
def test_splits_are_stratified_padded_and_augmented_in_training_only(make, small, tmp_path):
    lay_out(tmp_path, small[0], make.__name__)
    modules = [
        make(root=str(tmp_path), val_size=10, batch_size=60, padding=2, augment=augment)
        for augment in (False, True)
    ]
    for module in modules:
        module.setup()
    (val, val_labels), (same, _) = (next(m.batches("val", 0)) for m in modules)
    assert torch.equal(val, same) and val.shape == (10, 1, 32, 32)
    assert val_labels.sort().values.tolist() == list(range(10))
    black = modules[0].normalize(torch.zeros(1, 1, 1, 1)).item()
    torch.testing.assert_close(val[:, :, :2], torch.full((10, 1, 2, 32), black))
    (plain, labels), (changed, same_labels) = (next(m.batches("train", 0)) for m in modules)
    assert torch.equal(labels, same_labels) and changed.shape == plain.shape
    assert (plain != changed).flatten(1).any(1).sum() > 40
    assert modules[0].facts()["image_size"] == 32


def test_augmentation_can_be_named_and_mixed(small, tmp_path):
    lay_out(tmp_path, small[0])

    def batch(**settings):
        module = MNIST(root=str(tmp_path), val_size=10, batch_size=50, **settings)
        module.setup()
        return next(module.batches("train", 0))

    assert torch.equal(batch(augment=True)[0], batch(augment="affine")[0])
    assert torch.equal(batch(augment=False)[0], batch(augment="none")[0])
    images, targets = batch(augment="randaugment", mixup=0.2)
    assert images.shape == (50, 1, 28, 28) and targets.shape == (50, 10)
    (plain, labels), (mixed, targets) = batch(), batch(cutmix=1.0)
    assert targets.argmax(1).eq(labels).any() and not torch.equal(plain, mixed)


def test_a_image_is_prepared_as_the_data_are_without_setup(small, tmp_path):
    lay_out(tmp_path, small[0])
    module = MNIST(root=str(tmp_path), val_size=10, padding=2)
    module.setup()
    image = next(module.batches("test", 0))[0][3]
    pixels = read_idx(tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte")[3]
    file = Image.fromarray(pixels.numpy())
    torch.testing.assert_close(MNIST(padding=2).preprocess(file), image)
    assert MNIST().preprocess(file.resize((90, 60)).convert("RGB")).shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"padding": -1}, "padding must not be negative, not -1"),
        ({"val_size": 0}, "val_size must be at least 1, not 0"),
        ({"augment": "alexnet"}, "augment=alexnet needs images in colour"),
        ({"augment": "x"}, "augment must be one of none, .* not 'x'"),
        ({"mixup": -1}, r"mixup must be 0 \(none\) or greater, not -1"),
        ({"scaling": "x"}, "scaling must be 'standard', 'symmetric' or 'unit', not 'x'"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        MNIST(**settings)


def test_more_validation_images_than_there_are_is_refused(small, tmp_path):
    lay_out(tmp_path, small[0])
    with pytest.raises(ValueError, match=r"val_size must be less than the 60 .* not 60"):
        MNIST(root=str(tmp_path), val_size=60).setup()


@pytest.mark.data
def test_real_mnist_has_its_published_sizes_and_statistics(data_dir):
    if not (data_dir / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {data_dir}")
    module = MNIST(root=str(data_dir), batch_size=10_000)
    module.setup()
    counts = {split: module.loaders[split].num_samples for split in module.splits}
    assert counts == {"train": 55_000, "val": 5_000, "test": 10_000}
    ((_, labels),) = module.batches("test", 0)
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    train = torch.cat([images for images, _ in module.batches("train", 0)])
    assert abs(train.mean()) < 0.005 and abs(train.std() - 1) < 0.005
    ((_, val_labels),) = module.batches("val", 0)
    assert (
        val_labels.bincount() / 5000
        - torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 60_000
    ).abs().max() < 1e-3
