import multiprocessing
import os
import resource
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.images import cache
from zoo.data.images.image_folder import ImageFolder
from zoo.data.images.reading import ImageFiles

COUNT = 24


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(COUNT // 2):
            pixels = generator.integers(0, 256, (10, 13, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i:02}.png")
    return tmp_path / "pictures"


def module(pictures, kind, **changes):
    settings = {"image_size": 8, "batch_size": 5, "num_workers": 0, "in_memory": False}
    settings |= {"augment": "crop_flip", "root": str(pictures.parent / "data"), "cache": kind}
    data = ImageFolder(str(pictures), **(settings | changes))
    data.setup(seed=3)
    return data


def batches(data, epoch=1):
    return [batch for split in data.splits for batch in data.batches(split, epoch)]


def assert_same(first, second):
    for x, y in zip(first, second, strict=True):
        for a, b in zip(x, y, strict=True):
            assert torch.equal(a, b) and a.stride() == b.stride()


def files(pictures):
    return sorted((pictures.parent / "data" / "cache").glob("*.npy"))


@pytest.fixture
def decoded(monkeypatch):
    """The paths of the files that are decoded."""
    paths, decode = [], ImageFiles.decode

    def noted(self, path):
        paths.append(path)
        return decode(self, path)

    monkeypatch.setattr(ImageFiles, "decode", noted)
    return paths


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_batches_are_those_without_a_cache_bit_for_bit(kind, in_memory, in_channels, pictures):
    options = {"in_memory": in_memory, "in_channels": in_channels, "resize": 9}
    expected = batches(module(pictures, None, **options))
    for _ in range(2):  # The second finds what the first has made.
        assert_same(batches(module(pictures, kind, **options)), expected)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_worker_processes_share_the_cache(kind, pictures, monkeypatch):
    expected = batches(module(pictures, None))
    data = module(pictures, kind, num_workers=1)
    monkeypatch.setattr(ImageFiles, "decode", None)
    assert_same(batches(data), expected)
    for loader in data.loaders.values():
        loader.close()


def test_every_image_is_decoded_once_in_memory_and_once_for_all_runs_on_disk(pictures, decoded):
    for kind, counts in (("ram", [COUNT, COUNT]), ("disk", [COUNT, 0])):
        for count in counts:
            decoded.clear()
            data = module(pictures, kind)
            for epoch in range(2):
                batches(data, epoch)
            assert len(decoded) == len(set(decoded)) == count
    (file,) = files(pictures)
    assert data.notes[-1] == f"cache: 24 decoded images in {file}"


def test_another_division_uses_the_same_file_and_another_size_another(pictures, decoded):
    module(pictures, "disk")
    decoded.clear()
    module(pictures, "disk", split_seed=1, batch_size=3)
    assert not decoded and len(files(pictures)) == 1
    module(pictures, "disk", image_size=6)
    assert len(decoded) == COUNT and len(files(pictures)) == 2


def test_a_changed_image_makes_the_file_anew_and_says_so(pictures):
    module(pictures, "disk")
    (old,) = files(pictures)
    Image.new("RGB", (13, 10), "red").save(pictures / "cat" / "03.png")
    data = module(pictures, "disk")
    assert_same(batches(data), batches(module(pictures, None)))
    (new,) = files(pictures)
    assert new != old and data.notes[-1].endswith(f"{new}, made anew: image files have changed")


@pytest.mark.parametrize("keep", [0, 20, 3000, -1])
def test_a_file_that_is_not_whole_is_made_anew_and_says_so(keep, pictures):
    module(pictures, "disk")
    (file,) = files(pictures)
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    data = module(pictures, "disk")
    assert data.notes[-1].endswith("made anew: it was damaged")
    assert file.read_bytes() == whole


def test_an_image_that_does_not_fit_its_checksum_is_decoded_again(pictures):
    expected = batches(module(pictures, None))
    module(pictures, "disk")
    (file,) = files(pictures)
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    data = module(pictures, "disk")
    with pytest.warns(UserWarning, match="is damaged and has been removed"):
        assert_same(batches(data), expected)
    assert not files(pictures)
    assert_same(batches(module(pictures, "disk")), expected)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
def test_of_several_runs_at_once_one_makes_the_file_and_the_others_wait(pictures, monkeypatch):
    log, decode = pictures.parent / "log", ImageFiles.decode

    def noted(self, path):
        with open(log, "ab") as file:
            file.write(b"%d\n" % os.getpid())
        return decode(self, path)

    monkeypatch.setattr(ImageFiles, "decode", noted)
    monkeypatch.setattr(cache, "AT_ONCE", 3)
    monkeypatch.setattr(cache.os, "cpu_count", lambda: 1)  # A fork and threads do not go together.
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=module, args=(pictures, "disk")) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0, 0]
    makers = log.read_bytes().split()
    assert len(makers) == COUNT and len(set(makers)) == 1
    assert_same(batches(module(pictures, "disk")), batches(module(pictures, None)))


def test_a_run_that_is_killed_while_it_makes_the_file_leaves_nothing_that_counts(pictures, decoded):
    folder = pictures.parent / "data" / "cache"
    module(pictures, "disk")
    (file,) = files(pictures)
    file.rename(folder / f".{file.name}.0123abcd.part")
    decoded.clear()
    module(pictures, "disk")
    assert len(decoded) == COUNT and sorted(folder.glob("*.npy")) == [file]
    assert not list(folder.glob(".*.part"))


def test_a_file_that_cannot_be_decoded_or_written_leaves_no_cache(pictures):
    (pictures / "dog" / "05.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"05\.png cannot be read as an image"):
        module(pictures, "disk")
    (pictures / "dog" / "05.png").unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot be written \(.*: make room, choose another"):
            module(pictures, "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [f for f in (pictures.parent / "data" / "cache").iterdir() if f.suffix != ".lock"]


def test_images_that_do_not_fit_into_memory_are_refused_with_what_to_do(pictures, monkeypatch):
    monkeypatch.setattr(cache, "available_memory", lambda device: 1000)
    with pytest.raises(DataError, match=r"free: set data\.cache=disk instead of ram"):
        module(pictures, "ram")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "tape"}, "cache must be ram, disk or null, not 'tape'"),
        (
            {"cache": "disk", "augment": "resized_crop_flip"},
            "cache must be null with augment 'resized_crop_flip', which starts from the file each",
        ),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder("pictures", **options)
