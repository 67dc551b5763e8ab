import math
import signal
from types import SimpleNamespace

import pytest
import torch
import torchmetrics

from tests.training.tiny import (
    At,
    Rows,
    Samples,
    falling,
    fit,
    mlp,
    new_folder,
    read_results,
    read_rows,
    trainer_of,
)
from zoo.metrics.sums import Mean
from zoo.tasks.classification import Classification
from zoo.training.callbacks import EarlyStopping
from zoo.training.checkpoints.checkpoint import read
from zoo.training.schedules import ReduceOnPlateau
from zoo.training.settings import EarlyStoppingSettings


def test_results_say_what_was_reached_and_with_what(tmp_path):
    folder = new_folder(tmp_path)
    results = trainer_of(epochs=3).fit(folder=folder)
    assert set(results) == {
        "val",
        "test",
        "monitor",
        "mode",
        "parameters",
        "steps",
        "selected_step",
        "ended_by",
        "seconds",
        "samples_per_second",
        "memory_mib",
    }
    assert set(results["val"]) == set(results["test"]) == {"loss", "accuracy", "calibration_error"}
    assert results["memory_mib"] > 50  # of the process, torch included
    assert results["parameters"] == 6 * 8 + 8 + 8 * 3 + 3
    assert (results["monitor"], results["mode"]) == ("accuracy", "max")
    assert results == folder.read("results.json")


def test_the_model_ends_as_the_selected_weights_and_so_do_the_results(tmp_path):
    folder = new_folder(tmp_path)
    model = mlp()
    trainer = trainer_of(model, epochs=6, checkpoints={"monitor": "loss"}, optimizer={})
    for group in trainer.optimizers["model"].param_groups:
        group["initial_lr"] = 0.5  # so large that the last step is not the best
    results = fit(trainer, folder)
    rows = [row for row in read_rows(folder.path) if row["split"] == "val"]
    best = min(rows, key=lambda row: row["loss"])
    assert results["selected_step"] == best["step"] < results["steps"]
    assert results["val"]["loss"] == best["loss"]
    state = read(folder.path / "checkpoints" / "best.pt")
    assert all(torch.equal(v, state["model"][k]) for k, v in model.state_dict().items())


def test_without_a_validation_split_the_last_weights_are_what_counts(tmp_path):
    folder = new_folder(tmp_path)
    results = trainer_of(data=Samples(splits=("train", "test")).setup()).fit(folder=folder)
    assert "val" not in results
    assert set(results["test"]) == {"loss", "accuracy", "calibration_error"}
    assert results["selected_step"] == 12
    assert not (folder.path / "checkpoints" / "best.pt").exists()


def test_a_monitor_that_the_task_does_not_have_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"checkpoint.monitor=f1: there is .*loss.*accuracy"):
        trainer_of(checkpoints={"monitor": "f1"}, epochs=1).fit()


class Named(Classification):
    """Metrics with one name each that no task of the zoo has, whose values a run is told."""

    def __init__(self, model, metrics, values):
        super().__init__(model, num_classes=3)
        self.metrics, self.values, self.evaluations = metrics, values, 0

    def evaluate(self, batch):
        pass

    def compute(self):
        self.evaluations += 1
        value = self.values[min(self.evaluations, len(self.values)) - 1]
        return {"loss": 1.0, "accuracy": 0.5, "quality": value}


QUALITY = {
    "max": [
        Mean(higher_is_better=True),
        torchmetrics.classification.MulticlassF1Score(3),
        SimpleNamespace(higher_is_better={"quality": True}, reset=lambda: None, to=lambda d: None),
    ],
    "min": [Mean(higher_is_better=False), torchmetrics.MeanSquaredError()],
}


@pytest.mark.parametrize(
    ("mode", "metric"), [(mode, metric) for mode, many in QUALITY.items() for metric in many]
)
def test_a_named_metric_is_followed_in_the_direction_that_it_gives(mode, metric, tmp_path):
    def run(folder, **options):
        model, rows = mlp(), Rows()
        # Better and better up to the third, then worse; in the other direction nearly so.
        values = [1.0, 2.0, 3.0, 2.5, 2.0, 1.5, 1.0]
        values = values if mode == "max" else [-value for value in values]
        task = Named(model, {"quality": metric}, values)
        trainer = trainer_of(
            model, task=task, epochs=6, checkpoints={"monitor": "quality"}, log_every=6, **options
        )
        patience = EarlyStopping(EarlyStoppingSettings(patience=2))
        return fit(trainer, folder, [rows, patience]), rows

    results, _ = run(new_folder(tmp_path / "a"))
    assert results["mode"] == mode
    assert results["selected_step"] == 3 * 6  # neither the first nor the last
    assert results["steps"] == 5 * 6  # stopped two evaluations later
    _, rows = run(new_folder(tmp_path / "b"), schedule=ReduceOnPlateau(gamma=0.5, patience=0))
    assert [row["lr"] / 0.01 for row in rows.of("train")] == [1, 1, 1, 1, 0.5]


def test_a_metric_that_does_not_know_its_direction_demands_one():
    model = mlp()
    for metric in (Mean(), torchmetrics.MeanMetric()):
        options = {"task": Named(model, {"quality": metric}, [1.0]), "epochs": 1}
        with pytest.raises(ValueError, match=r"monitor=quality: .*checkpoint\.mode must say"):
            trainer_of(model, checkpoints={"monitor": "quality"}, **options)
        trainer = trainer_of(model, checkpoints={"monitor": "quality", "mode": "max"}, **options)
        assert trainer.fit()["mode"] == "max"


def test_a_mode_that_the_settings_name_goes_before_the_metrics_own():
    trainer = trainer_of(checkpoints={"monitor": "accuracy", "mode": "min"})
    assert trainer.mode == "min"
    assert trainer_of(checkpoints={"monitor": "loss"}).mode == "min"
    assert trainer_of().mode == "max"


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path):
    folder = new_folder(tmp_path)
    trainer = falling((math.nan, 2.0, -math.inf, 3.0), epochs=4)
    assert trainer.fit(folder=folder)["selected_step"] == 2 * 6


@pytest.mark.parametrize(("mode", "rates"), [("min", [1, 1, 1, 0.5]), ("max", [1, 1, 0.5, 0.25])])
def test_a_plateau_of_the_monitored_metric_lowers_the_rate(mode, rates):
    rows, options = Rows(), {"checkpoints": {"monitor": "loss", "mode": mode}, "epochs": 4}
    schedule = ReduceOnPlateau(gamma=0.5, patience=0)
    falling((3.0, 2.0, 2.5), schedule=schedule, log_every=6, **options).fit(callbacks=[rows])
    assert [row["lr"] / 0.01 for row in rows.of("train")] == rates


def best_files(folder):
    return sorted(file.name for file in (folder.path / "checkpoints").glob("*.pt"))


VALUES = (3.0, 1.0, 2.5, 0.5, 0.7, 0.6)


def test_the_best_few_checkpoints_are_kept_and_files_of_others_left_alone(tmp_path):
    folder = new_folder(tmp_path)
    (folder.path / "checkpoints").mkdir()
    foreign = ("step-mine.pt", "step-1.pt", "step-00000001.pt.bak", "notes.txt", "backup.pt")
    for name in foreign:
        (folder.path / "checkpoints" / name).write_text("mine")
    falling(VALUES, epochs=6, checkpoints={"top_k": 3}).fit(folder=folder)
    kept = {"step-00000024.pt": 24, "step-00000036.pt": 36, "step-00000030.pt": 30}
    assert set(best_files(folder)) - set(foreign) == {*kept, "best.pt", "last.pt", "previous.pt"}
    for name, step in {**kept, "best.pt": 24}.items():
        assert read(folder.path / "checkpoints" / name)["position"]["step"] == step
    for name in foreign:
        assert (folder.path / "checkpoints" / name).read_text() == "mine"


@pytest.mark.parametrize("stop", [5, 6, 13, 24, 25, 31])
def test_the_ranking_survives_a_resume(stop, tmp_path):
    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    options = {"epochs": 6, "checkpoints": {"top_k": 3}}
    falling(VALUES, **options).fit(folder=whole)
    interrupt = At(stop, lambda t: setattr(t.signals, "stop", signal.SIGTERM))
    with pytest.raises(BaseException, match="interrupted by SIGTERM"):
        falling(VALUES, **options).fit(folder=parts, callbacks=[interrupt])
    falling(VALUES, **options).fit(folder=parts, resume=True)
    assert best_files(parts) == best_files(whole)
    assert read_results(parts.path) == read_results(whole.path)


def test_the_earlier_of_two_equally_good_checkpoints_stays(tmp_path):
    folder = new_folder(tmp_path)
    assert falling((1.0, 1.0, 1.0), epochs=3).fit(folder=folder)["selected_step"] == 6


def test_two_evaluations_of_one_step_are_one_entry_of_the_ranking(tmp_path):
    folder = new_folder(tmp_path)
    trainer = falling((1.0,), epochs=1, checkpoints={"top_k": 3})
    trainer.fit(folder=folder)
    trainer.checkpoints.rank(0.5, 6)
    assert trainer.checkpoints.ranking == [[0.5, 6, "step-00000006.pt"]]
