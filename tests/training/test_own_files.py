"""A run folder that came from somebody else leads nowhere outside itself."""

import os

import pytest

from tests.training.tiny import new_folder, trainer_of
from zoo.training.callbacks import MetricsFile
from zoo.training.checkpoints.checkpoint import CheckpointFolder, write
from zoo.training.own_files import appending, links_in, replacing
from zoo.training.run_folder import RunFolder, RunFolderError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")

WRITTEN = (
    *("metrics.jsonl", "log.txt", ".lock", ".reserve", "results.json", "trace.json"),
    *("status.json", "status.json.tmp", "config.yaml", "val", "checkpoints/last.pt"),
    *("checkpoints/last.pt.tmp", "checkpoints/next.pt", "checkpoints/next.pt.tmp"),
)


@pytest.fixture
def victim(tmp_path):
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


@pytest.fixture
def run(tmp_path):
    folder = new_folder(tmp_path / "runs")
    trainer_of(epochs=1).fit(folder=folder, callbacks=[MetricsFile(folder.path)])
    return folder


@pytest.mark.parametrize("name", WRITTEN)
def test_a_run_with_a_link_in_it_is_not_gone_on_with(name, run, victim):
    link = run.path / name
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    with pytest.raises(RunFolderError, match=f"{name} is a link"):
        trainer_of(epochs=2).fit(folder=run, resume=True)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("exists", [True, False])
def test_a_linked_folder_or_a_link_to_nowhere_is_refused_too(exists, run, tmp_path):
    other = tmp_path / "other"
    if exists:
        (run.path / "checkpoints").rename(other)
    else:
        for file in (run.path / "checkpoints").iterdir():
            file.unlink()
        (run.path / "checkpoints").rmdir()
    (run.path / "checkpoints").symlink_to(other)
    with pytest.raises(RunFolderError, match="checkpoints is a link"):
        trainer_of(epochs=2).fit(folder=run, resume=True)
    assert other.exists() == exists


def test_a_run_folder_may_itself_be_reached_by_a_link(run, tmp_path):
    alias = tmp_path / "latest"
    alias.symlink_to(run.path)
    assert not list(links_in(alias))
    trainer_of(epochs=2).fit(folder=RunFolder(alias), resume=True)


@pytest.mark.parametrize("temporary", ["status.json.tmp", "status.json"])
def test_whole_files_and_their_temporaries_replace_links(temporary, tmp_path, victim):
    (tmp_path / temporary).symlink_to(victim)
    RunFolder(tmp_path).write("status.json", "{}")
    write(tmp_path / "a.pt", {"position": {"step": 1}})
    assert victim.read_text() == "precious"
    assert not (tmp_path / "status.json").is_symlink()


def test_no_temporary_name_that_is_taken_is_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda count: "known")
    (tmp_path / "a.known.tmp").write_text("mine")
    with pytest.raises(FileExistsError), replacing(tmp_path / "a") as file:
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.known.tmp"]
    assert (tmp_path / "a.known.tmp").read_text() == "mine"


def test_nothing_is_appended_through_a_link(tmp_path, victim):
    (tmp_path / "log.txt").symlink_to(victim)
    with pytest.raises(OSError):
        appending(tmp_path / "log.txt")
    RunFolder(tmp_path).log("a line")
    assert victim.read_text() == "precious"


def test_a_question_for_the_status_empties_no_linked_file(tmp_path, victim):
    folder = RunFolder(tmp_path)
    folder.status("running")
    (tmp_path / ".lock").symlink_to(victim)
    assert folder.read_status()["state"] == "running"
    assert victim.read_text() == "precious"


def test_what_a_killed_process_left_of_a_status_goes(run):
    (run.path / "status.json.0a1b2c3d.tmp").write_text("half")
    trainer_of(epochs=2).fit(folder=run, resume=True)
    assert not list(run.path.rglob("*.tmp"))


def test_checkpoints_that_are_read_only_need_no_folder(tmp_path):
    CheckpointFolder(tmp_path / "nowhere").select("best")
    assert not (tmp_path / "nowhere").exists()
