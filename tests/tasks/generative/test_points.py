"""Points whose modes are known: what any generative task says of them."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from tests.figures.test_grids import assert_shows
from zoo.data.points.mixtures import GaussianGrid, GaussianRing
from zoo.models.generative.flow_matching import VelocityMLP
from zoo.models.generative.real_nvp import Flow, PointRealNVP
from zoo.tasks.generative.flow_matching import FlowMatching
from zoo.tasks.generative.normalizing_flow import NormalizingFlow

MIXTURES = {"ring": GaussianRing, "grid": GaussianGrid}
TASKS = {
    "flow matching": lambda **facts: FlowMatching(
        VelocityMLP(2, hidden_sizes=(8,)), sampling_steps=2, **facts
    ),
    "flow": lambda **facts: NormalizingFlow(PointRealNVP(2, num_couplings=2), **facts),
}
each_task = pytest.mark.parametrize("kind", TASKS)
each_mixture = pytest.mark.parametrize("mixture", MIXTURES)


def known(data):
    facts = data.facts()
    return {"modes": tuple(map(tuple, facts["modes"])), "mode_std": facts["mode_std"]}


def task_of(kind, data, **arguments):
    torch.manual_seed(0)
    task = TASKS[kind](**(known(data) | arguments))
    task.model.eval()
    return task


def density(data, scale=1.0):
    """The mixture that the points come from, by torch; or with wider modes."""
    centres = torch.tensor(data.facts()["modes"], dtype=torch.double)
    modes = Independent(Normal(centres, scale * data.facts()["mode_std"]), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(centres)).double()), modes)


class Truth(Flow):
    """A density that is the mixture's own; not a chain of layers, but a flow to the task."""

    sample_shape = (2,)

    def __init__(self, data, scale=1.0):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))
        self.mixture = density(data, scale)

    def log_prob(self, x):
        return self.mixture.log_prob(x.double())

    def sample(self, count, generator=None):
        del generator  # torch's distributions take none
        return self.mixture.sample((count,)).float()


@each_task
@each_mixture
def test_points_are_judged_by_the_modes_of_their_data_beside_real_ones(kind, mixture):
    data = MIXTURES[mixture](num_samples=10, eval_samples=500)
    data.setup()
    task = task_of(kind, data)
    with torch.no_grad():
        for batch in data.batches("val", 0):
            task.evaluate(batch)
    found = task.compute()
    assert found["real_modes_covered"] == len(data.centres)
    assert found["real_mode_divergence"] < 0.1 < found["mode_divergence"]
    assert task.directions()["mode_divergence"] == "min"
    assert task.directions()["high_quality"] == "max"
    assert "real_high_quality" not in task.directions()


@each_task
def test_judging_draws_other_samples_for_each_batch_and_leaves_the_other_metrics_alone(kind):
    data, batch = GaussianRing(), torch.randn(6, 2)
    task, alone = task_of(kind, data), task_of(kind, data, modes=None, mode_std=None)
    seen = []
    task.scores.generated.update = seen.append
    for judged in (task, alone):
        torch.manual_seed(1)
        with torch.no_grad():
            judged.evaluate(batch)
            judged.evaluate(batch)
    first, second = seen
    assert first.shape == (6, 2) and not torch.equal(first, second)
    assert alone.compute().items() <= task.compute().items()
    assert alone.show() == {}
    task.reset()
    with torch.no_grad():
        task.evaluate(batch)
    assert torch.equal(seen[2], first)


@each_task
def test_samples_are_drawn_among_the_modes(kind):
    assert_shows(task_of(kind, GaussianGrid()).show()["samples"].pixels)


@each_mixture
def test_no_likelihood_is_better_than_the_entropy_of_the_points(mixture):
    """The metric against the density that the shipped points are drawn from, by Monte Carlo.

    Modes are so far apart that the entropy is log K + log(2 pi e std^2): which mode, and where.
    """
    data = MIXTURES[mixture](num_samples=10, eval_samples=20_000, batch_size=5_000)
    data.setup()
    count, std = len(data.centres), data.facts()["mode_std"]
    entropy = math.log(count) + math.log(2 * math.pi * math.e * std**2)
    with torch.no_grad():
        drawn = density(data).sample((200_000,))
        assert -density(data).log_prob(drawn).mean().item() == pytest.approx(entropy, abs=0.01)
        task = NormalizingFlow(Truth(data), **known(data))
        for batch in data.batches("test", 0):
            task.evaluate(batch)
        found = task.compute()
        # The squared distance from a centre is a chi-squared: log-densities have variance 1.
        assert found["nll"] == pytest.approx(entropy, abs=4 / 20_000**0.5)
        assert found["bits_per_dim"] == pytest.approx(found["nll"] / 2 / math.log(2))
        assert found["modes_covered"] == count and found["high_quality"] > 0.98
        for other in (0.5, 0.9, 1.1, 2.0):  # too narrow, and too wide
            task = NormalizingFlow(Truth(data, other))
            for batch in data.batches("test", 0):
                task.evaluate(batch)
            # Gaussians of the same centres: the divergence has a closed form.
            worse = 2 * math.log(other) + 1 / other**2 - 1
            assert task.compute()["nll"] == pytest.approx(entropy + worse, abs=0.1)
            assert task.compute()["nll"] > found["nll"]


@each_task
def test_half_of_what_is_known_of_modes_is_refused(kind):
    with pytest.raises(ValueError, match="modes needs mode_std beside it"):
        task_of(kind, GaussianRing(), mode_std=None)
    with pytest.raises(ValueError, match="mode_std needs modes beside it"):
        task_of(kind, GaussianRing(), modes=None)
    with pytest.raises(ValueError, match="mode_std must be greater than 0, not -1"):
        task_of(kind, GaussianRing(), mode_std=-1.0)
