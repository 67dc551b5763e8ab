import math

import pytest
import torch
from torch import nn

from tests.training.tiny import (
    differences,
    fit,
    mlp,
    new_folder,
    normed,
    read_results,
    trainer_of,
    weights,
)
from zoo.data.images.digits import Digits
from zoo.tasks.classification import Classification
from zoo.training.averaging import WeightAverage
from zoo.training.callback import Callback
from zoo.training.checkpoints.checkpoint import read
from zoo.training.pretrained import load_pretrained
from zoo.training.state import usable_weights


def test_the_average_is_the_closed_form_with_a_decay_that_rises():
    model = mlp()
    start, history = weights(model), []
    trainer = trainer_of(model, ema_decay=0.3, steps=9, epochs=None)

    class Weights(Callback):
        def on_step_end(self, trainer):
            history.append(weights(trainer.task.model))

    trainer.fit(callbacks=[Weights()])
    decays = [min(0.3, (1 + n) / (10 + n)) for n in range(9)]
    assert decays[0] == 0.1 and decays[2] == 0.25 and decays[3:] == [0.3] * 6
    expected = math.prod(decays) * start
    for n, value in enumerate(history):
        expected += (1 - decays[n]) * math.prod(decays[n + 1 :]) * value
    assert torch.allclose(weights(model), expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_evaluated_and_saved_and_training_goes_on_without_it(tmp_path):
    plain, averaged = mlp(), mlp()
    trainer_of(plain, epochs=3).fit()
    during = []

    class Evaluated(Classification):
        def evaluate(self, batch):
            during.append(weights(self.model))
            super().evaluate(batch)

    trainer = trainer_of(averaged, task=Evaluated(averaged, num_classes=3), ema_decay=0.7, epochs=3)
    folder = new_folder(tmp_path)
    trainer.fit(folder=folder)
    last = read(folder.path / "checkpoints" / "last.pt")
    live = torch.cat([last["model"][n].double().flatten() for n, _ in averaged.named_parameters()])
    mean = torch.cat(
        [last["average"][n].double().flatten() for n, _ in averaged.named_parameters()]
    )
    assert torch.equal(live, weights(plain))  # what was trained is what it were without
    assert not torch.equal(live, mean)
    assert torch.equal(during[-4], mean)  # the last validation: three batches; one of the test
    best = read(folder.path / "checkpoints" / "best.pt")
    kept = torch.cat(
        [best["average"][n].double().flatten() for n, _ in averaged.named_parameters()]
    )
    assert torch.equal(weights(averaged), kept)  # the model ends as what was selected


def test_statistics_are_averaged_and_constants_and_counters_are_not():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    mask = torch.tensor([0.0, -math.inf])
    model.register_buffer("mask", mask.clone())
    average, norm = WeightAverage(model, 0.9), model[1]
    for n in range(3):
        norm.running_mean.fill_(n + 1.0)
        norm.num_batches_tracked.fill_(n + 1)
        average.update()
    mean = 0.0
    for n in range(3):
        decay = (1 + n) / (10 + n)
        mean = decay * mean + (1 - decay) * (n + 1)
    with average.applied():
        assert norm.running_mean.tolist() == pytest.approx([mean, mean])
        assert norm.num_batches_tracked.item() == 3
        assert torch.equal(model.mask, mask)
    assert norm.running_mean.tolist() == [3.0, 3.0]
    assert "mask" not in average.state_dict() and "1.running_var" in average.state_dict()


def test_the_average_of_half_precision_moves_with_steps_that_half_precision_would_lose():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    model.weight.data.fill_(1.0)
    average = WeightAverage(model, 0.999)
    average.steps = 100_000
    model.weight.data.fill_(1.5)
    for _ in range(700):
        average.update()
    (mean,) = average.state_dict().values()
    assert mean.item() == pytest.approx(1.5 - 0.5 * 0.999**700, rel=1e-3)
    with average.applied():
        assert model.weight.dtype == torch.bfloat16
        assert model.weight.item() == pytest.approx(mean.item(), rel=2**-8)
    assert model.weight.item() == 1.5


class Tied(nn.Module):
    """A head that is the embedding's own matrix, with batch statistics between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embedding, self.norm = nn.Linear(6, 3, bias=False), nn.BatchNorm1d(3)
        self.mix, self.head = nn.Linear(3, 6), nn.Linear(6, 3, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.mix(self.norm(self.embedding(x))))


def test_tied_weights_are_used_averaged_under_each_of_their_names(tmp_path):
    model, folder = Tied(), new_folder(tmp_path)
    results = trainer_of(model, ema_decay=0.9, epochs=3).fit(folder=folder)
    path = folder.path / "checkpoints" / "best.pt"
    state = read(path)
    used = usable_weights(state)
    assert torch.equal(used["head.weight"], used["embedding.weight"])
    assert torch.equal(used["head.weight"], state["average"]["embedding.weight"])
    assert not torch.equal(used["head.weight"], state["model"]["head.weight"])
    loaded, pretrained = Tied(), Tied()
    loaded.load_state_dict(used)
    load_pretrained(pretrained, path)
    for other in (loaded, pretrained):
        assert differences(dict(other.state_dict()), dict(model.state_dict())) == []
    assert trainer_of(loaded).evaluate("test") == results["test"]


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_averaged_weights_judge_as_well_as_those_that_were_trained(decay):
    figures = {}
    for ema_decay in (None, decay):
        torch.manual_seed(4)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
        )
        data = Digits(batch_size=64, image_size=8)
        data.setup()
        task = Classification(model, num_classes=10)
        results = trainer_of(model, data, task=task, ema_decay=ema_decay, epochs=4).fit()
        figures[ema_decay] = results["val"]["accuracy"]
    assert figures[None] > 0.9
    assert figures[decay] > figures[None] - 0.02


@pytest.mark.parametrize(("before", "after"), [(None, 0.9), (0.9, None)])
def test_an_average_that_a_resume_switches_counts_from_there_on(before, after, tmp_path):
    folder = new_folder(tmp_path)
    fit(trainer_of(normed(), ema_decay=before, epochs=2), folder)
    resumed = trainer_of(normed(), ema_decay=after, epochs=4)
    fit(resumed, folder, resume=True)
    state = read(folder.path / "checkpoints" / "last.pt")
    assert (state["average"] is None) == (after is None)
    assert state["average_steps"] == (12 if after else 0)
    again = trainer_of(normed(), ema_decay=after, epochs=5)
    results = fit(again, folder, resume=True)
    model = normed()
    best = read(folder.path / "checkpoints" / "best.pt")
    model.load_state_dict(usable_weights(best))
    judge = trainer_of(model)
    assert judge.evaluate("val") == results["val"]
    assert judge.evaluate("test") == results["test"] == read_results(folder.path)["test"]


def test_a_run_of_a_version_that_averaged_without_counting_goes_on(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(normed(), ema_decay=0.9, epochs=2).fit(folder=folder)
    state = read(folder.path / "checkpoints" / "last.pt")
    parameters = {name for name, _ in normed().named_parameters()}
    old = {k: v for k, v in state.items() if k != "average_steps"}
    old["average"] = {k: v for k, v in state["average"].items() if k in parameters}
    again = trainer_of(normed(), ema_decay=0.9, epochs=2)
    again.load_state_dict(old)
    decay, again.average.decay = again.average.decay, 0.999999
    before = again.average.state_dict()["0.weight"].clone()
    again.average.update()  # with a decay that rises no more
    assert torch.allclose(again.average.state_dict()["0.weight"], before, atol=1e-5)
    again.load_state_dict(old)
    again.average.decay = decay
    mean = again.average.state_dict()
    assert torch.equal(mean["1.running_mean"], state["model"]["1.running_mean"])
    assert torch.equal(mean["0.weight"], state["average"]["0.weight"])
    assert torch.equal(usable_weights(old)["1.running_mean"], state["model"]["1.running_mean"])
