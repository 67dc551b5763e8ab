import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.images.flowers import Flowers102
from zoo.data.loading.stream import StreamLoader
from zoo.data.loading.tensor import TensorLoader
from zoo.data.sampling import evaluation_order

SETTINGS = {"image_size": 16, "resize": 20, "batch_size": 4, "num_workers": 0}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A few images in the official layout, known to torchvision."""
    io = pytest.importorskip("scipy.io")
    datasets = pytest.importorskip("torchvision.datasets")
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(1, 19):
        pixels = generator.integers(0, 256, (30, 24 + i, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "jpg" / f"image_{i:05d}.jpg")
    io.savemat(folder / "imagelabels.mat", {"labels": np.arange(18) % 6 + 97})
    ids = {"trnid": np.arange(1, 7), "valid": np.arange(7, 13), "tstid": np.arange(13, 19)}
    io.savemat(folder / "setid.mat", ids)

    def md5(name):
        return hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()

    listed = {"image": ("102flowers.tgz", "0" * 32)}
    for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        listed[key] = (name, md5(name))
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", listed)
    monkeypatch.setattr(datasets.Flowers102, "_download_url_prefix", "http://127.0.0.1:9/")
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_published_split_is_read_as_torchvision_reads_it(in_memory, files):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    datasets = pytest.importorskip("torchvision.datasets")
    module = Flowers102(root=str(files), in_memory=in_memory, **SETTINGS)
    module.setup()
    kind = TensorLoader if in_memory else StreamLoader
    assert all(isinstance(loader, kind) for loader in module.loaders.values())
    theirs = datasets.Flowers102(str(files), split="test")
    expected = [theirs[i] for i in evaluation_order(len(theirs)).tolist()]
    images = torch.cat([images for images, _ in module.batches("test", 0)])
    labels = torch.cat([labels for _, labels in module.batches("test", 0)])
    assert labels.tolist() == [label for _, label in expected]
    assert sorted(labels.tolist()) == [96, 97, 98, 99, 100, 101]
    prepare = v2.Compose([v2.Resize(20), v2.CenterCrop(16), v2.PILToTensor()])
    pixels = torch.stack([prepare(image) for image, _ in expected])
    torch.testing.assert_close(images, module.normalize(pixels))
    torch.testing.assert_close(images[2], module.preprocess(expected[2][0]))
    assert module.facts()["num_classes"] == 102 and module.class_names[0] == "pink primrose"
    again = Flowers102(**SETTINGS, **module.resolved())
    torch.testing.assert_close(images[2], again.preprocess(expected[2][0]))


def test_training_images_are_augmented_from_their_files(files):
    module = Flowers102(root=str(files), augment="resized_crop_randaugment", cutmix=1.0, **SETTINGS)
    module.setup()
    images, targets = next(module.batches("train", 0))
    assert images.shape == (4, 3, 16, 16) and targets.shape == (4, 102)


def test_files_that_are_not_there_are_named_in_one_sentence(files):
    (files / "flowers-102" / "setid.mat").unlink()
    with pytest.raises(DataError) as caught:
        Flowers102(root=str(files)).setup()
    message = str(caught.value)
    assert "Flowers-102 not found in" in message and "by hand" in message and "\n" not in message


def test_a_side_shorter_than_the_image_is_refused():
    with pytest.raises(ValueError, match="resize must be at least image_size = 224, not 200"):
        Flowers102(resize=200)
