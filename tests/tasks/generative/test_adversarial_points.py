import pytest
import torch

from tests.figures.test_grids import assert_shows
from zoo.data.points.mixtures import GaussianGrid, GaussianRing
from zoo.models.generative.pacgan import PacGAN
from zoo.tasks.generative.adversarial_points import AdversarialPoints

SMALL = {"hidden_sizes": (8,), "maxout_sizes": (6,), "pieces": 2}


def task_of(data, **arguments):
    torch.manual_seed(0)
    facts = data.facts()
    modes = tuple(map(tuple, facts["modes"]))
    return AdversarialPoints(
        PacGAN(**SMALL), modes=modes, mode_std=facts["mode_std"], num_components=2, **arguments
    )


@pytest.mark.parametrize("kind", [GaussianRing, GaussianGrid])
def test_real_points_are_judged_beside_generated_ones(kind):
    data = kind(num_samples=100, eval_samples=500)
    data.setup()
    task = task_of(data)
    task.prepare(data.batches("train", 0))
    task.model.eval()
    for batch in data.batches("val", 0):
        task.evaluate(batch)
    found = task.compute()
    assert found["real_modes_covered"] == len(data.centres)
    assert found["real_high_quality"] == pytest.approx(0.989, abs=0.02)
    assert found["real_mode_divergence"] < 0.1 < found["mode_divergence"]
    assert found["modes_covered"] <= 1  # an untrained generator stays near the origin
    assert set(task.directions()) >= {"mode_divergence", "modes_covered", "high_quality"}
    assert "real_high_quality" not in task.directions()


def test_a_generator_that_draws_from_the_mixture_reaches_what_real_points_do():
    data = GaussianRing(num_samples=100, eval_samples=2_000)
    data.setup()
    task = task_of(data)
    task.prepare(data.batches("train", 0))
    real = torch.cat([points for points, _ in data.batches("test", 0)])
    for points, _ in data.batches("val", 0):
        task.judge(real[: len(points)], points)
    found = task.compute()
    assert found["modes_covered"] == 8 and found["high_quality"] > 0.98
    assert found["reverse_kl"] < 0.01 and found["mode_divergence"] < 0.01


def test_generated_points_are_drawn():
    assert_shows(task_of(GaussianRing()).show()["samples"].pixels)


def test_deviation_of_no_size_is_refused():
    with pytest.raises(ValueError, match="mode_std must be greater than 0, not 0"):
        AdversarialPoints(PacGAN(**SMALL), modes=((0.0, 0.0),), mode_std=0)
