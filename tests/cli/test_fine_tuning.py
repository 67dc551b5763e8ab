"""A run that begins with another's weights, and trains part of them."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import evaluate
import train
import zoo
from zoo.training.checkpoints.checkpoint import read

MUTE = (
    "trainer.epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_eval_batches=2",
    "logger=off",
    "experiment=linear_probe_digits",
)
FROZEN = "frozen: 60,856 of 61,706 parameters"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main(*words):
    return train.main(words)


def weights_of(folder, name="last"):
    return read(Path(folder) / "checkpoints" / f"{name}.pt")["model"]


@pytest.fixture
def tuned(here, capsys):
    """A run and one that began with its weights; the file is gone."""
    assert main(*MUTE, "freeze=[]", "seed=1", "name=first") == 0
    first = weights_of(capsys.readouterr().out.splitlines()[-1])
    (here / "first.pth").write_bytes(b"")
    torch.save(first, here / "first.pth")
    assert main(*MUTE, "model.weights=first.pth") == 0
    out = capsys.readouterr().out
    (here / "first.pth").unlink()
    return first, Path(out.splitlines()[-1]), out


def test_run_begins_with_the_weights_and_trains_what_is_not_frozen(tuned):
    first, folder, _ = tuned
    last = weights_of(folder)
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved == {"output.weight", "output.bias"}


def test_what_was_loaded_and_frozen_is_said_and_kept(tuned):
    _, folder, out = tuned
    log = (folder / "log.txt").read_text()
    for line in (f"first.pth: {len(tuned[0])} tensors loaded", FROZEN):
        assert line in out.splitlines()
        assert line in log
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["weights"] == "first.pth"
    assert config["freeze"] == ["*", "!output.*"]


def test_run_is_rebuilt_without_the_file(tuned, capsys):
    _, folder, _ = tuned
    assert evaluate.main([f"run={folder}", "trainer.limit_eval_batches=1"]) == 0
    model, _ = zoo.load(folder)
    assert torch.equal(model.output.weight, weights_of(folder, "best")["output.weight"])
    before = weights_of(folder)
    assert main(f"resume={folder}", "trainer.epochs=2") == 0
    out = capsys.readouterr().out
    assert FROZEN in out and "tensors loaded" not in out
    after = weights_of(folder)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"output.weight", "output.bias"}


def test_checkpoint_with_other_classes_gives_everything_but_the_classifier(here, capsys):
    assert main(*MUTE, "freeze=[]", "name=first") == 0
    best = Path(capsys.readouterr().out.splitlines()[-1]) / "checkpoints" / "best.pt"
    random_images(here / "images")
    words = ("data=image_folder", f"data.folder={here / 'images'}", "data.image_size=32")
    words += ("data.in_channels=1", "data.batch_size=4", f"model.weights={best}")
    assert main(*MUTE, *words, "logger.console=off") == 0
    out = capsys.readouterr().out
    assert "8 tensors loaded; fresh: output.weight, output.bias" in out
    first, last = weights_of(best.parents[1]), weights_of(out.splitlines()[-1])
    assert last["output.weight"].shape == (3, 84)
    assert torch.equal(first["c1.weight"], last["c1.weight"])


def random_images(folder):
    from PIL import Image

    for name, grey in (("a", 0), ("b", 100), ("c", 200)):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (32, 32), grey + i).save(folder / name / f"{i}.png")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.weights=nowhere.pth"], "model.weights=nowhere.pth: there is no such file"),
        (["model.weights=text.pth"], "model.weights=text.pth: "),
        (["model.weights=other.pth"], "model.weights=other.pth: does not fit the model"),
        (["model.weights=3"], "model.weights=3: must be text or null"),
        (["model.weight=a.pth"], "did you mean one of weights, "),
        (["freeze=[outptu.*]"], "freeze=outptu.*: no parameter matches; did you mean 'output.*'"),
        (["freeze=['*']"], "freeze=*: leaves nothing to train"),
        (["freeze=c1.*"], "freeze='c1.*': must be a list"),
        (["freez=[a]"], "did you mean 'freeze'?"),
        (["model.weights.a=3"], "model.weights"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_run_folder(here, words, said, capsys):
    (here / "text.pth").write_text("text")
    torch.save({"a": torch.rand(2)}, here / "other.pth")
    assert main(*MUTE, *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert {path.name for path in here.iterdir()} == {"text.pth", "other.pth"}


def test_sweep_over_frozen_layers_is_checked_as_a_whole(here, capsys):
    words = ("-m", *MUTE, "freeze=[c1.*],[c9.*]")
    assert main(*words) == 2
    assert "freeze=c9.*: no parameter matches" in capsys.readouterr().err
    assert list(here.iterdir()) == []
    assert main("-m", *MUTE, "freeze=[c1.*],[c3.*]") == 0
    folder = here / capsys.readouterr().out.splitlines()[-1]
    states = [json.loads(p.read_text())["state"] for p in folder.glob("*/status.json")]
    assert states == ["finished", "finished"]
