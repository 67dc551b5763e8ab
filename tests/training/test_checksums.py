import sys
import zipfile

import pytest
import torch

from tests.training.tiny import differences
from zoo.training.checkpoints import checksums
from zoo.training.checkpoints.checksums import DamagedError, load, save

STATE = {
    "large": torch.arange(3 * 2**20, dtype=torch.uint8),  # more than one block
    "small": torch.ones(3),
    "empty": torch.empty(0),
    "plain": [1, "two", None],
}


def written(path, state=STATE):
    with open(path, "xb+") as file:
        save(state, file)
    return path


def read(path):
    with open(path, "rb") as file:
        return load(file)


def test_what_is_read_is_what_torch_reads_views_and_shared_storages_included(tmp_path):
    table = torch.randn(40, 3)
    state = {
        "numbers": [torch.randn(n, dtype=torch.float64) for n in range(30)],
        "same": [table, table, table[3:5], table.t()],
        "kinds": [torch.ones(2, dtype=kind) for kind in (torch.bool, torch.bfloat16, torch.int8)],
        "empty": [torch.empty(0), torch.empty(0, 3), torch.tensor(2.0)],
    }
    path = written(tmp_path / "a.pt", state)
    ours, theirs = read(path), torch.load(path, weights_only=True)
    assert differences(ours, theirs) == []
    assert ours["same"][0].data_ptr() == ours["same"][1].data_ptr()
    ours["same"][0].fill_(7.0)
    assert ours["same"][2].eq(7.0).all()


def test_storages_that_torch_asks_for_in_another_order_are_not_mistaken(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "sorted", lambda *a, **b: sorted(*a, **b)[::-1], raising=False)
    assert differences(read(written(tmp_path / "a.pt")), STATE) == []


def test_an_archive_of_another_byte_order_is_verified_and_left_to_torch(tmp_path, monkeypatch):
    path = written(tmp_path / "a.pt")
    raw = bytearray(path.read_bytes())
    monkeypatch.setattr(sys, "byteorder", "big")
    assert read(path)["large"].shape == STATE["large"].shape
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match="data/0"):
        read(path)


def test_the_archive_is_that_of_torch_byte_for_byte_but_for_the_number_at_its_end(tmp_path):
    with open(tmp_path / "theirs.pt", "wb") as file:
        torch.save(STATE, file)
    theirs = (tmp_path / "theirs.pt").read_bytes()
    ours = written(tmp_path / "ours.pt").read_bytes()
    number = theirs.index(b".data/serialization_id")  # of no content, and the last part
    assert len(ours) == len(theirs)
    assert ours[:number] == theirs[:number]
    with zipfile.ZipFile(tmp_path / "ours.pt") as archive:
        assert len(archive.namelist()) > 5
        assert archive.testzip() is None


def test_torch_and_the_next_save_are_left_as_they_were(tmp_path):
    before = torch.serialization.get_crc32_options()
    written(tmp_path / "a.pt")
    assert torch.serialization.get_crc32_options() == before


def test_a_torch_that_writes_archives_in_another_way_enters_its_own_checksums(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(checksums, "_DESCRIPTOR", b"PK??")
    path = written(tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert torch.equal(read(path)["large"], STATE["large"])


def test_checksums_are_entered_while_torch_writes(tmp_path, monkeypatch):
    archives, save_of_torch = [], torch.save
    monkeypatch.setattr(torch, "save", lambda *a: archives.append(a[1]) or save_of_torch(*a))
    path = written(tmp_path / "a.pt")
    (archive,) = archives  # It is not written again by torch alone.
    assert archive.complete
    with zipfile.ZipFile(path) as read_back:
        assert read_back.testzip() is None


def test_damage_is_named_even_where_loading_fails_of_it(tmp_path):
    path = written(tmp_path / "a.pt")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"data.pkl") + 200] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match=r"data\.pkl"):
        read(path)


def test_an_archive_whose_parts_are_compressed_is_refused(tmp_path):
    # Torch would read on with what it finds there.
    with (
        zipfile.ZipFile(written(tmp_path / "a.pt")) as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(DamagedError):
        read(tmp_path / "b.pt")
