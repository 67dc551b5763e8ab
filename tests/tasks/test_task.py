import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from torch import nn

from zoo.app.rebuild import prepare_evaluation
from zoo.metrics.sums import ConfusionMatrix, Mean
from zoo.tasks.prediction import Prediction
from zoo.tasks.task import Image, Objective, Task, TaskOptions, evaluation_mode, inputs_of

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "task").glob("*.yaml"))


class SquaredDistance(Task):
    def loss(self, batch):
        return self.model(batch).square().mean(), batch.numel()


def test_ordinary_task_yields_its_loss_as_the_one_objective_of_the_one_network():
    model, batch = nn.Identity(), torch.tensor([1.0, 3.0])
    task = SquaredDistance(model)
    (objective,) = task.objectives(batch)
    assert objective == Objective(torch.tensor(5.0), 2, "model")
    assert task.networks() == {"model": model}


def test_a_loss_may_name_its_parts():
    class Parts(SquaredDistance):
        def loss(self, batch):
            loss, count = super().loss(batch)
            return loss, count, {"half": loss.detach() / 2}

    (objective,) = Parts(nn.Identity()).objectives(torch.tensor([1.0, 3.0]))
    assert objective.network == "model" and objective.count == 2
    assert objective.terms == {"half": torch.tensor(2.5)}


def test_an_image_is_drawn_only_if_somebody_looks():
    drawn = []
    image = Image(lambda: drawn.append(1) or torch.zeros(3, 2, 2))
    assert drawn == []
    assert image.pixels.shape == (3, 2, 2)
    assert drawn == [1]
    assert torch.equal(Image(torch.ones(3, 1, 1)).pixels, torch.ones(3, 1, 1))


def test_a_task_that_predicts_nothing_says_so():
    assert Task.predicts is None
    with pytest.raises(NotImplementedError, match="SquaredDistance does not define predict"):
        SquaredDistance(nn.Identity()).predict(torch.zeros(1))


def test_nothing_is_computed_before_an_objective_is_asked_for():
    iterator = SquaredDistance(nn.Identity()).objectives("no batch")
    with pytest.raises(AttributeError):
        next(iterator)


def test_compute_gives_numbers_flattens_dictionaries_and_leaves_out_matrices():
    class Two(Mean):
        def compute(self):
            return {"low": 1, "high": torch.tensor(2.0)}

    task = Task(nn.Identity())
    task.metrics = {"loss": Mean(), "two": Two(), "matrix": ConfusionMatrix(2)}
    task.metrics["loss"].update(0.5)
    assert task.compute() == {"loss": 0.5, "low": 1.0, "high": 2.0}
    assert all(isinstance(value, float) for value in task.compute().values())


def test_metrics_of_torchmetrics_fit_in():
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    task = Task(nn.Identity())
    task.metrics = {"mean": torchmetrics.MeanMetric()}
    task.to("cpu").metrics["mean"].update(torch.tensor([1.0, 2.0]))
    assert task.compute() == {"mean": 1.5}
    task.reset()
    task.metrics["mean"].update(7.0)
    assert task.compute() == {"mean": 7.0}


def test_task_without_state_refuses_the_state_of_another():
    task = SquaredDistance(nn.Identity())
    task.load_state_dict(task.state_dict())
    with pytest.raises(ValueError, match=r"SquaredDistance keeps no state, but was given \['x'\]"):
        task.load_state_dict({"x": 1})


def test_inputs_come_first_in_a_batch_or_are_the_batch():
    x = torch.zeros(2)
    assert inputs_of(x) is x and inputs_of((x, 1)) is x and inputs_of([x]) is x


def test_evaluation_mode_gives_every_submodule_its_mode_back_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with pytest.raises(KeyError), evaluation_mode(model):
        assert not model[0].training and not torch.is_grad_enabled()
        raise KeyError
    assert model.training and model[0].training and not model[1].training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_names_a_task_and_arguments_that_it_has(path):
    assert path.read_text().startswith("# ")
    config = yaml.safe_load(path.read_text())
    module, name = config.pop("_target_").rsplit(".", 1)
    config = {key: config[key] for key in config if key not in TaskOptions.__annotations__}
    task = getattr(import_module(module), name)
    assert issubclass(task, Task) and path.stem == module.rsplit(".", 1)[1]
    parameters = dict(inspect.signature(task).parameters)
    if parameters.pop("options", None):  # **options of the class that it derives from
        parameters = dict(inspect.signature(task.__base__).parameters) | parameters
    assert task.predicts in get_args(Prediction)
    assert {*task.given, *task.changeable} <= set(parameters)
    assert set(task.given) == {name for name in parameters if name.endswith("vocabulary")}
    assert set(config) == set(parameters) - {"model", *task.given}
    for key, value in config.items():
        value = tuple(value) if isinstance(value, list) else value
        assert value == "auto" or value == parameters[key].default


RUNS = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.mark.parametrize("folder", sorted(RUNS.iterdir()), ids=lambda folder: folder.name)
def test_every_number_of_a_task_knows_its_direction(folder):
    results = json.loads((folder / "results.json").read_text())
    task = prepare_evaluation(folder).task
    assert set(results["val"]) <= set(task.directions())
    own, task.monitor = task.monitor, "another"
    assert task.directions()[own] == task.mode == results["mode"]
