import hashlib
import sys
import urllib.error
import urllib.request

import pytest

from zoo.data.download import DataError, download, import_torchvision
from zoo.data.images.cifar import CIFAR10
from zoo.data.images.flowers import Flowers102
from zoo.data.images.mnist import MNIST
from zoo.data.images.pets import Pets
from zoo.data.images.stl10 import STL10
from zoo.data.images.svhn import SVHN
from zoo.data.masks.pets import PetsSegmentation
from zoo.data.masks.voc_segmentation import VOCSegmentation

CONTENT = b"what was asked for" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("checksum", [{}, {"sha256": SHA256}, {"md5": MD5}])
def test_a_download_is_complete_and_leaves_nothing_else(web, tmp_path, checksum):
    (web.folder / "a.bin").write_bytes(CONTENT)
    path = download(f"{web.url}/a.bin", tmp_path / "deep" / "down" / "a.bin", **checksum)
    assert path.read_bytes() == CONTENT
    assert files(path.parent) == ["a.bin"]


def test_a_file_address_works_too(tmp_path):
    (tmp_path / "here.bin").write_bytes(CONTENT)
    path = download((tmp_path / "here.bin").as_uri(), tmp_path / "there.bin", sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_what_is_there_is_not_downloaded_again(web, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    download(f"{web.url}/a.bin", tmp_path / "a.bin", sha256=SHA256)
    assert web.requests == []


def test_another_file_in_its_place_is_named_and_kept(web, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"something else")
    with pytest.raises(DataError, match=rf"a\.bin is damaged or another file.*not {SHA256}"):
        download(f"{web.url}/a.bin", tmp_path / "a.bin", sha256=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == b"something else"


def test_a_wrong_checksum_is_told_and_the_file_thrown_away(web, tmp_path):
    (web.folder / "a.bin").write_bytes(CONTENT + b"!")
    target = tmp_path / "target"
    with pytest.raises(DataError) as caught:
        download(f"{web.url}/a.bin", target / "a.bin", sha256=SHA256)
    message = str(caught.value)
    assert f"{web.url}/a.bin" in message and "wrong checksum" in message
    assert SHA256 in message and str(target / "a.bin") in message and "\n" not in message
    assert files(target) == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/missing.bin", "the server answered 404"),
        ("/cut-short/a.bin", "the server sent 9 of 1,000 bytes"),
    ],
)
def test_a_failed_download_says_why_and_what_to_do(web, tmp_path, address, reason):
    target = tmp_path / "target"
    with pytest.raises(DataError) as caught:
        download(web.url + address, target / "a.bin", sha256=SHA256)
    message = str(caught.value)
    assert message.startswith(f"could not download {web.url}{address} ({reason}")
    assert f"put the file at {target / 'a.bin'} by hand (sha256 {SHA256})" in message
    assert files(target) == []


def test_a_server_that_is_not_there_is_told(dead_url, tmp_path):
    with pytest.raises(DataError, match=r"could not download .*Connection refused.* by hand"):
        download(f"{dead_url}/a.bin", tmp_path / "a.bin")


def test_an_address_of_no_known_kind_is_told(tmp_path):
    with pytest.raises(DataError, match="could not download gopher"):
        download("gopher://example.org/a.bin", tmp_path / "a.bin")


def test_a_folder_that_cannot_be_made_is_told(web, tmp_path):
    (web.folder / "a.bin").write_bytes(CONTENT)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="could not download"):
        download(f"{web.url}/a.bin", tmp_path / "file" / "a.bin")


@pytest.mark.parametrize(
    "error", [RuntimeError("operator torchvision::nms does not exist"), ImportError("no such file")]
)
def test_a_torchvision_that_does_not_fit_is_one_clear_sentence(monkeypatch, error):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise error

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(DataError, match=rf"torchvision cannot be imported \({error}\): install"):
        import_torchvision()


@pytest.mark.parametrize(
    "kind", [MNIST, CIFAR10, SVHN, STL10, Flowers102, Pets, PetsSegmentation, VOCSegmentation]
)
def test_a_download_of_torchvision_that_fails_leaves_no_empty_folder(kind, tmp_path, monkeypatch):
    pytest.importorskip("torchvision.datasets")

    def unreachable(*args, **options):
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(DataError, match="unreachable"):
        kind(root=str(tmp_path / "mistyped" / "data")).setup()
    assert list(tmp_path.iterdir()) == []
