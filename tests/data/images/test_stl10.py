import hashlib

import numpy as np
import pytest
import torch

from zoo.data.download import DataError
from zoo.data.images.stl10 import STL10


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Small files in the official format, known to torchvision."""
    datasets = pytest.importorskip("torchvision.datasets")
    generator = np.random.default_rng(0)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()

    def write(name, values):
        path = folder / name
        path.write_bytes(values.astype(np.uint8).tobytes())
        return [name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()]

    def pixels(count):
        return generator.integers(0, 256, (count, 3, 96, 96))

    train = [
        write("train_X.bin", pixels(30)),
        write("train_y.bin", np.arange(30) % 10 + 1),
        write("unlabeled_X.bin", pixels(2)),
    ]
    test = [write("test_X.bin", pixels(20)), write("test_y.bin", np.arange(20) % 10 + 1)]
    monkeypatch.setattr(datasets.STL10, "train_list", train)
    monkeypatch.setattr(datasets.STL10, "test_list", test)
    monkeypatch.setattr(datasets.STL10, "url", "http://127.0.0.1:9/stl10_binary.tar.gz")
    return tmp_path


def test_files_are_read_as_torchvision_reads_them(files):
    datasets = pytest.importorskip("torchvision.datasets")
    module = STL10(root=str(files), val_size=10, batch_size=20, augment="crop_flip")
    module.setup()
    counts = {split: module.loaders[split].num_samples for split in module.splits}
    assert counts == {"train": 20, "val": 10, "test": 20}
    ((images, labels),) = module.batches("test", 0)
    expected = datasets.STL10(str(files), split="test")
    assert labels.tolist() == expected.labels.tolist() and labels.dtype == torch.int64
    image, _ = expected[3]  # upright, as torchvision turns it
    torch.testing.assert_close(images[3], STL10().preprocess(image))
    ((images, _),) = module.batches("train", 0)
    assert images.shape == (20, 3, 96, 96)


def test_damaged_files_are_told_in_one_sentence(files):
    (files / "stl10_binary" / "test_y.bin").write_bytes(b"no")
    with pytest.raises(DataError) as caught:
        STL10(root=str(files), val_size=10).setup()
    message = str(caught.value)
    assert "STL-10 not found in" in message and "by hand" in message and "\n" not in message
