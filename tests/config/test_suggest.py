"""What is offered for a word that is not understood, and words that mean more than they say."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.config.test_refusals import assert_one_line
from zoo.app.place import NOTHING
from zoo.config import compose as composition
from zoo.config.compose import compose, compose_plain
from zoo.config.errors import did_you_mean
from zoo.config.run_config import merge

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lr=0.1", "did you mean optimizer.lr=0.1?"),
        ("epochs=3", "did you mean trainer.epochs=3?"),
        ("batch_size=3", "did you mean data.batch_size=3?"),
        ("learning_rate=3", "did you mean optimizer.lr=3?"),
        ("workers=3", "did you mean data.num_workers=3?"),
        ("device=cpu", "did you mean trainer.device=cpu?"),
        ("patience=2", "callbacks.early_stopping.patience=2 or "),
        ("num_heads=2", "did you mean model.num_heads=2?"),
        ("warmup_steps=5", "did you mean schedule.warmup_steps=5?"),
        ("modle=mlp", "did you mean 'model'?"),
        ("--lr 0.1", "settings are written key=value: optimizer.lr="),
        ("--lr=0.1", "settings are written key=value: optimizer.lr=0.1"),
        ("--batch-size=3", "settings are written key=value: data.batch_size=3"),
        ("--max-epochs=3", "settings are written key=value: trainer.epochs=3"),
        ("--hlep", "did you mean '--help'?"),
        ("lenet_digits", "did you mean experiment=lenet_digits?"),
        ("resnet50", "did you mean model=resnet50?"),
        ("cifar10", "did you mean data=cifar10?"),
        ("model=resnext", "did you mean one of resnext101_32x8d, "),
        ("trainer.device=cuda:99999999999999", "must be auto, cpu, cuda or cuda:<number>"),
        ("trainer.threads=100000", "threads must be at most 1024"),
        (f"name={'n' * 300}", "name must have at most 200 bytes"),
        ("callbacks.checkpoint.top_k=2 callbacks.checkpoint={top_k:3}", "omit one"),
        ("callbacks={checkpoint:{top_k:3}} callbacks.checkpoint.top_k=2", "one option"),
        ("optimizer.groups={a:{lr:1}} optimizer.groups.b={lr:1}", "omit one"),
    ],
)
def test_what_was_meant_is_offered(words, said, command):
    assert_one_line(command(words), said)


def test_family_is_listed_and_a_long_list_is_cut(command):
    err = command("model=resnet").err
    assert "did you mean one of resnet101, " in err and "resnet56?" in err and "vgg" not in err
    err = command("model=nonesuch").err
    assert "more (python train.py --help lists all)" in err and len(err) < 500
    assert did_you_mean("x", [f"name{i}" for i in range(25)]).count(",") == 24


def test_advice_for_a_missing_device_is_itself_accepted(command):
    from zoo.training.precision import resolve_device

    with pytest.raises(ValueError, match=r"trainer\.device=auto takes a"):
        resolve_device("cuda:999")
    assert command("trainer.device=auto").configs


def test_group_and_value_within_it_go_together(command):
    assert command("optimizer=sgd optimizer.lr=0.1 callbacks.checkpoint.top_k=2").configs


@pytest.mark.parametrize("word", ["data.root=~/x", "data.root=~", "paths.runs_dir=~/a b"])
def test_tilde_is_the_home_folder(word, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "it's home"))
    top, key = word.partition("=")[0].split(".")
    config = compose(["experiment=mlp_mnist", word]).config
    rest = word.partition("~")[2]
    assert config[top][key] == f"{tmp_path}/it's home{rest}"
    again = merge(config, [f"paths.runs_dir=~{rest}"])
    assert again.config["paths"]["runs_dir"] == f"{tmp_path}/it's home{rest}"


def test_tilde_in_a_file_and_in_the_environment_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/at/home")
    monkeypatch.setenv("ZOO_DATA_DIR", "~/data")
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\npaths:\n  runs_dir: ~/runs\n")
    config = compose(["experiment=mine"], config_dir=str(tmp_path)).config
    assert config["paths"] == {"runs_dir": "/at/home/runs", "data_dir": "/at/home/data"}


# ------------------------------------------------------------------------- files of one's own


def test_file_of_ones_own_wins_over_the_zoos_and_that_is_said(tmp_path):
    (tmp_path / "model").mkdir()
    text = "_target_: zoo.models.mlp.MLP\nin_features: auto\nnum_classes: auto\nhidden_sizes: [7]\n"
    (tmp_path / "model" / "mlp.yaml").write_text(text)
    with pytest.warns(UserWarning, match=r"model=mlp is .*model/mlp\.yaml, not the zoo's"):
        config = compose(["model=mlp"], config_dir=str(tmp_path)).config
    assert config["model"]["hidden_sizes"] == [7]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "mlp" in compose(["model=mlp"]).config["model"]["_target_"]
        other = compose(["model=lenet5"], config_dir=str(tmp_path)).config
        assert "lenet" in other["model"]["_target_"]


def test_copy_of_all_files_is_as_good_as_the_originals(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = compose(["experiment=gan_digits"], config_dir=str(tmp_path / "configs")).config
    assert own == compose(["experiment=gan_digits"]).config


FOCAL = """
from zoo.tasks.classification import Classification

class Focal(Classification):
    def __init__(self, model, num_classes: int, gamma: float = 2.0) -> None:
        super().__init__(model, num_classes=num_classes)
"""


@pytest.mark.filterwarnings("ignore:focal_package")
def test_subclass_in_the_place_of_a_component_is_not_given_the_others_arguments(
    tmp_path, monkeypatch
):
    (tmp_path / "focal_package.py").write_text(FOCAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    target = "task._target_=focal_package.Focal"
    named = dict(trusted=["focal_package"])
    with pytest.warns(UserWarning, match=r"has no .*task\.label_smoothing.*: omitted"):
        config = compose([target, "task.gamma=3"], **named).config
    assert config["task"] == {
        "_target_": "focal_package.Focal",
        "num_classes": "auto",
        "gamma": 3,
    }
    with pytest.raises(composition.ConfigError, match=r"task\.label_smoothing=0\.1: .*no such"):
        compose([target, "task.label_smoothing=0.1"], **named)
    with pytest.raises(composition.ConfigError, match=r"did you mean 'task\.gamma'"):
        compose([target, "task.gama=1"], **named)


# ------------------------------------------------------------------------------ before anything


@pytest.mark.parametrize("where", ["hydra_compose", "initialize_config_dir"])
def test_interruption_while_composing_is_one(where, monkeypatch, command):
    def stumble(*args, **named):
        try:
            raise KeyboardInterrupt
        finally:
            None.attribute  # noqa: B018 - what Hydra's own cleaning up may run into

    monkeypatch.setattr(composition, where, stumble)
    answer = command("seed=3")
    assert (answer.code, answer.err) == (130, f"stopped at once; nothing is saved\n{NOTHING}\n")
    with pytest.raises(KeyboardInterrupt):
        compose_plain([])


PROGRAMS = [
    *("train.py", "evaluate.py"),
    *(f"scripts/{file.name}" for file in sorted((ROOT / "scripts").glob("*.py"))),
]


@pytest.mark.parametrize("program", [p for p in PROGRAMS if "__main__" in (ROOT / p).read_text()])
def test_python_without_the_packages_is_told_what_to_do(program, tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", ROOT / program, "--help"],  # -S: without site-packages
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: torch is not installed for ")
    assert ".venv/bin/activate" in done.stderr and done.stderr.count("\n") == 1


def test_groups_of_ones_own_are_looked_up_where_the_user_stands_now(tmp_path, monkeypatch):
    from zoo.config.overrides import options

    for place, name in (("a", "mine"), ("b", "another")):
        (tmp_path / place / "own" / "model").mkdir(parents=True)
        (tmp_path / place / "own" / "model" / f"{name}.yaml").touch()
        monkeypatch.chdir(tmp_path / place)
        assert name in options("model", "own")
