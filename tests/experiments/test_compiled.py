"""Compiled or not, an experiment has the same losses and gradients."""

import contextlib
import copy
import os
import shutil

import pytest
import torch
import yaml
from torch import nn

from faults.tiny import EXPERIMENTS, ROOT, SMALLER, needs_files
from zoo.app.build import build_data
from zoo.config.compose import compose
from zoo.data.download import DataError
from zoo.training.compilation import Compilation
from zoo.training.freezing import training_mode
from zoo.training.precision import prepare
from zoo.training.reproducibility import seed_everything
from zoo.training.settings import TrainerSettings

COMPILE = nn.Module.compile
SMALL = {  # Only to be quicker; and torch does not compile sparse CSR features.
    **SMALLER,
    "densenet_cifar10": ["model.depth=22"],
    "gat_cora": ["data.sparse_features=false"],
    "gcn_cora": ["data.sparse_features=false"],
    "link_prediction_cora": ["data.graph.sparse_features=false"],
    "real_nvp_digits": ["model.hidden_channels=4", "model.num_blocks=1", "data.batch_size=8"],
    "vit_cifar10": [
        *("model.num_layers=2", "model.embed_dim=16", "model.num_heads=2", "model.mlp_dim=16"),
    ],
    "wide_resnet_cifar10": ["model=wide_resnet16_4"],
}
ALIKE = ("googlenet_cifar10", "mobilenetv2_cifar10")  # Long, and of the layers of the others.
DIGITS = ["data=digits", "data.batch_size=4"]  # for networks whose own images are not at hand
INDUCTOR = (
    *("finetune_digits", "reverse_transformer", "conditional_vae_digits", "gan_digits"),
    "gcn_karate",
)


def chosen_by(name):
    """The options of an experiment by their groups."""
    experiment = yaml.safe_load((ROOT / "configs" / "experiment" / f"{name}.yaml").read_text())
    chosen = {group: option for entry in experiment["defaults"] for group, option in entry.items()}
    return {group.removeprefix("override /"): option for group, option in chosen.items()}


def needs_download(name):
    return needs_files(name) and chosen_by(name)["data"] != "cifar10"


def names():
    """An experiment with each pair of a network and a task, one without files if there is one."""
    found = {}
    for name in sorted(EXPERIMENTS, key=lambda name: (needs_files(name), name)):
        chosen = chosen_by(name)
        file = ROOT / "configs" / "model" / f"{chosen['model']}.yaml"
        module = yaml.safe_load(file.read_text())["_target_"].rpartition(".")[0]
        if chosen["data"] != "image_folder" and name not in ALIKE:
            found.setdefault((module, chosen["task"]), name)
    return sorted(found.values())


def build(name):
    digits = DIGITS if chosen_by(name)["data"] == "cifar10" else []
    small = [word for word in SMALL.get(name, []) if not (digits and word.startswith("data."))]
    recipe = compose([f"experiment={name}", *digits, *small])
    data = build_data(recipe)
    try:
        data.setup(seed=0)
    except DataError as error:
        pytest.skip(f"the data of {name} are not there: {error}")
    recipe = recipe.fill_auto(data.all_facts(), data.resolved(), data.lacks())
    seed_everything(0)
    task = recipe.task.build(recipe.model.build(), **data.vocabularies)
    if hasattr(task, "learn_from"):
        task.learn_from(copy.deepcopy(task.model))
    return task, data


def losses_and_gradients(task, batch):
    seed_everything(1)
    training_mode(task.model)
    found = {}
    for number, objective in enumerate(task.every_objective(batch)):
        objective.loss.backward()
        task.end_turn()
        found[f"loss {number}"] = objective.loss.detach()
    return found | {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}


def check(name):
    task, data = build(name)
    if task.differentiates:
        with pytest.raises(ValueError, match=r"^compile=default: the loss of \w+ holds a deriv"):
            prepare(task, TrainerSettings(compile="default"), is_sharded=False)
        return
    batch = next(iter(data.batches("train", 0)))
    expected = losses_and_gradients(copy.deepcopy(task), batch)
    try:
        said = Compilation(task, "default").begin(data, contextlib.nullcontext())
    except ValueError as error:
        if torch.__version__ < (2, 12) and "does not require grad" in str(error):
            pytest.skip("this torch does not see that another network's turn has come")
        raise
    assert " 0 graphs of " not in said
    found = losses_and_gradients(task, batch)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        scale = float(tensor.abs().max())
        close = {"rtol": 1e-4, "atol": 1e-5 * scale + 1e-7}
        torch.testing.assert_close(found[key], tensor, **close, msg=lambda m, k=key: f"{k}: {m}")


@pytest.fixture
def compiler(monkeypatch):
    """Sets the backend; afterwards nothing is left of what has been compiled."""

    def use(backend):
        def compile_module(self):
            COMPILE(self, backend=backend)

        monkeypatch.setattr(nn.Module, "compile", compile_module)

    yield use
    torch._dynamo.reset()


def marked(name):
    return pytest.param(name, marks=[pytest.mark.data] if needs_download(name) else [])


@pytest.mark.parametrize("name", [marked(name) for name in names()])
def test_an_experiment_is_the_same_traced_and_as_it_is_written(name, compiler):
    compiler("aot_eager")
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", INDUCTOR)
def test_an_experiment_is_the_same_compiled_for_a_cpu(name, compiler):
    if "ZOO_TEST_INDUCTOR" not in os.environ:
        pytest.skip("compiling takes minutes: set ZOO_TEST_INDUCTOR=1")
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        pytest.skip("needs a C++ compiler: g++ or clang++")
    import torch._inductor.config

    compiler("inductor")
    with torch._inductor.config.patch(fallback_random=True):  # dropout as it is written
        check(name)
