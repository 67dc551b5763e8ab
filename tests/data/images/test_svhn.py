import hashlib

import numpy as np
import pytest
import torch

from zoo.data.download import DataError
from zoo.data.images.svhn import SVHN

COUNTS = {"train": 60, "test": 20, "extra": 30}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Small files in the official format, known to torchvision."""
    io = pytest.importorskip("scipy.io")
    datasets = pytest.importorskip("torchvision.datasets")
    generator = np.random.default_rng(0)
    listed = {}
    for part, count in COUNTS.items():
        pixels = generator.integers(0, 256, (32, 32, 3, count)).astype(np.uint8)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8).reshape(-1, 1)  # 10 stands for 0
        path = tmp_path / f"{part}_32x32.mat"
        io.savemat(path, {"X": pixels, "y": labels})
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        listed[part] = [f"http://127.0.0.1:9/{path.name}", path.name, digest]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    return tmp_path


def test_files_are_read_as_torchvision_reads_them(files):
    datasets = pytest.importorskip("torchvision.datasets")
    module = SVHN(root=str(files), val_size=10, batch_size=20)
    module.setup()
    counts = {split: module.loaders[split].num_samples for split in module.splits}
    assert counts == {"train": 50, "val": 10, "test": 20}
    ((images, labels),) = module.batches("test", 0)
    expected = datasets.SVHN(str(files), split="test")
    assert torch.equal(labels, torch.from_numpy(expected.labels)) and labels[9] == 0
    torch.testing.assert_close(images, module.normalize(torch.from_numpy(expected.data)))
    image, _ = expected[3]
    torch.testing.assert_close(images[3], SVHN().preprocess(image))


def test_extra_images_join_training_on_request(files):
    module = SVHN(root=str(files), val_size=10, extra=True, augment="crop_flip")
    module.setup()
    counts = {split: module.loaders[split].num_samples for split in module.splits}
    assert counts == {"train": 80, "val": 10, "test": 20}


def test_a_file_that_is_not_there_is_named_in_one_sentence(files):
    (files / "test_32x32.mat").unlink()
    with pytest.raises(DataError) as caught:
        SVHN(root=str(files), val_size=10).setup()
    message = str(caught.value)
    assert f"test_32x32.mat not found in {files}" in message and "by hand" in message
    assert "\n" not in message
