import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from tests.tasks.seen import images_of
from zoo.models.generative.made import MADE
from zoo.models.generative.real_nvp import Flow, Normalized, PointRealNVP, RealNVP
from zoo.tasks.generative.base import Decodes, Encodes
from zoo.tasks.generative.density_estimation import DensityEstimation
from zoo.tasks.generative.normalizing_flow import NormalizingFlow


def binary(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 1, 4, 4, generator=generator) < 0.3).float()


def made():
    torch.manual_seed(0)
    return MADE(4, hidden_sizes=(20,))


class Squash(Flow):
    """Every pixel by itself through the inverse of a logistic-like distribution function."""

    sample_shape = (1, 4, 4)

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.full((16,), 0.3).double())  # density of the upper half

    def forward(self, x):
        """Uniform in each half, with other weights: what a binary pixel with noise looks like."""
        x = x.flatten(1)
        upper = x >= 0.5
        u = torch.where(
            upper, 1 - 2 * (1 - x) * self.share, 2 * x * (1 - self.share)
        )  # its distribution function
        slope = torch.where(upper, 2 * self.share, 2 * (1 - self.share))
        z = Normal(0.0, 1.0).icdf(u)
        return Normalized(z, (slope.log() - Normal(0.0, 1.0).log_prob(z)).sum(1))

    def inverse(self, latents):
        u = Normal(0.0, 1.0).cdf(latents)
        upper = u >= 1 - self.share
        x = torch.where(upper, 1 - (1 - u) / (2 * self.share), u / (2 * (1 - self.share)))
        return x.unflatten(1, self.sample_shape)


def test_loss_and_metrics_are_the_mean_over_images_of_the_sum_over_pixels():
    model = made()
    task = DensityEstimation(model)
    loss, count = task.loss((binary(), None))
    nll = nn.functional.binary_cross_entropy_with_logits(model(binary()), binary(), reduction="sum")
    torch.testing.assert_close(loss, nll / 12)
    assert count == 12
    task.evaluate((binary(8), None))
    task.evaluate(binary(3, seed=1))
    with torch.no_grad():
        mean = -torch.cat([model.log_prob(binary(8)), model.log_prob(binary(3, seed=1))]).mean()
    assert task.compute()["nll"] == pytest.approx(mean.item())
    assert task.compute()["bits_per_dim"] == pytest.approx(mean.item() / 16 / math.log(2))


def test_binary_models_refuse_and_warn_of_other_values():
    task = DensityEstimation(made())
    task.prepare([(binary(), None)])
    with pytest.raises(ValueError, match="values from 0 to 1, and these data have -1 to 1"):
        task.prepare([2 * binary() - 1])
    with pytest.warns(UserWarning, match="its nats compare with nothing"):
        task.prepare([0.5 * binary()])


def test_preparing_starts_a_binary_model_at_the_mean_image():
    task = DensityEstimation(made())
    data = torch.cat([binary(100, seed=s) for s in range(20)])
    task.prepare([(part, None) for part in data.split(300)])
    found = task.model.layers[-1].bias.detach().sigmoid()
    torch.testing.assert_close(found, data.mean(0).flatten(), atol=1e-3, rtol=0)


def test_samples_are_of_the_seed_and_can_be_shown():
    task = DensityEstimation(made())
    one, same, other = (task.sample(6, seed=seed).samples for seed in (1, 1, 2))
    assert one.shape == (6, 1, 4, 4)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert set(images_of(task)) == {"samples"}
    assert not isinstance(task, Decodes | Encodes)


@pytest.mark.parametrize("levels", [2, 4])
def test_the_bound_is_tight_where_the_density_is_flat_on_every_level(levels):
    """Then it is the discrete likelihood itself, which is a product of known shares here."""
    model = Squash()
    x = binary().double()
    if levels == 4:  # the two lower levels share the lower half, the two upper ones the upper
        torch.manual_seed(1)
        x = torch.randint(4, x.shape).double() / 3
    task = NormalizingFlow(model, levels=levels)
    task.prepare([x])
    torch.manual_seed(0)
    nll = task.nll(x)
    share = torch.where(x > 0.5, 0.3, 0.7) * 2 / levels
    torch.testing.assert_close(nll, -share.double().log().flatten(1).sum(1), atol=1e-5, rtol=0)


def test_the_bound_is_above_the_discrete_likelihood_elsewhere():
    torch.manual_seed(0)
    model = RealNVP(2, hidden_channels=4, num_blocks=1, num_scales=1).double().eval()
    task = NormalizingFlow(model, levels=2)
    x = (torch.rand(1, 1, 2, 2) < 0.5).double()
    with torch.no_grad():
        many = x.expand(20_000, -1, -1, -1)
        bounds = task.nll(many)
        # The probability of an image is the mean density of it with noise.
        exact = -torch.logsumexp(-task.nll(many), 0) + math.log(20_000)
    assert bounds.mean() > exact + 0.05


def test_bound_and_exact_likelihood_have_names_of_their_own():
    pixels = NormalizingFlow(RealNVP(4, hidden_channels=4, num_blocks=1), levels=2)
    points = NormalizingFlow(PointRealNVP(2))
    names = []
    for task, batch in ((pixels, binary()), (points, torch.randn(8, 2))):
        task.model.eval()
        with torch.no_grad():
            task.evaluate(batch)
        names.append(set(task.compute()))
        assert task.monitor in task.compute()
    assert names == [{"nll_bound", "bits_per_dim"}, {"nll", "bits_per_dim"}]


def test_samples_of_a_flow_have_the_levels_of_the_pixels_and_its_shares():
    model = Squash()
    task = NormalizingFlow(model, levels=2)
    samples = task.sample(4000).samples
    assert ((samples == 0) | (samples == 1)).all()
    assert samples.double().mean().item() == pytest.approx(0.3, abs=0.01)
    grey = NormalizingFlow(RealNVP(4, hidden_channels=4, num_blocks=1), levels=256)
    samples = grey.sample(20).samples * 255
    torch.testing.assert_close(samples, samples.round(), atol=1e-3, rtol=0)
    assert samples.min() >= 0 and samples.max() <= 255.001


def test_latents_of_pixels_decode_to_the_pixels():
    torch.manual_seed(0)
    task = NormalizingFlow(RealNVP(4, hidden_channels=4, num_blocks=1).eval(), levels=2)
    assert isinstance(task, Decodes) and isinstance(task, Encodes)
    with torch.no_grad():
        assert torch.equal(task.decode(task.latents(binary())), binary())
        drawn = task.draw_latents(5, torch.Generator().manual_seed(0))
        assert torch.equal(task.decode(drawn), task.sample(5, seed=0).samples)


@pytest.mark.parametrize(
    ("levels", "inputs"),
    [
        (2, 0.5 * binary()),
        (2, 2 * binary() - 1),
        (256, torch.full((1, 1, 4, 4), 0.3)),
        (4, -binary()),
    ],
)
def test_pixels_of_other_levels_are_refused_with_what_to_set(levels, inputs):
    task = NormalizingFlow(RealNVP(4, hidden_channels=4, num_blocks=1), levels=levels)
    with pytest.raises(
        ValueError, match=f"task.levels is {levels}, .* set data.scaling=unit, with"
    ):
        task.prepare([inputs])


def test_models_that_are_no_densities_are_refused_by_what_they_lack():
    with pytest.raises(TypeError, match="Linear lacks log_prob, sample"):
        DensityEstimation(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="latents and inverse, not MADE"):
        NormalizingFlow(made(), levels=2)
    with pytest.raises(ValueError, match="levels must be at least 2, or null for real data, not 1"):
        NormalizingFlow(PointRealNVP(2), levels=1)
