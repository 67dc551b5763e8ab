"""The program from the outside: what it prints, where it writes, how it ends."""

import csv
import getpass
import json
import socket
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import train
from zoo.data.images.digits import Digits

ROOT = Path(__file__).parents[2]
TINY = (
    "trainer.epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_eval_batches=2",
    "logger.graph=false",
)
MUTE = (*TINY, "logger=off")


def start(*words, cwd):
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def program(*words, cwd):
    process = start(*words, cwd=cwd)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def run_folder(out):
    return Path(out.splitlines()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory far from the repository, whose name has everything Hydra minds."""
    path = tmp_path_factory.mktemp("cli") / "a b=c, (1)~'"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def finished(place):
    code, out, err = program(*TINY, "seed=1", "optimizer.lr=0.003", "paths.runs_dir=out", cwd=place)
    assert code == 0, err
    return place, out, err


@pytest.fixture(scope="module")
def swept(place):
    words = ("-m", *TINY, "seed=0,1", "optimizer.lr=1e30,0.003", "paths.runs_dir=swept")
    return place, *program(*words, cwd=place)


# ------------------------------------------------------------------------------------ one run


def test_last_line_is_the_run_folder_relative_to_where_it_was_started(finished):
    place, out, err = finished
    path = run_folder(out)
    assert err == ""
    assert path.parts[:2] == ("out", "lenet_digits")
    assert len(path.parts) == 3
    assert not set(path.name) & set("=, ")
    assert (place / path).is_dir()
    assert [p.name for p in place.iterdir() if p.name != "swept"] == ["out"]


def test_output_names_the_metrics_of_both_splits_and_what_to_do_next(finished):
    _, out, _ = finished
    assert "loss" in out
    assert "accuracy" in out
    assert "61,706 parameters, 2 steps" in out
    assert "tensorboard --logdir out/" in out
    assert "evaluate.py run=" in out


def test_run_folder_holds_what_belongs_to_it(finished):
    place, out, _ = finished
    folder = place / run_folder(out)
    names = {p.name for p in folder.iterdir() if not p.name.startswith((".", "events."))}
    files = {"config.yaml", "overrides.yaml", "environment.json", "status.json", "metrics.jsonl"}
    files |= {"data.json", "results.json", "checkpoints"}
    assert files <= names <= files | {"val", "test", "images", "log.txt"}
    assert {p.name for p in (folder / "checkpoints").iterdir()} >= {"last.pt", "best.pt"}
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.rglob("*.tmp"))


def test_stored_configuration_has_the_sizes_of_the_data_filled_in(finished):
    place, out, _ = finished
    text = (place / run_folder(out) / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert config["model"] == {
        "_target_": "zoo.models.vision.lenet.lenet5",
        "num_classes": 10,
        "in_channels": 1,
        "image_size": 32,
    }
    assert config["task"]["class_names"] == list("0123456789")
    parts = {k: config[k] for k in ("data", "model", "task", "optimizer", "schedule")}
    assert "auto" not in yaml.safe_dump(parts)
    assert "${" not in text
    assert config["seed"] == 1


def test_stored_overrides_are_the_words_of_the_command_line(finished):
    place, out, _ = finished
    words = yaml.safe_load((place / run_folder(out) / "overrides.yaml").read_text())
    assert words == [*TINY, "seed=1", "optimizer.lr=0.003", "paths.runs_dir=out"]


def test_environment_tells_versions_and_machine_and_nothing_of_the_user(finished):
    place, out, _ = finished
    found = json.loads((place / run_folder(out) / "environment.json").read_text())
    assert set(found) == {
        *("python", "packages", "system", "machine", "device", "gpu", "cuda", "cpu_capability"),
        *("cores", "threads", "commit", "dirty"),
    }
    packages = {"torch", "torchvision", "numpy", "hydra-core", "omegaconf", "tensorboard"}
    assert set(found["packages"]) <= packages
    values = [str(value) for value in (*found.values(), *found["packages"].values())]
    assert socket.gethostname() not in values
    assert getpass.getuser() not in values
    assert not any(str(Path.home()) in value or str(ROOT) in value for value in values)


def test_status_and_results_are_those_of_a_finished_run(finished):
    place, out, _ = finished
    folder = place / run_folder(out)
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "finished"
    assert status["error"] is None
    assert {"pid", "heartbeat", "started"} <= set(status)
    results = json.loads((folder / "results.json").read_text())
    assert {"val", "test", "parameters", "steps", "seconds", "samples_per_second"} <= set(results)
    assert set(results["val"]) == set(results["test"]) == {"loss", "accuracy", "calibration_error"}
    assert (results["parameters"], results["steps"]) == (61_706, 2)


def test_every_line_of_the_metrics_is_an_object_with_its_place(finished):
    place, out, _ = finished
    folder = place / run_folder(out)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    for row in rows:
        assert list(row)[:3] == ["step", "epoch", "split"]
        assert all(isinstance(v, int | float) for k, v in row.items() if k != "split")
    results = json.loads((folder / "results.json").read_text())
    for split in ("val", "test"):
        (row,) = (row for row in rows if row["split"] == split)
        assert {k: row[k] for k in results[split]} == results[split]


def test_finished_run_is_not_trained_again(finished):
    place, out, _ = finished
    path = run_folder(out)
    before = {p: p.stat().st_mtime_ns for p in (place / path).rglob("*")}
    code, again, err = program(f"resume={path}", cwd=place)
    assert (code, err) == (0, "")
    assert "finished" in again
    assert run_folder(again) == path
    assert {p: p.stat().st_mtime_ns for p in (place / path).rglob("*")} == before


def test_two_runs_in_the_same_second_have_two_folders(tmp_path):
    runs = [start(*MUTE, "trainer.threads=1", cwd=tmp_path) for _ in range(2)]
    outs = [process.communicate(timeout=240)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0]
    folders = {run_folder(out) for out in outs}
    assert len(folders) == 2
    for folder in folders:
        status = json.loads((tmp_path / folder / "status.json").read_text())
        assert status["state"] == "finished"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_for_people(flag, tmp_path):
    code, out, err = program(flag, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "python train.py experiment=" in out
    assert "lenet_digits" in out
    assert list(tmp_path.iterdir()) == []


def test_version_names_what_a_report_needs(tmp_path):
    code, out, err = program("--version", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("zoo ")
    assert "torch" in out
    assert "Python" in out


# -------------------------------------------------------------------------------------- a sweep


def rows_of(swept):
    place, _, out, _ = swept
    with open(place / run_folder(out) / "sweep.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_sweep_with_a_failing_job_runs_the_others_and_ends_with_1(swept):
    place, code, out, err = swept
    assert code == 1
    assert err.count("not finite") == 2
    assert "Traceback" not in err
    folder = run_folder(out)
    assert folder.parts[:2] == ("swept", "lenet_digits")
    assert folder.name.startswith("sweep-")
    jobs = sorted(p.name for p in (place / folder).iterdir() if p.is_dir())
    assert jobs == [
        "0-seed-0-lr-1e+30",
        "1-seed-0-lr-0.003",
        "2-seed-1-lr-1e+30",
        "3-seed-1-lr-0.003",
    ]
    states = [json.loads((place / folder / j / "status.json").read_text()) for j in jobs]
    assert [s["state"] for s in states] == ["failed", "finished", "failed", "finished"]
    assert "not finite" in states[0]["error"]


def test_table_of_a_sweep_has_every_job_best_first_and_failures_last(swept):
    rows = rows_of(swept)
    assert [row["state"] for row in rows] == ["finished", "finished", "failed", "failed"]
    assert {row["job"] for row in rows[:2]} == {"1", "3"}
    assert {row["monitor"] for row in rows[:2]} == {"val/accuracy"}
    values = [float(row["val/accuracy"]) for row in rows[:2]]
    assert values == sorted(values, reverse=True)
    assert all("not finite" in row["error"] for row in rows[2:])
    assert {(row["seed"], float(row["optimizer.lr"])) for row in rows} == {
        *(("0", 1e30), ("1", 1e30), ("0", 0.003), ("1", 0.003))
    }


def test_sweep_gives_mean_and_deviation_over_seeds(swept):
    rows = rows_of(swept)
    values = [float(row["val/accuracy"]) for row in rows[:2]]
    for row in rows[:2]:
        assert float(row["mean"]) == pytest.approx(statistics.fmean(values))
        assert float(row["deviation"]) == pytest.approx(statistics.stdev(values))
    assert rows[2]["mean"] == ""
    out = swept[2]
    assert "2 seeds" in out
    assert f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}" in out


def test_sweep_prints_a_table_with_the_failed_jobs(swept):
    lines = swept[2].splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:2] == ["job", "state"])
    assert {"seed", "optimizer.lr", "val/accuracy"} <= set(lines[header].split())
    table = [line.split()[:2] for line in lines[header + 1 : header + 5]]
    assert sorted(table) == [["0", "failed"], ["1", "finished"], ["2", "failed"], ["3", "finished"]]
    assert any(line.startswith("job 0 failed: ") for line in lines)


def test_job_of_a_sweep_is_the_run_that_it_would_be_alone(swept, finished):
    place, _, out, _ = swept
    job = next((place / run_folder(out)).glob("3-*"))
    alone = place / run_folder(finished[1])
    mine, other = (json.loads((f / "results.json").read_text()) for f in (job, alone))
    assert mine["val"] == other["val"]
    assert mine["test"] == other["test"]
    configs = [yaml.safe_load((f / "config.yaml").read_text()) for f in (job, alone)]
    for config in configs:
        del config["paths"]
    assert configs[0] == configs[1]


# -------------------------------------------------- the same program within this process: cheaper


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main(*words):
    return train.main(words)


def test_sweep_in_which_all_goes_well_ends_with_0(here, capsys):
    assert main("-m", *MUTE, "seed=0,1", "model=mlp") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(p.name for p in (here / lines[-1]).iterdir() if p.is_dir()) == [
        *("0-seed-0", "1-seed-1")
    ]
    assert here.joinpath(lines[-2]).name == "sweep.csv"


@pytest.fixture
def setups(monkeypatch):
    """The seeds with which the digits are set up."""
    seeds = []
    original = Digits.setup

    def setup(self, *, seed=0, **more):
        seeds.append(seed)
        original(self, seed=seed, **more)

    monkeypatch.setattr(Digits, "setup", setup)
    return seeds


def test_sweep_sets_up_data_once_to_check_all_runs_and_once_for_each(here, setups):
    assert main("-m", *MUTE, "optimizer.lr=0.001,0.002,0.003") == 0
    assert len(setups) == 4


def test_runs_of_a_sweep_whose_data_differ_are_checked_with_their_own(here, setups):
    assert main("-m", *MUTE, "data.batch_size=16,8", "seed=0,1") == 0
    assert len(setups) == 2 + 4
    assert setups[2:] == [0, 1, 0, 1]


def test_sweep_with_a_run_that_does_not_fit_its_data_runs_nothing(here, setups, capsys):
    assert main("-m", *MUTE, "model=mlp,char_lstm", "seed=0,1") == 2
    assert "model.vocab_size=auto" in capsys.readouterr().err
    assert len(setups) == 1
    assert list(here.iterdir()) == []


def test_data_that_cannot_be_set_up_fail_each_run_and_not_the_sweep(here, capsys):
    assert main("-m", *MUTE, "experiment=null", "data=image_folder", "data.root=a,b") == 1
    out, err = capsys.readouterr()
    assert err.count("error: ") == 2
    assert "failed" in out


def test_sweep_without_an_experiment_trains_plain_defaults_in_every_job(here, capsys):
    assert main("-m", *MUTE, "experiment=null", "seed=0,1") == 0
    folder = here / capsys.readouterr().out.splitlines()[-1]
    assert folder.parent.name == "lenet5_digits"
    for job in ("0-seed-0", "1-seed-1"):
        config = yaml.safe_load((folder / job / "config.yaml").read_text())
        assert config["name"] == "lenet5_digits"
        assert config["optimizer"]["lr"] == 1e-3
        assert config["data"]["augment"] is False


def test_sweep_over_groups_of_ones_own(here, capsys, monkeypatch):
    (here / "swept_package.py").write_text(
        "from torch import nn\n"
        "def net(in_features: int, num_classes: int) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))\n"
    )
    folder = here / "own, (1)" / "model"
    folder.mkdir(parents=True)
    text = "_target_: swept_package.net\nin_features: auto\nnum_classes: auto\n"
    (folder / "net.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(here))
    words = ("--config-dir", "own, (1)", "trusted=[swept_package]", "model=net,softmax_regression")
    assert main("-m", *MUTE, *words) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = sorted(p.name for p in (here / lines[-1]).iterdir() if p.is_dir())
    assert jobs == ["0-model-net", "1-model-softmax_regression"]
    found = [yaml.safe_load((here / lines[-1] / j / "config.yaml").read_text()) for j in jobs]
    assert found[0]["model"]["in_features"] == found[1]["model"]["in_features"] == 1024


def test_debug_runs_have_a_folder_of_their_own(here, capsys):
    assert main("debug=fast", "logger=off") == 0
    path = run_folder(capsys.readouterr().out)
    assert path.parts[:2] == ("runs", "debug")
    assert (here / path / "results.json").exists()


def test_run_that_turns_infinite_fails_in_one_line_and_says_so_in_its_folder(here, capsys):
    assert main(*MUTE, "optimizer.lr=1e30") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "not finite at step 2" in err
    assert err.count("\n") == 1
    (folder,) = (here / "runs" / "lenet_digits").iterdir()
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed"
    assert "not finite at step 2" in status["error"]
    assert not (folder / "results.json").exists()


def test_missing_data_fail_in_one_line_and_leave_no_run_folder(here, capsys):
    assert main(*MUTE, "data=image_folder", "data.root=missing") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "missing" in err
    assert err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_folder_that_cannot_be_made_is_named_with_the_way_out(here, capsys):
    (here / "file").touch()
    assert main(*MUTE, "paths.runs_dir=file") == 1
    err = capsys.readouterr().err
    assert "file" in err
    assert "paths.runs_dir" in err
    assert err.count("\n") == 1
    assert [p.name for p in here.iterdir()] == ["file"]


def test_sweep_whose_folder_cannot_be_made_is_refused_too(here, capsys):
    (here / "file").touch()
    assert main("-m", *MUTE, "paths.runs_dir=file", "seed=0,1") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_traceback_is_shown_where_it_is_asked_for(here, capsys, monkeypatch):
    monkeypatch.setenv("ZOO_TRACEBACK", "1")
    assert main("trainer.epochs=0") == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: trainer.epochs")


def test_run_outside_the_working_directory_is_named_in_full(here, capsys, tmp_path_factory):
    runs = tmp_path_factory.mktemp("elsewhere")
    assert main(*MUTE, f"paths.runs_dir={runs}", "name=mine") == 0
    path = run_folder(capsys.readouterr().out)
    assert path.is_absolute()
    assert path.parent == runs / "mine"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=gcn", "data=digits"], "do not fit together"),
        (
            ["experiment=lenet_digits", "task=regression"],
            "data, model and task do not fit together",
        ),
        (["callbacks.checkpoint.monitor=acuracy"], "callbacks.checkpoint.monitor=acuracy"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_there_is_a_run_folder(
    words, said, tmp_path, capsys
):

    assert train.main([*words, f"paths.runs_dir={tmp_path}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["trainer.strategy=fsdp"], ["trainer.sync_batchnorm=true"]])
def test_what_is_for_several_processes_is_refused_in_one(words, tmp_path, capsys):
    assert train.main(["experiment=lenet_digits", *words, f"paths.runs_dir={tmp_path}"]) == 2
    assert "is for several processes, and this is one" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
