import builtins
import contextlib
import errno
import os
import pickle
import random
import shutil
import signal
import subprocess
import zipfile

import pytest
import torch

from tests.training.tiny import (
    At,
    Rows,
    Samples,
    build,
    differences,
    fit,
    mlp,
    new_folder,
    read_results,
    read_rows,
    trainer_of,
    without_timings,
)
from zoo.training.checkpoints import checkpoint
from zoo.training.checkpoints.checkpoint import (
    FORMAT,
    CheckpointError,
    CheckpointFolder,
    read,
    require_space,
    write,
)
from zoo.training.reproducibility import random_state, seed_everything, set_random_state

STATE = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "flag": True,
    "nested": {"numbers": [1, 2.5, None, "text", (3, 4)], "big": 2**70},
}


def position(step):
    return {"position": {"step": step}, "payload": torch.full((3,), float(step))}


def stop(trainer):
    trainer.signals.stop = signal.SIGTERM


# ------------------------------------------------------------------------- write and read


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a.pt", STATE)
    assert differences(read(tmp_path / "a.pt"), {"format": 2, **STATE}) == []


def test_checkpoints_are_read_with_weights_only(tmp_path, monkeypatch):
    write(tmp_path / "a.pt", STATE)
    asked = []
    load = torch.load

    def noted(*arguments, **options):
        asked.append(options)
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", noted)
    read(tmp_path / "a.pt")
    assert [options["weights_only"] for options in asked] == [True]


def test_whole_checkpoints_of_every_kind_are_plain_python_and_tensors(tmp_path):
    for kind in ("classification", "adversarial", "language_modeling", "average", "plateau"):
        trainer, callbacks = build(kind)
        folder = new_folder(tmp_path)
        trainer.state.config = {"model": {"_target_": "x", "sizes": [1, 2]}}
        trainer.fit(folder=folder, callbacks=callbacks)
        for file in (folder.path / "checkpoints").glob("*.pt"):
            state = torch.load(file, weights_only=True)
            assert state["config"] == trainer.state.config


def test_the_file_is_whole_or_absent_whenever_the_writer_is_stopped(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    write(path, position(1))
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def die(*arguments):
                raise KeyboardInterrupt

            patch.setattr(os, name, die)
            with pytest.raises(KeyboardInterrupt):
                write(path, position(2))
        assert read(path)["position"]["step"] == 1


def test_the_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (events.append("replace"), replace(*a))[1])
    write(tmp_path / "a.pt", STATE)
    assert events == ["fsync", "replace", "fsync"]  # The last one is the folder's.


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "a.pt"
    write(path, STATE)
    return path.read_bytes()


def damaged(path, raw):
    """Whether reading notices; if it does not, the content must be what it was."""
    path.write_bytes(raw)
    try:
        state = read(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        return True
    assert differences(state, {"format": 2, **STATE}) == []
    return False


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path, small):
    choice = random.Random(0)
    noticed = 0
    for place in choice.sample(range(len(small)), 150):
        raw = bytearray(small)
        raw[place] ^= 1 << choice.randrange(8)
        noticed += damaged(tmp_path / "a.pt", raw)
    assert noticed > 50  # paddings and time stamps are what is harmless


def test_every_flipped_bit_of_the_content_is_noticed(tmp_path, small):
    (tmp_path / "a.pt").write_bytes(small)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        names = [n for n in archive.namelist() if "/data" in n]
        contents = [archive.read(name) for name in names]
    for content in contents:
        start = small.index(content)
        for place in range(start, start + len(content), 7):
            raw = bytearray(small)
            raw[place] ^= 1
            assert damaged(tmp_path / "a.pt", raw)


def test_a_part_that_torch_would_take_for_an_empty_folder_is_noticed(tmp_path, small):
    # A single bit of the archive's directory, after which torch gives uninitialised memory.
    (tmp_path / "a.pt").write_bytes(small)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data/0"))
    raw = bytearray(small)
    raw[small.rindex(name.encode()) - 8] ^= 0x10  # its external attributes
    assert damaged(tmp_path / "a.pt", raw)


def test_a_truncated_file_is_noticed_wherever_it_ends(tmp_path, small):
    for length in range(0, len(small), 13):
        assert damaged(tmp_path / "a.pt", small[:length])


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"a\.pt is missing"):
        read(tmp_path / "a.pt")


def test_a_later_format_is_refused_by_number(tmp_path):
    torch.save({"format": FORMAT + 1}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"format {FORMAT + 1}; .* up to {FORMAT}: update"):
        read(tmp_path / "a.pt")


def test_an_earlier_format_is_upgraded_step_by_step(tmp_path, monkeypatch):
    torch.save({"format": 1, "old": 3}, tmp_path / "a.pt")
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    upgrades = {
        1: lambda state: {"format": 2, "middle": state["old"] + 1},
        2: lambda state: {"format": 3, "new": state["middle"] * 2},
    }
    monkeypatch.setattr(checkpoint, "_UPGRADES", upgrades)
    assert read(tmp_path / "a.pt") == {"format": 3, "new": 8}


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], {"format": "1"}])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of a run"):
        read(tmp_path / "a.pt")


class Hostile:
    def __reduce__(self):
        return exec, ("import builtins; builtins.was_run = True",)


@pytest.mark.parametrize(
    "content", [Hostile(), torch.nn.Linear(1, 1), {"format": 1, "x": Hostile()}]
)
def test_a_file_that_would_run_code_is_refused_and_does_not(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a plain checkpoint and is not loaded"):
        read(tmp_path / "a.pt")
    assert not hasattr(builtins, "was_run")


def test_a_bare_pickle_is_refused(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"format": 1}))
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(tmp_path / "a.pt")


def test_a_folder_in_the_place_of_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read(tmp_path / "a.pt")


# ---------------------------------------------------------------------------- the folder


def test_the_one_before_the_last_is_kept(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2, 3):
        folder.save(position(step))
    steps = [read(path)["position"]["step"] for path in folder.candidates()]
    assert steps == [3, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_a_writer_killed_at_any_moment_leaves_a_checkpoint_and_every_best_that_it_names(
    tmp_path, monkeypatch
):
    # Every rename, link and removal of a save is once the last thing that a process does.
    class Killed(BaseException):
        pass

    originals = {name: getattr(os, name) for name in ("replace", "link", "unlink")}
    countdown = 0

    def killing(name):
        def call(*arguments, **options):
            nonlocal countdown
            countdown -= 1
            if countdown < 0:
                raise Killed
            return originals[name](*arguments, **options)

        return call

    for name in originals:
        monkeypatch.setattr(os, name, killing(name))
    values = {1: 3.0, 2: 2.0, 3: 4.0, 4: 1.0}

    def save(folder, step):
        keep = folder.rank(values[step], step)
        folder.save(position(step), keep=keep)

    moments = 0
    while True:
        countdown = 10**9
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        folder = CheckpointFolder(tmp_path / "c", top_k=2)
        for step in (1, 2, 3):
            save(folder, step)
        countdown = moments
        try:
            save(folder, 4)
        except Killed:
            killed = True
        else:
            killed = False
        countdown = 10**9
        again = CheckpointFolder(tmp_path / "c", top_k=2)
        again.clean()
        step = again.newest()["position"]["step"]
        assert step in (3, 4)
        for _, ranked, name in again.ranking:
            assert read(tmp_path / "c" / name)["position"]["step"] == ranked
        if step == 4:
            assert read(tmp_path / "c" / "best.pt")["position"]["step"] == 4
        else:
            save(again, 4)  # what a resumed run does
        steps = {4: "step-00000004.pt", 2: "step-00000002.pt"}
        for number, name in steps.items():
            assert read(tmp_path / "c" / name)["position"]["step"] == number
        assert read(tmp_path / "c" / "best.pt")["position"]["step"] == 4
        if not killed:
            break
        moments += 1
    assert moments >= 8


@pytest.mark.parametrize("harm", ["truncate", "garble", "delete"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_with_a_warning(harm, tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(position(step))
    ruin(tmp_path / "last.pt", harm)
    again = CheckpointFolder(tmp_path)
    with pytest.warns(UserWarning, match=r"last\.pt .*; going on from previous\.pt before it"):
        assert again.newest()["position"]["step"] == 1
    again.clean()
    assert read(tmp_path / "last.pt")["position"]["step"] == 1  # nothing damaged is passed on
    again.save(position(2))
    assert [read(path)["position"]["step"] for path in again.candidates()] == [2, 1]


def ruin(path, harm):
    raw = bytearray(path.read_bytes())
    path.unlink()
    if harm == "truncate":
        path.write_bytes(raw[: len(raw) // 2])
    elif harm == "garble":
        middle = len(raw) // 3
        raw[middle : middle + 64] = os.urandom(64)
        path.write_bytes(raw)


def test_when_none_is_left_the_error_names_both_and_what_to_do(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(position(step))
    ruin(tmp_path / "last.pt", "truncate")
    ruin(tmp_path / "previous.pt", "delete")
    with pytest.raises(CheckpointError, match=r"no checkpoint is left.*last.*previous.*anew"):
        CheckpointFolder(tmp_path).newest()


def test_half_written_files_are_cleared_away_and_others_left_alone(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(position(1))
    for name in ("next.pt", "next.pt.tmp", "last.pt.tmp", "mine.pt"):
        (tmp_path / name).write_text("half")
    folder.clean()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["last.pt", "mine.pt"]


def test_shards_go_when_no_checkpoint_names_them_and_stay_where_one_cannot_say(tmp_path):
    folder = CheckpointFolder(tmp_path)
    places = [tmp_path / "shards" / f"0000000{n}-1" for n in (1, 2)]
    for place in places:
        place.mkdir(parents=True)
    named = {"shards": {"folder": places[1].name, "files": {}}}
    write(tmp_path / "best.pt", {**position(2), **named})
    whole = (tmp_path / "best.pt").read_bytes()
    (tmp_path / "best.pt").write_bytes(whole[:-50])
    folder.save(position(3))
    assert all(place.is_dir() for place in places)
    (tmp_path / "best.pt").write_bytes(whole)
    folder.save(position(4))
    assert [place.is_dir() for place in places] == [False, True]


def test_a_resumed_run_clears_away_what_a_killed_one_left_half_written(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder)
    (folder.path / "checkpoints" / "best.pt.tmp").write_text("half")
    trainer_of(epochs=1).fit(folder=folder, resume=True)
    assert not list((folder.path / "checkpoints").glob("*.tmp"))


def test_without_hard_links_files_are_copied(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    whole, _ = build("average")
    folder = new_folder(tmp_path)
    whole.fit(folder=folder)
    names = sorted(f.name for f in (folder.path / "checkpoints").iterdir())
    assert {"best.pt", "last.pt", "previous.pt"} < set(names)
    for name in names:
        read(folder.path / "checkpoints" / name)


def test_a_checkpoint_is_found_by_name_or_path(tmp_path):
    folder = CheckpointFolder(tmp_path)
    assert folder.select("best") == tmp_path / "best.pt"
    assert folder.select("previous") == tmp_path / "previous.pt"
    assert str(folder.select("/elsewhere/x.pt")) == "/elsewhere/x.pt"


# ---------------------------------------------------------------------------- in a run


def test_random_states_are_restored_exactly():
    seed_everything(3)
    random.gauss(0, 1)
    before = random_state()
    draws = [(torch.rand(2).tolist(), random.gauss(0, 1), random.random()) for _ in range(2)]
    set_random_state(before)
    again = [(torch.rand(2).tolist(), random.gauss(0, 1), random.random()) for _ in range(2)]
    assert draws == again


def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_if_nothing_had_happened(tmp_path):
    whole = new_folder(tmp_path / "a")
    fit(build("plateau")[0], whole, build("plateau")[1])
    for harm in ("truncate", "garble", "delete"):
        folder = new_folder(tmp_path / harm)
        trainer, callbacks = build("plateau")
        with pytest.raises(BaseException, match="SIGTERM"):
            fit(trainer, folder, [*callbacks, At(7, stop)])
        ruin(folder.path / "checkpoints" / "last.pt", harm)
        trainer, callbacks = build("plateau")
        with pytest.warns(UserWarning, match=r"going on from previous\.pt"):
            fit(trainer, folder, callbacks, resume=True)
        assert read_rows(folder.path) == read_rows(whole.path)
        assert read_results(folder.path) == read_results(whole.path)
        for name in ("last.pt", "best.pt"):
            ends = [read(f.path / "checkpoints" / name) for f in (whole, folder)]
            assert differences(*map(without_timings, ends)) == []


# -------------------------------------------------------------------------- a full disk


def test_more_than_the_disk_holds_is_refused_before_training(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"need about \d+ MiB and \d+ MiB are free"):
        require_space(tmp_path, 2 * free)


def test_a_run_that_the_disk_cannot_hold_does_not_begin(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    folder, rows = new_folder(tmp_path), Rows()
    with pytest.raises(CheckpointError, match=r"make room or set paths\.runs_dir"):
        trainer_of().fit(folder=folder, callbacks=[rows])
    assert rows.rows == []
    assert folder.read_status()["state"] == "failed"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here to make a small disk with")
    if done.returncode != 0:
        pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    """Takes all that is free."""
    with contextlib.suppress(OSError), open(place / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_a_full_disk_ends_the_run_with_a_report_and_loses_no_checkpoint(small_disk, tmp_path):
    options = {"epochs": 4, "log_every": 100, "checkpoints": {"every_steps": 4}}
    whole = new_folder(tmp_path / "whole")
    fit(trainer_of(mlp(dropout=0.2), **options), whole)
    folder = new_folder(small_disk)
    trainer = trainer_of(mlp(dropout=0.2), **options)
    with pytest.raises(CheckpointError, match="the one before it is intact: make room and resume"):
        fit(trainer, folder, [At(14, lambda t: fill(small_disk))])
    assert shutil.disk_usage(small_disk).free <= 1 << 16  # what was reserved for the report
    status = folder.read_status()
    assert status["state"] == "failed"
    assert "No space left on device" in status["error"]
    checkpoints = folder.path / "checkpoints"
    assert read(checkpoints / "last.pt")["position"]["step"] == 12
    assert read(checkpoints / "previous.pt")["position"]["step"] == 12
    assert not list(checkpoints.glob("*.tmp"))
    (small_disk / "filler").unlink()
    fit(trainer_of(mlp(dropout=0.2), **options), folder, resume=True)
    assert folder.read_status()["state"] == "finished"
    assert (folder.path / ".reserve").exists()  # for the next time
    assert read_rows(folder.path) == read_rows(whole.path)
    ends = [read(f.path / "checkpoints" / "last.pt") for f in (whole, folder)]
    assert differences(*map(without_timings, ends)) == []


def test_a_disk_that_is_full_when_a_row_is_written_is_reported_too(small_disk):
    def fill_all_but_nothing(trainer):
        fill(small_disk)
        trainer.callbacks[0].on_log(trainer, {"split": "x" * 5000})

    folder = new_folder(small_disk)
    with pytest.raises(OSError, match="No space left"):
        fit(trainer_of(), folder, [At(2, fill_all_but_nothing)])
    assert folder.read_status()["state"] == "failed"


def test_a_write_that_fails_names_the_reason_and_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    write(path, position(1))

    def refuse(*arguments, **options):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(CheckpointError, match=r"Disk quota exceeded; \d+ [MK]iB free"):
        write(path, position(2))
    monkeypatch.undo()
    assert read(path)["position"]["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_run_without_validation_data_keeps_its_last_two_checkpoints(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(data=Samples(splits=("train",)).setup(), epochs=2).fit(folder=folder)
    names = sorted(f.name for f in (folder.path / "checkpoints").iterdir())
    assert names == ["last.pt", "previous.pt"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "make room and start the run anew"), (errno.EROFS, "allow writing there and")],
)
def test_a_first_write_that_fails_speaks_of_no_checkpoint_before_it(
    number, advice, tmp_path, monkeypatch
):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(CheckpointError, match=f"there is none before it: {advice}"):
        CheckpointFolder(tmp_path).save(position(1))
