import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from zoo.models.generative.real_nvp import AffineCoupling, Flow, PointRealNVP, RealNVP


def stirred(model: Flow, seed=0):
    """Factors and batch statistics as they are after training, not as they begin."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, AffineCoupling):
            nn.init.normal_(module.factor, std=0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def image_flow(image_size=8, in_channels=1, **options):
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "num_blocks": 1, **options}
    return stirred(RealNVP(image_size, in_channels, **sizes))


def point_flow(in_features=2, **options):
    torch.manual_seed(0)
    return stirred(PointRealNVP(in_features, **options))


FLOWS = {
    "image": (image_flow, lambda: torch.rand(6, 1, 8, 8)),
    "colour": (lambda: image_flow(4, 3), lambda: torch.rand(6, 3, 4, 4)),
    "three scales": (lambda: image_flow(4, num_scales=3), lambda: torch.rand(6, 1, 4, 4)),
    "one scale": (lambda: image_flow(5, num_scales=1), lambda: torch.rand(6, 1, 5, 5)),
    "points": (point_flow, lambda: torch.randn(6, 2)),
    "odd": (lambda: point_flow(5), lambda: torch.randn(6, 5)),
}
each = pytest.mark.parametrize("flow", FLOWS)


def test_parameter_counts_are_the_docstrings():
    with torch.device("meta"):
        counts = [sum(p.numel() for p in m.parameters()) for m in (RealNVP(), PointRealNVP())]
    assert counts == [1_267_411, 36_912]


@each
def test_inverse_and_forward_undo_each_other(flow):
    model, x = FLOWS[flow][0](), FLOWS[flow][1]()
    with torch.no_grad():
        latents = model.latents(x)
        assert latents.shape == (6, model.latent_dim)
        torch.testing.assert_close(model.inverse(latents), x, atol=1e-5, rtol=0)
        noise = torch.randn(6, model.latent_dim)
        torch.testing.assert_close(model.latents(model.inverse(noise)), noise, atol=2e-4, rtol=0)
        assert (model.inverse(noise) - x).abs().max() > 0.1


@each
def test_log_determinant_is_that_of_the_jacobian(flow):
    model, x = FLOWS[flow][0]().double(), FLOWS[flow][1]().double()
    log_determinants = model(x).log_determinant
    for sample, ours in zip(x[:2], log_determinants, strict=False):

        def flat(vector, shape=sample.shape):
            return model.latents(vector.view(1, *shape))[0]

        jacobian = torch.autograd.functional.jacobian(flat, sample.flatten())
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, ours)


@each
def test_density_is_the_priors_where_the_sample_comes_from(flow):
    """By the inverse alone: the density of what is drawn, and how the inverse stretches space."""
    model = FLOWS[flow][0]().double()
    noise = torch.randn(2, model.latent_dim, dtype=torch.double)
    prior = Independent(Normal(torch.zeros(model.latent_dim).double(), 1), 1)
    for z in noise:
        jacobian = torch.autograd.functional.jacobian(
            lambda vector: model.inverse(vector[None])[0].flatten(), z
        )
        expected = prior.log_prob(z) - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(model.log_prob(model.inverse(z[None]))[0], expected)


def test_density_of_a_plane_integrates_to_one():
    model = point_flow(num_couplings=4, hidden_sizes=(16,)).double()
    with torch.no_grad():
        samples = model.sample(2000, torch.Generator().manual_seed(0))
        reach = 1.5 * samples.abs().max().item()
        axis = torch.linspace(-reach, reach, 801, dtype=torch.double)
        points = torch.cartesian_prod(axis, axis)
        density = model.log_prob(points).exp()
    total = density.sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=2e-3)
    inside = (points[:, 0] > 0) & (points[:, 1] > 0)
    share = density[inside].sum() * (axis[1] - axis[0]) ** 2
    found = (samples > 0).all(1).double().mean()  # Samples lie where the density says.
    assert found.item() == pytest.approx(share.item(), abs=0.04)


@pytest.mark.parametrize("checkerboard", [True, False])
def test_a_coupling_keeps_one_half_and_never_asks_what_it_changes(checkerboard):
    torch.manual_seed(0)
    halves = []
    for flip in (False, True):
        network = nn.Conv2d(4, 8, 3, padding=1)
        coupling = AffineCoupling(network, 4, checkerboard=checkerboard, flip=flip)
        nn.init.normal_(coupling.factor)
        x = torch.randn(1, 4, 6, 6)
        y, _ = coupling(x)
        kept = x == y
        assert kept.float().mean() == 0.5
        halves.append(kept)
        other = torch.where(kept, x, torch.randn_like(x))
        torch.testing.assert_close(coupling._scale_and_shift(x), coupling._scale_and_shift(other))
    assert torch.equal(halves[0], ~halves[1])


def test_scales_stay_within_their_learned_factor_whatever_the_network_says():
    coupling = AffineCoupling(nn.Linear(2, 4), 2, checkerboard=False, flip=False)
    nn.init.constant_(coupling.factor, 0.7)
    nn.init.constant_(coupling.network.bias, 1e6)
    y, log_determinant = coupling(torch.randn(3, 2))
    assert y.isfinite().all()
    torch.testing.assert_close(log_determinant, torch.full((3,), 0.7))


def test_a_new_flow_scales_nothing_but_by_the_logit():
    model = RealNVP(8, hidden_channels=8, num_blocks=1).eval()
    x = torch.rand(2, 1, 8, 8)
    p = 0.05 + 0.9 * x
    slopes = (0.9 / (p * (1 - p))).log().flatten(1).sum(1)
    torch.testing.assert_close(model(x).log_determinant, slopes)


def test_black_and_white_pixels_have_a_density():
    model = image_flow()
    assert model.log_prob(torch.zeros(1, 1, 8, 8)).isfinite()
    assert model.log_prob(torch.ones(1, 1, 8, 8)).isfinite()


def test_a_flow_learns_to_be_normal_where_the_data_are():
    """Against the entropy of a correlated Gaussian, which has a closed form."""
    torch.manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0], [0.9, 0.3]])
    entropy = math.log(2 * math.pi * math.e) + math.log(0.3)
    model = PointRealNVP(2, num_couplings=4, hidden_sizes=(16,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = -model.log_prob(torch.randn(256, 2) @ mixing.T).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        nll = -model.log_prob(torch.randn(10_000, 2) @ mixing.T).mean().item()
    assert nll == pytest.approx(entropy, abs=0.08)


def test_nonsense_is_refused_with_its_value():
    with pytest.raises(ValueError, match="image_size must be a multiple of 4 for num_scales=3, no"):
        RealNVP(6, num_scales=3)
    with pytest.raises(ValueError, match=r"alpha must be between 0 and 0.5, not 0.5"):
        RealNVP(alpha=0.5)
    with pytest.raises(ValueError, match="in_features must be at least 2, not 1"):
        PointRealNVP(1)
