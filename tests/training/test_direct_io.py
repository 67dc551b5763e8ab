import errno
import os

import pytest
import torch

from zoo.training.checkpoints import checksums, direct_io
from zoo.training.checkpoints.direct_io import BLOCK, DirectWriter


def content(size):
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


def written(path, pieces):
    with open(path, "xb+") as file, DirectWriter(file) as writer:
        for piece in pieces:
            assert writer.write(piece) == len(piece)
    return path.read_bytes()


def is_direct(number):
    import fcntl

    return bool(fcntl.fcntl(number, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 4097])
@pytest.mark.parametrize("step", [1000, BLOCK, 10 * BLOCK])
def test_the_file_is_what_was_written(size, step, tmp_path):
    whole = content(size)
    pieces = [whole[at : at + step] for at in range(0, size, step)]
    assert written(tmp_path / "a", pieces) == whole


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct I/O")
def test_whole_blocks_go_past_the_page_cache_and_the_rest_through_it(tmp_path, monkeypatch):
    put, seen = os.pwrite, []

    def noted(number, block, place):
        seen.append((len(block), is_direct(number)))
        return put(number, block, place)

    with open(tmp_path / "probe", "wb") as file, DirectWriter(file):
        if not is_direct(file.fileno()):
            pytest.skip("this file system has no direct I/O")
    monkeypatch.setattr(direct_io.os, "pwrite", noted)
    written(tmp_path / "a", [content(2 * BLOCK + 5)])
    assert seen == [(BLOCK, True), (BLOCK, True), (5, False)]


def test_a_disk_that_takes_less_at_once_gets_all(tmp_path, monkeypatch):
    put = os.pwrite
    monkeypatch.setattr(
        direct_io.os, "pwrite", lambda n, block, at: put(n, block[: BLOCK // 8], at)
    )
    whole = content(2 * BLOCK + 7)
    assert written(tmp_path / "a", [whole]) == whole


def test_a_disk_that_wants_other_blocks_gets_them_through_the_cache(tmp_path, monkeypatch):
    put, refused = os.pwrite, []

    def stubborn(number, block, place):
        if is_direct(number):
            refused.append(place)
            raise OSError(errno.EINVAL, "Invalid argument")
        return put(number, block, place)

    monkeypatch.setattr(direct_io.os, "pwrite", stubborn)
    whole = content(2 * BLOCK + 7)
    assert written(tmp_path / "a", [whole]) == whole
    assert refused in ([], [0])


def test_a_file_system_without_direct_writes_through_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(DirectWriter, "_set_direct", lambda *_: None)
    whole = content(2 * BLOCK + 7)
    assert written(tmp_path / "a", [whole]) == whole


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_a_full_disk_is_an_error_of_whoever_writes(blocks, tmp_path, monkeypatch):
    put = os.pwrite

    def full(number, block, place):
        if place >= BLOCK * (blocks - 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(number, block, place)

    monkeypatch.setattr(direct_io.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "a", [content(blocks * BLOCK)])


def test_nothing_is_written_any_more_once_it_has_failed(tmp_path, monkeypatch):
    began, ended = [], []
    put = os.pwrite

    def slow(number, block, place):
        began.append(place)
        done = put(number, block, place)
        ended.append(place)
        return done

    monkeypatch.setattr(direct_io.os, "pwrite", slow)
    with (
        open(tmp_path / "a", "xb+") as file,
        pytest.raises(KeyboardInterrupt),
        DirectWriter(file) as writer,
    ):
        writer.write(content(BLOCK))
        raise KeyboardInterrupt
    assert began == ended == [0]


def test_an_archive_of_several_blocks_is_verified_when_it_is_read(tmp_path):
    state = {"weights": torch.arange(BLOCK, dtype=torch.int32), "step": 7}
    with open(tmp_path / "a.pt", "xb+") as file:
        checksums.save(state, file)
    with open(tmp_path / "a.pt", "rb") as file:
        found = checksums.load(file)
    assert torch.equal(found["weights"], state["weights"]) and found["step"] == 7
