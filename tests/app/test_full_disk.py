"""A disk that takes no more: whatever could not be written is named.

In place of a full disk files may not grow here beyond a size, which fails in the same way: in the
middle of a file, without its name.
"""

import contextlib
import json
import re

import pytest
import torch

import train
from zoo.app.place import RunLocation
from zoo.app.prediction_files import write_samples
from zoo.app.sweeps.table import collect
from zoo.config.errors import ConfigError
from zoo.training.callbacks import MetricsFile
from zoo.training.event_files import EventFiles
from zoo.training.own_files import replacing
from zoo.training.run_folder import RunFolder

resource = pytest.importorskip("resource")
TINY = (
    *("trainer.epochs=1", "trainer.limit_train_batches=1", "trainer.limit_eval_batches=1"),
    *("logger.console=off", "model=softmax_regression", "data=digits"),
)


@contextlib.contextmanager
def files_end_at(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def replace(folder):
    with replacing(folder / "config.yaml") as file:
        file.write(b"x" * 5000)


def measure(folder):
    rows = MetricsFile(folder)
    rows.on_fit_start(None)
    rows.on_log(None, {"step": 1, "note": "x" * 5000})


def draw(folder):
    EventFiles(folder).add_text("note", "x" * 5000)


def tabulate(folder):
    (folder / "0-job").mkdir()
    RunFolder(folder / "0-job").write("status.json", {"state": "failed", "error": "x" * 5000})
    with files_end_at(1000):
        collect(folder)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (replace, "config.yaml"),
        (measure, "metrics.jsonl"),
        (draw, r"events.out.tfevents.\d+"),
        (tabulate, "sweep.csv"),
    ],
)
def test_file_that_cannot_be_written_is_named(write, name, tmp_path):
    with (
        files_end_at(1000) if write is not tabulate else contextlib.nullcontext(),
        pytest.raises(OSError, match="File too large") as caught,
    ):
        write(tmp_path)
    assert re.fullmatch(f"{re.escape(str(tmp_path))}/{name}", caught.value.filename)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("name", ["a.pt", "a.png"])
def test_samples_that_cannot_be_written_are_refused_by_name(name, tmp_path):
    out = tmp_path / name
    with files_end_at(1000), pytest.raises(ConfigError, match=f"{name}: cannot be written"):
        write_samples(torch.rand(8, 3, 16, 16), out)
    assert not list(tmp_path.iterdir())


def test_run_that_cannot_describe_itself_is_said_to_have_failed(tmp_path, monkeypatch, capsys):
    describe = RunLocation.describe

    def limited(*arguments, **named):
        with files_end_at(300):
            describe(*arguments, **named)

    monkeypatch.setattr(RunLocation, "describe", limited)
    assert train.main([*TINY, f"paths.runs_dir={tmp_path}"]) == 1
    (folder,) = tmp_path.glob("*/*")
    error = capsys.readouterr().err
    assert error == f"error: File too large ({folder / 'config.yaml'})\n"
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed" and "config.yaml" in status["error"]
