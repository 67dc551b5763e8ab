"""Which run `run=` and `resume=` mean, and what is offered to be typed after one."""

import os
import re
import shlex
import signal
from pathlib import Path

import pytest

import evaluate
import train
from zoo.app import main as entry
from zoo.app.named_runs import checkpoint_of, find_run
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError
from zoo.training.interruption import Interrupted

TINY = (
    *("trainer.epochs=1", "trainer.limit_train_batches=1", "trainer.limit_eval_batches=1"),
    *("logger=off", "model=softmax_regression", "data=digits"),
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three run folders, one of them in a sweep; `new` wrote last."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("a/new", "b/sweep-1/0-old", "a/older")):
        folder = tmp_path / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        for file in ("config.yaml", "status.json", "checkpoints/last.pt", "checkpoints/best.pt"):
            (folder / file).touch()
        os.utime(folder / "status.json", (1e9 - age, 1e9 - age))
    return Path("runs")


def found(key, text, *overrides, **options):
    line = CommandLine(overrides=list(overrides), options={key: text} | options)
    return find_run(line, key), line.options


@pytest.mark.parametrize("key", ["run", "resume"])
def test_latest_is_the_run_that_wrote_last(runs, key):
    assert found(key, "latest")[0] == runs / "a" / "new"
    os.utime(runs / "b" / "sweep-1" / "0-old" / "status.json")
    assert found(key, "latest")[0] == runs / "b" / "sweep-1" / "0-old"
    runs.rename("elsewhere")
    with pytest.raises(ConfigError, match="there is no run below runs"):
        found(key, "latest")
    assert found(key, "latest", "paths.runs_dir=elsewhere")[0].parts[0] == "elsewhere"


def test_folder_called_latest_is_itself(runs):
    (runs / "a" / "new").rename("latest")
    assert found("run", "latest")[0] == Path("latest")


@pytest.mark.parametrize("within", ["checkpoints/last.pt", "checkpoints", "config.yaml"])
@pytest.mark.parametrize("key", ["run", "resume"])
def test_run_is_known_by_what_is_in_it(runs, key, within):
    folder = runs / "a" / "older"
    path, options = found(key, str(folder / within))
    assert path == folder
    assert options[key] == str(folder)
    assert options.get("checkpoint") == ("last" if within.endswith(".pt") else None)


@pytest.mark.parametrize("key", ["run", "resume"])
def test_a_checkpoint_that_is_named_is_the_one_that_is_used(runs, key):
    best = runs / "a" / "new" / "checkpoints" / "best.pt"
    assert found(key, str(best))[1]["checkpoint"] == "best"
    kept = best.with_name("kept-3.pt")
    kept.touch()
    assert found(key, str(kept))[1]["checkpoint"] == str(kept)
    with pytest.raises(ConfigError, match="checkpoint=last another"):
        found(key, str(best), checkpoint="last")


def test_checkpoint_is_known_by_its_name_or_its_path(runs):
    run = runs / "a" / "new"
    kept = run / "checkpoints" / "kept-3.pt"
    kept.touch()
    for name in ("kept-3", "kept-3.pt", str(kept)):
        assert checkpoint_of(run, name) == str(kept)
    assert checkpoint_of(run, "previous") == "previous"  # What there is instead is said later.
    with pytest.raises(ConfigError, match=r"=kept-4: .* this run has best, kept-3, last$"):
        checkpoint_of(run, "kept-4")


def test_folder_of_runs_says_which(runs):
    with pytest.raises(ConfigError, match=r"holds 2; the latest is resume=runs/a/new"):
        found("resume", "runs/a")
    with pytest.raises(ConfigError, match="there is no such folder"):
        found("run", "runs/c")
    Path("empty").mkdir()
    with pytest.raises(ConfigError, match="is not a run folder"):
        found("run", "empty")


def test_tilde_is_the_home_folder(runs, monkeypatch):
    monkeypatch.setenv("HOME", str(runs.resolve()))
    assert found("run", "~/a/new")[0] == runs.resolve() / "a" / "new"


def test_every_offered_command_can_be_typed_where_the_run_was_started(
    tmp_path, monkeypatch, capsys
):
    """With groups and components of one's own, in a folder whose name needs quotes."""
    place = tmp_path / "it's here"
    (place / "own" / "model").mkdir(parents=True)
    monkeypatch.chdir(place)
    (place / "offered_nets.py").write_text(
        "from torch import nn\n"
        "def net(in_features: int, num_classes: int) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))\n"
    )
    text = "_target_: offered_nets.net\nin_features: auto\nnum_classes: auto\n"
    (place / "own" / "model" / "net.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(place))
    words = ["--config-dir", "own", "trusted=[offered_nets]", "model=net", "name=my_run"]
    assert train.main([*words, *[w for w in TINY if not w.startswith("model=")]]) == 0
    offered = re.findall(r"^(look at it|judge it|try next): +(.*)$", capsys.readouterr().out, re.M)
    assert len(offered) == 3
    for name, command in offered:
        python, *rest = shlex.split(command)
        if name == "look at it":
            assert Path(rest[-1]).is_dir()
            continue
        program = {"train.py": train.main, "evaluate.py": evaluate.main}[Path(rest[0]).name]
        assert Path(rest[0]).is_file() and python
        assert program(rest[1:]) == 0, command
    capsys.readouterr()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Interrupted(signal.SIGINT), 130, "interrupted by SIGINT; the state is saved"),
        (KeyboardInterrupt(), 130, "stopped at once; the last checkpoint stands"),
    ],
)
def test_stopped_run_says_how_it_goes_on(error, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def stop(recipe, place, *, saved=True):
        with place.open(recipe, "cpu", recipe.data.build()) as folder, folder.reporting():
            (folder.path / "checkpoints").mkdir()
            if saved:
                (folder.path / "checkpoints" / "last.pt").touch()
            raise error

    assert entry.main(stop, list(TINY)) == code
    first, second = capsys.readouterr().err.splitlines()
    assert first == said
    (folder,) = Path("runs").glob("*/*")
    assert re.fullmatch(rf"go on with it:  \S+ \S*train\.py resume={folder}", second)
    assert str(error) in (folder / "log.txt").read_text()
    if hasattr(error, "__notes__"):
        del error.__notes__
    assert entry.main(lambda *both: stop(*both, saved=False), list(TINY)) == code
    assert "there is no checkpoint yet in runs" in capsys.readouterr().err
