import re

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.training.test_blocks import gpt, vit
from tests.training.test_recomputation import blocks, inputs_of
from tests.training.tiny import (
    At,
    Samples,
    build,
    differences,
    fit,
    mlp,
    new_folder,
    read_results,
    read_rows,
    trainer_of,
    weights,
    without_timings,
)
from zoo.models.mlp import MLP
from zoo.models.recurrent.lstm import LSTM
from zoo.models.vision.resnet_cifar import resnet20
from zoo.tasks.classification import Classification
from zoo.training.checkpoints.checkpoint import read
from zoo.training.compilation import Compilation, compiled_parts
from zoo.training.interruption import Interrupted
from zoo.training.recomputation import recompute_blocks
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer

COMPILE = nn.Module.compile


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """The compiler without the part that needs another compiler: traced, and run as written."""
    modes = []

    def compile_module(self, **options):
        modes.append(options)
        COMPILE(self, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compile_module)
    yield modes
    torch._dynamo.reset()


@pytest.mark.parametrize("build_network", [gpt, vit])
def test_of_blocks_that_are_alike_one_is_compiled(build_network):
    graphs = []
    for depth in (2, 4):
        model = build_network(num_layers=depth)
        parts = compiled_parts(model)
        assert model not in parts
        torch._dynamo.reset()
        counters.clear()
        for part in parts:
            part.compile()
        model(*inputs_of(model)).sum().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [1, 1]


def test_a_network_of_anything_else_is_compiled_as_a_whole():
    for network in (mlp(), resnet20(), gpt(num_layers=1)):
        assert compiled_parts(network) == [network]


def test_recomputed_blocks_are_compiled_without_a_break():
    model = gpt()
    recompute_blocks(model)
    torch._dynamo.reset()
    counters.clear()
    for part in compiled_parts(model):
        part.compile()
    model(*inputs_of(model)).sum().backward()
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (True, {}),
        ("default", {}),
        ("reduce-overhead", {"mode": "reduce-overhead"}),
        ("max-autotune", {"mode": "max-autotune"}),
    ],
)
def test_the_mode_is_torchs(given, options, backend):
    trainer_of(compile=given).dry_run()
    assert backend == [options]


@pytest.mark.parametrize("given", [False, "off"])
def test_off_compiles_nothing(given, backend, tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(compile=given, epochs=1).fit(folder=folder)
    assert backend == [] and "graph" not in (folder.path / "log.txt").read_text()


def test_what_was_compiled_is_said_once(tmp_path, capsys):
    folder = new_folder(tmp_path)
    trainer = trainer_of(blocks(), compile="default", epochs=2)
    trainer.dry_run()
    trainer.fit(folder=folder)
    said = r"trainer.compile=default: 1 graph of MLP in \d+ s\n"
    assert len(re.findall(said, (folder.path / "log.txt").read_text())) == 1
    assert len(re.findall(said, capsys.readouterr().out)) == 1


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.classifier = LSTM(2, 4), nn.Linear(4, 3)

    def forward(self, x):
        if x.sum() > 1e9:  # what no graph can hold
            return self.classifier(x)
        return self.classifier(self.rnn(x.view(len(x), 3, 2).sin())[0][:, -1].cos())


def test_graph_breaks_are_said_with_their_reasons(tmp_path):
    folder = new_folder(tmp_path)
    fit(trainer_of(Reader(), compile="default", epochs=1), folder)
    log = (folder.path / "log.txt").read_text()
    assert re.search(r"trainer.compile=default: \d graphs? of Reader in .*; graph breaks: ", log)


def test_evaluations_run_as_they_are_written():
    trainer = trainer_of(compile="default", epochs=1, train_metrics=True)
    trainer.dry_run()
    counters.clear()
    trainer.evaluate("val")
    trainer.fit()
    # Another graph for the smaller last batch of an epoch, and none for the evaluations.
    assert counters["stats"]["unique_graphs"] == 1


def test_a_compiler_that_fails_is_one_sentence_before_training(monkeypatch):
    def fail(graph, inputs):
        raise RuntimeError("no such instruction\nand many lines more")

    monkeypatch.setattr(nn.Module, "compile", lambda self: COMPILE(self, backend=fail))
    with pytest.raises(
        ValueError, match=r"^trainer.compile=default: torch cannot compile MLP here"
    ) as e:
        trainer_of(compile=True).dry_run()
    assert str(e.value).endswith("; use trainer.compile=off") and "\n" not in str(e.value)


def test_compiling_leaves_no_trace():
    ends = []
    for compiles in (False, True):
        trainer, _ = build("frozen")  # batch normalisation, average, balanced class weights
        trainer.compilation = Compilation(trainer.task, "default" if compiles else "off")
        trainer.dry_run()
        assert all(p.grad is None for p in trainer.task.model.parameters())
        ends.append(without_timings(trainer.state_dict()))
    assert differences(*ends) == []


@pytest.mark.skipif(torch.__version__ >= (2, 12), reason="later ones see whose turn it is")
def test_networks_that_take_turns_are_refused_where_torch_does_not_see_it():
    trainer, _ = build("adversarial")
    trainer.compilation = Compilation(trainer.task, "default")
    with pytest.raises(
        ValueError, match=r"torch cannot compile GAN here .*; use trainer.compile=o"
    ):
        trainer.dry_run()


@pytest.mark.parametrize("kind", ["adversarial", "language_modeling", "average"])
def test_a_run_is_the_same_compiled_and_not_and_goes_on_as_either(kind, tmp_path):
    def run(name, *, first, second):
        folder = new_folder(tmp_path / name)
        for compiles, stop in ((first, True), (second, False)):
            trainer, callbacks = build(kind)
            trainer.compilation = Compilation(trainer.task, "default" if compiles else "off")
            if stop:
                at = At(3, lambda trainer: setattr(trainer.signals, "stop", 15))
                with pytest.raises(Interrupted):
                    fit(trainer, folder, [*callbacks, at])
            else:
                fit(trainer, folder, [*callbacks, At(0, None)], resume=True)
        state = without_timings(read(folder.path / "checkpoints" / "last.pt"))
        assert not any("_orig_mod" in key for key in state["model"])
        return {
            "state": state,
            "rows": read_rows(folder.path),
            "results": read_results(folder.path),
        }

    if kind == "adversarial" and torch.__version__ < (2, 12):
        pytest.skip("this torch does not see that another network's turn has come")
    plain = run("plain", first=False, second=False)
    assert differences(run("from", first=True, second=False), plain) == []
    assert differences(run("to", first=False, second=True), plain) == []


def test_jobs_of_one_process_do_not_use_up_the_compilers_patience():
    """Its limit of recompilations counts the frames of every module together."""
    for width in range(3, 13):
        model = MLP(6, 3, hidden_sizes=(width,))
        trainer = trainer_of(model, Samples().setup(), compile="default", steps=1, epochs=None)
        assert isinstance(trainer.task, Classification)
        trainer.dry_run()
        assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_on_a_gpu_compiled_steps_are_those_that_are_written(mode, monkeypatch):
    monkeypatch.undo()
    ends = []
    for chosen in ("off", mode):
        model = mlp().cuda()
        trainer = Trainer(
            Classification(model, num_classes=3),
            Samples().setup(device="cuda"),
            torch.optim.SGD(model.parameters(), lr=0.1),
            settings=TrainerSettings(
                device="cuda", precision="fp32", epochs=2, accumulate=2, compile=chosen
            ),
        )
        trainer.fit()
        ends.append(weights(model))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)
