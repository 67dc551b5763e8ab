"""The closing table of a sweep: what counts as a repetition, and which way is better."""

import shutil

import pytest
import yaml

import train
from zoo.app.sweeps.table import collect, table
from zoo.config.compose import compose_plain
from zoo.config.errors import ConfigError
from zoo.config.overrides import prepare

MUTE = (
    *("trainer.epochs=1", "trainer.limit_train_batches=1", "trainer.limit_eval_batches=1"),
    *("logger=off", "model=softmax_regression", "data=digits"),
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(here, capsys, *words):
    assert train.main(["-m", *MUTE, *words]) == 0
    out = capsys.readouterr().out
    return here / out.splitlines()[-1], out


def test_the_same_run_is_trained_once_however_its_values_are_written(here, capsys):
    folder, out = sweep(here, capsys, "optimizer.lr=0.1,1e-1", "seed=1,2,1")
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == [
        *("0-lr-0.1-seed-1", "1-lr-0.1-seed-2")
    ]
    for number, first in {2: 0, 3: 0, 4: 1, 5: 0}.items():
        assert f"job {number}: is job {first} again" in out
    assert ", 2 seeds:" in out
    assert " 0.0000" not in out.split("2 seeds:")[1].split("test/loss")[0]  # they do differ


def test_runs_whose_time_is_over_are_interrupted_and_the_sweep_goes_on(here, capsys):
    words = ["seed=1,2", "trainer.time_limit=1e-9", "trainer.limit_train_batches=9"]
    assert train.main(["-m", *(word for word in MUTE if "limit_train" not in word), *words]) == 1
    out = capsys.readouterr().out
    folder = here / out.splitlines()[-1]
    assert [row["state"] for row in collect(folder)] == ["interrupted"] * 2
    assert f"resume={folder.relative_to(here)}\n" in out and "failed=retry" not in out


def test_a_run_that_another_launcher_made_twice_counts_once(here, capsys):
    folder, _ = sweep(here, capsys, "seed=1,2")
    once = {row["job"]: row for row in collect(folder)}
    shutil.copytree(folder / "0-seed-1", folder / "2-seed-1")
    rows = {row["job"]: row for row in collect(folder)}
    assert [rows[job]["repeats"] for job in range(3)] == ["", "", 0]
    for name in ("mean", "deviation"):
        assert rows[0][name] == rows[2][name] == once[0][name]
    text = table(list(rows.values()))
    assert "job 2 is job 0 again, seed included: counted once" in text
    assert ", 2 seeds:" in text


def test_seeds_of_a_failed_run_do_not_hide_those_of_a_finished_one(here, capsys):
    folder, _ = sweep(here, capsys, "seed=1,2")
    shutil.copytree(folder / "0-seed-1", folder / "2-seed-1")
    status = folder / "0-seed-1" / "status.json"
    status.write_text(status.read_text().replace("finished", "failed"))
    rows = {row["job"]: row for row in collect(folder)}
    assert rows[2]["repeats"] == ""


def test_groups_are_runs_that_differ_in_nothing_but_the_seed(here, capsys):
    folder, out = sweep(here, capsys, "optimizer.lr=0.1,0.2", "seed=1,2")
    assert out.count(", 2 seeds:") == 2
    rows = {row["job"]: row for row in collect(folder)}
    assert [rows[job]["group"] for job in range(4)] == [0, 0, 2, 2]
    config = yaml.safe_load((folder / "0-lr-0.1-seed-1" / "config.yaml").read_text())
    assert config["seed"] == 1


@pytest.mark.parametrize(
    "word",
    [
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.direction=[minimize,maximize]",
        "hydra.sweeper.optim.maximize=true",
        "hydra.sweeper.ax_config.experiment.minimize=false",
    ],
)
def test_no_sweeper_is_told_to_look_for_the_worst(word, here, capsys):
    assert train.main(["-m", *MUTE, "seed=1,2", word]) == 2
    err = capsys.readouterr().err
    assert "would search for the worst run" in err and err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_a_file_cannot_tell_it_either(tmp_path):
    file = tmp_path / "hydra" / "sweeper" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: some.Sweeper\ndirection: maximize\n")
    words = prepare(["hydra/sweeper=mine"], str(tmp_path), sweep=True)
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.direction='maximize'"):
        compose_plain(words, str(tmp_path))
    file.write_text("_target_: some.Sweeper\ndirection: minimize\n")
    compose_plain(words, str(tmp_path))


def test_folds_are_repetitions_of_one_experiment(here, capsys):
    """Their mean is that of the cross-validation; another setting is another one."""
    (here / "made").mkdir()
    files = {
        "A": [f"{2 * n + i}, {2 * n + 3 - i}" for n in range(12) for i in (1, 2)],
        "graph_indicator": [n + 1 for n in range(12) for _ in range(2)],
        "graph_labels": [n % 2 for n in range(12)],
    }
    for part, lines in files.items():
        text = "".join(f"{line}\n" for line in lines)
        (here / "made" / f"MADE_{part}.txt").write_text(text)
    words = ["data=tudataset", "data.name=null", "data.folder=made", "data.num_folds=3"]
    words += ["model=deep_multiset", "task=graph_classification", "data.fold=0,1,2"]
    words += [*MUTE[:4], "model.hidden_channels=2,3"]
    assert train.main(["-m", *words]) == 0
    out = capsys.readouterr().out
    folder = here / out.splitlines()[-1]
    rows = collect(folder)
    assert out.count(", 3 repetitions:") == 2
    assert "data.fold=" not in out.split("3 repetitions:")[0].splitlines()[-1]
    for width in ("2", "3"):
        group = [row for row in rows if row["model.hidden_channels"] == width]
        values = [row[row["monitor"]] for row in group]
        assert [row["mean"] for row in group] == pytest.approx([sum(values) / 3] * 3)
        assert sorted(row["data.fold"] for row in group) == ["0", "1", "2"]
        assert all(row["repeats"] == "" for row in group)
