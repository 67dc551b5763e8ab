import itertools
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tasks.seen import images_of
from tests.training.tiny import (
    At,
    differences,
    fit,
    new_folder,
    read_results,
    read_rows,
    without_timings,
)
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule
from zoo.models.generative.restricted_boltzmann_machine import RestrictedBoltzmannMachine
from zoo.tasks.generative.base import Decodes, Encodes
from zoo.tasks.generative.contrastive_divergence import ContrastiveDivergence
from zoo.training.checkpoints.checkpoint import read
from zoo.training.interruption import Interrupted
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer


def machine(image_size=3, hidden_size=5, seed=0):
    torch.manual_seed(seed)
    model = RestrictedBoltzmannMachine(image_size, hidden_size=hidden_size).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def images(count=20, size=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 1, size, size, generator=generator) < 0.4).double()


def double(task):
    task.base_bias = task.base_bias.double()
    if task.chains is not None:
        task.chains = task.chains.double()
    return task


def pair_means(model, visible):
    """<h v> and the means of v and of h, h given v."""
    hidden = torch.sigmoid(visible @ model.weight.T + model.hidden_bias)
    return hidden.T @ visible / len(visible), visible.mean(0), hidden.mean(0)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_is_the_difference_of_two_means(steps, persistent):
    model = machine()
    task = double(ContrastiveDivergence(model, steps=steps, persistent=persistent, num_chains=7))
    data = images()
    for _ in range(2):  # The second time, a persistent chain begins where the first has ended.
        start = data.flatten(1) if task.chains is None else task.chains
        torch.manual_seed(5)
        with torch.no_grad():
            chain = start
            for _ in range(steps):
                hidden = torch.sigmoid(chain @ model.weight.T + model.hidden_bias)
                hidden = (torch.rand(hidden.shape) < hidden).double()
                chain = torch.sigmoid(hidden @ model.weight + model.visible_bias)
                chain = (torch.rand(chain.shape) < chain).double()
            by_hand = [
                ours - theirs
                for ours, theirs in zip(
                    pair_means(model, chain), pair_means(model, data.flatten(1)), strict=True
                )
            ]
        torch.manual_seed(5)
        loss, count = task.loss((data, None))
        assert count == 20
        parameters = (model.weight, model.visible_bias, model.hidden_bias)
        for ours, theirs in zip(torch.autograd.grad(loss, parameters), by_hand, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_with_many_steps_the_gradient_is_that_of_the_likelihood():
    model = machine(2, 2)
    data = images(200, size=2)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.double)
    parameters = list(model.parameters())
    nll = model(data).mean() + (-model(states)).logsumexp(0)
    exact = torch.autograd.grad(nll, parameters)
    torch.manual_seed(0)
    loss, _ = ContrastiveDivergence(model, steps=100).loss(data.repeat(500, 1, 1, 1))
    for ours, theirs in zip(torch.autograd.grad(loss, parameters), exact, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)


def test_nll_is_the_mean_over_all_images_of_the_exact_one():
    model = machine()
    task = double(ContrastiveDivergence(model))
    with torch.no_grad():
        for size, seed in ((20, 1), (6, 2)):
            task.evaluate((images(size, seed=seed), None))
    found = task.compute()
    assert next(iter(found)) == task.monitor == "nll"
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=9)), dtype=torch.double)
    log_probabilities = (-model(states)).log_softmax(0)
    numbers = torch.cat([images(20, seed=1), images(6, seed=2)]).flatten(1) @ torch.tensor(
        [2.0**k for k in reversed(range(9))], dtype=torch.double
    )
    assert found["nll"] == pytest.approx(-log_probabilities[numbers.long()].mean().item())


def test_a_large_machine_gets_an_estimate_by_a_name_of_its_own():
    model = machine()
    exact = double(ContrastiveDivergence(model))
    estimated = double(ContrastiveDivergence(model, max_enumerated=4, ais_steps=300))
    values = []
    torch.manual_seed(0)
    for task in (exact, estimated):
        with torch.no_grad():
            task.evaluate(images())
        values.append(task.compute())
    assert "nll" not in values[1] and estimated.monitor == "nll_ais"
    error = values[1]["nll_ais_error"]
    assert 0 < error < 0.1
    assert abs(values[1]["nll_ais"] - values[0]["nll"]) < 4 * error


def test_pseudo_likelihood_of_independent_pixels_is_their_likelihood_in_the_mean():
    """Without weights a pixel's probability given the others is its own."""
    model = machine()
    with torch.no_grad():
        model.weight.zero_()
    task = double(ContrastiveDivergence(model))
    data = images(40)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(400):
            task.evaluate(data)
    logits = model.visible_bias.expand(40, -1)
    nll = F.binary_cross_entropy_with_logits(logits, data.flatten(1), reduction="none").sum(1)
    found = task.compute()
    assert found["nll"] == pytest.approx(nll.mean().item())
    assert found["pseudo_nll"] == pytest.approx(nll.mean().item(), rel=0.02)


def test_reconstruction_error_is_summed_over_the_pixels():
    model = machine()
    task = ContrastiveDivergence(model)
    data = images()
    with torch.no_grad():
        task.evaluate(data)
        hidden = torch.sigmoid(data.flatten(1) @ model.weight.T + model.hidden_bias)
        means = torch.sigmoid(hidden @ model.weight + model.visible_bias)
    error = (data.flatten(1) - means).square().sum(1).mean()
    assert task.compute()["reconstruction_error"] == pytest.approx(error.item())


def test_visible_biases_begin_at_the_logits_of_the_pixels_means():
    model = RestrictedBoltzmannMachine(3, hidden_size=5)
    task = ContrastiveDivergence(model)
    data = images(10_000).float()
    task.prepare([(part, None) for part in data.split(3000)])
    torch.testing.assert_close(
        model.visible_bias.sigmoid(), data.mean(0).flatten(), atol=2e-4, rtol=0
    )
    black = ContrastiveDivergence(RestrictedBoltzmannMachine(3, hidden_size=5))
    black.prepare([torch.zeros(10, 1, 3, 3)])
    assert black.base_bias.isfinite().all()


def test_a_rehearsal_does_not_count_as_training_and_trained_biases_stay():
    model = RestrictedBoltzmannMachine(3, hidden_size=5)
    task = ContrastiveDivergence(model)
    state = task.state_dict()
    task.prepare([images(8).float()])
    task.load_state_dict(state)
    task.prepare([images(500).float()])
    assert torch.equal(model.visible_bias, task.base_bias)
    trained = RestrictedBoltzmannMachine(3, hidden_size=5)
    trained.load_state_dict(machine().float().state_dict())
    ContrastiveDivergence(trained).prepare([images(500).float()])
    assert torch.equal(trained.visible_bias, machine().float().visible_bias)


def test_values_that_no_bernoulli_unit_has_are_refused_and_grey_ones_warned_of():
    task = ContrastiveDivergence(RestrictedBoltzmannMachine(3, hidden_size=5))
    with pytest.raises(
        ValueError, match=r"0 to 1, and these data have -1 to 1: set data.scaling=unit"
    ):
        task.prepare([2 * images().float() - 1])
    with pytest.warns(UserWarning, match="data.binarize=dynamic"):
        task.prepare([images().float() * 0.5])


def test_another_model_is_refused_by_what_it_lacks():
    with pytest.raises(TypeError, match="restricted Boltzmann machine, and Linear has no hidden_m"):
        ContrastiveDivergence(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="ais_steps must be at least 1, not 0"):
        ContrastiveDivergence(machine(), ais_steps=0)


def test_samples_are_binary_images_of_the_seed_and_can_be_shown():
    task = ContrastiveDivergence(machine(8, 6).float(), sample_steps=5)
    one, same, other = (task.sample(6, seed=seed).samples for seed in (1, 1, 2))
    assert one.shape == (6, 1, 8, 8)
    assert ((one == 0) | (one == 1)).all()
    assert torch.equal(one, same) and not torch.equal(one, other)
    shown = images_of(task)
    assert set(shown) == {"samples", "filters"}
    assert all(pixels.min() >= 0 and pixels.max() <= 1 for pixels in shown.values())


def test_hidden_units_are_the_latent_variables():
    task = ContrastiveDivergence(machine(), sample_steps=5)
    assert isinstance(task, Decodes) and isinstance(task, Encodes)
    assert task.latents(images()).shape == (20, 5)
    drawn = task.draw_latents(4, torch.Generator().manual_seed(0))
    assert task.decode(drawn).shape == (4, 1, 3, 3)


class Bars(DataModule):
    """Bars of two pixels' width, of which a machine can learn something in a moment."""

    def setup(self, *, seed=0, device="cpu", part=(0, 1)):
        generator = torch.Generator().manual_seed(3)
        for split, count in (("train", 40), ("val", 12), ("test", 12)):
            columns = torch.randint(2, (count, 1, 1, 2), generator=generator).float()
            bars = columns.repeat_interleave(2, -1).expand(-1, -1, 4, -1).contiguous()
            self.loaders[split] = TensorLoader(
                (bars, torch.zeros(count)),
                batch_size=8,
                shuffle=split == "train",
                seed=seed,
                device=device,
                part=part,
            )

    def facts(self):
        return {"image_size": 4, "in_channels": 1}


def trainer_of(*, epochs=2, evaluate_every=3, **options):
    torch.manual_seed(3)
    data = Bars()
    data.setup(seed=1)
    model = RestrictedBoltzmannMachine(4, hidden_size=4)
    task = ContrastiveDivergence(model, sample_steps=3, ais_steps=5, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    settings = TrainerSettings(
        device="cpu",
        epochs=epochs,
        log_every=2,
        evaluate_every=evaluate_every,
        train_metrics=False,
    )
    return Trainer(task, data, optimizer, settings=settings, seed=7)


def stop(trainer):
    trainer.signals.stop = signal.SIGTERM


def outcome(folder):
    state = read(folder.path / "checkpoints" / "last.pt")
    return without_timings(state), read_rows(folder.path), read_results(folder.path)


@pytest.mark.parametrize("options", [{"persistent": True, "num_chains": 6}, {"max_enumerated": 2}])
def test_a_run_stopped_at_every_step_and_resumed_equals_one_never_stopped(tmp_path, options):
    whole, parts = new_folder(tmp_path / "whole"), new_folder(tmp_path / "parts")
    fit(trainer_of(**options), whole)
    for step in range(1, 10):
        with pytest.raises(Interrupted):
            fit(trainer_of(**options), parts, [At(step, stop)], resume=step > 1)
        torch.manual_seed(step)  # Another process has other random states.
    fit(trainer_of(**options), parts, resume=True)
    found = differences(outcome(parts), outcome(whole))
    assert not found


@pytest.mark.parametrize("options", [{"steps": 5}, {"persistent": True}])
def test_bars_are_learned(options):
    """Independent pixels leave 16 log 2 = 11.09 nats, and the four states log 4."""
    result = trainer_of(epochs=120, evaluate_every=300, **options).fit()
    assert 1.35 < result["test"]["nll"] < 9
