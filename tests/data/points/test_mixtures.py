import math

import pytest
import torch

from zoo.data.points.mixtures import GaussianGrid, GaussianRing


def points_of(module, split="train", **arguments):
    module.setup(**arguments)
    parts = zip(*module.batches(split, 0), strict=True)
    return tuple(torch.cat(part) for part in parts)


@pytest.mark.parametrize(
    ("module", "std"), [(GaussianRing(std=0.02), 0.02), (GaussianGrid(), 0.05)]
)
def test_points_gather_around_their_modes_with_the_stated_deviation(module, std):
    points, modes = points_of(module)
    assert points.shape == (100_000, 2) and modes.shape == (100_000,)
    centres = torch.tensor(module.facts()["modes"])
    rest = points - centres[modes]
    assert rest.mean().abs() < 0.01 * std
    assert rest.std().item() == pytest.approx(std, rel=0.01)
    assert module.facts()["mode_std"] == std
    shares = torch.bincount(modes, minlength=len(centres)) / len(modes)
    assert (shares - 1 / len(centres)).abs().max() < 0.006


def test_centres_are_those_of_the_paper():
    ring = torch.tensor(GaussianRing().facts()["modes"])
    expected = [(math.cos(i * math.pi / 4), math.sin(i * math.pi / 4)) for i in range(8)]
    torch.testing.assert_close(ring, torch.tensor(expected))
    grid = {tuple(centre) for centre in GaussianGrid().facts()["modes"]}
    assert grid == {(-4.0 + 2 * i, -4.0 + 2 * j) for i in range(5) for j in range(5)}


def test_points_depend_on_data_seed_and_their_order_on_seed():
    small = {"num_samples": 50, "eval_samples": 20}
    first, again = (points_of(GaussianRing(**small))[0] for _ in range(2))
    ordered = points_of(GaussianRing(**small), seed=1)[0]
    other = points_of(GaussianRing(**small, data_seed=1))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, ordered)
    assert torch.equal(first.sort(0).values, ordered.sort(0).values)
    assert not torch.equal(first.sort(0).values, other.sort(0).values)
    splits = [points_of(GaussianRing(**small), split)[0] for split in ("val", "test")]
    assert not torch.equal(*splits)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (GaussianRing, {"num_modes": 0}, "num_modes must be at least 1, not 0"),
        (GaussianRing, {"radius": 0.0}, "radius must be greater than 0, not 0.0"),
        (GaussianRing, {"std": -1.0}, "std must be greater than 0, not -1.0"),
        (GaussianGrid, {"side": 0}, "side must be at least 1, not 0"),
        (GaussianGrid, {"spacing": math.inf}, "spacing must be greater than 0, not inf"),
        (GaussianGrid, {"num_samples": 0}, "num_samples must be at least 1, not 0"),
        (GaussianGrid, {"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
