import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch
from sklearn.datasets import _california_housing as theirs
from sklearn.datasets import fetch_california_housing

from zoo.data.download import DataError
from zoo.data.tabular import california_housing as ours
from zoo.data.tabular.california_housing import CaliforniaHousing

FIRST = "-122.23,37.88,41.0,880.0,129.0,322.0,126.0,8.3252,452600.0"


@pytest.fixture
def archive(web, monkeypatch):
    """A small archive of the same form, for us and for scikit-learn."""
    draw = np.random.default_rng(0)
    lines = [FIRST, *(",".join(f"{v:.6f}" for v in row) for row in draw.uniform(1, 9, (39, 9)))]
    text = "\n".join(lines).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        member = tarfile.TarInfo(ours.MEMBER)
        member.size = len(text)
        file.addfile(member, io.BytesIO(text))
    (web.folder / "small.tgz").write_bytes(packed.getvalue())
    url, digest = f"{web.url}/small.tgz", hashlib.sha256(packed.getvalue()).hexdigest()
    monkeypatch.setattr(ours, "URL", url)
    monkeypatch.setattr(ours, "SHA256", digest)
    monkeypatch.setattr(theirs, "ARCHIVE", theirs.RemoteFileMetadata("small.tgz", url, digest))
    return web


def everything(module):
    module.setup()
    parts = [next(iter(module.batches(split, 0))) for split in module.splits]
    return torch.cat([torch.cat([y, x], 1) for x, y in parts])


def test_the_archive_is_scikit_learns():
    assert (theirs.ARCHIVE.url, theirs.ARCHIVE.checksum) == (ours.URL, ours.SHA256)
    assert theirs.ARCHIVE.filename == ours.ARCHIVE


def test_columns_are_scikit_learns_and_loaded_once(archive, tmp_path):
    options = {"root": str(tmp_path / "data"), "standardize": False, "batch_size": None}
    rows = everything(CaliforniaHousing(**options))
    assert archive.requests == ["/small.tgz"]
    everything(CaliforniaHousing(**options))
    assert archive.requests == ["/small.tgz"]
    known = fetch_california_housing(data_home=str(tmp_path / "theirs"))
    assert tuple(known.feature_names) == ours.FEATURES
    expected = np.column_stack([known.target, known.data]).astype(np.float32)
    assert sorted(rows.tolist()) == sorted(expected.tolist())
    first = next(row for row in rows.tolist() if row[0] == pytest.approx(4.526))
    assert first[3:5] + first[6:7] == pytest.approx([6.984127, 1.023810, 2.555556], rel=1e-6)


def test_another_file_is_refused(archive, tmp_path):
    (tmp_path / "cal_housing.tgz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cal_housing.tgz is damaged or another file: its sha256"):
        CaliforniaHousing(root=str(tmp_path)).setup()
