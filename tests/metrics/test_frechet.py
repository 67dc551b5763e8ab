import pytest
import torch

from zoo.metrics.frechet import FrechetDistance, PrincipalComponents, frechet_distance


def moments(x):
    return x.mean(0), x.T.cov()


def correlated(n, features, seed):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, features, generator=generator, dtype=torch.double)
    return torch.randn(n, features, generator=generator, dtype=torch.double) @ mix + seed


@pytest.mark.parity
@pytest.mark.parametrize("n", [50, 4])
def test_distance_equals_the_matrix_square_root_of_scipy(n):
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is not installed")
    (mean_a, cov_a), (mean_b, cov_b) = (moments(correlated(n, 6, seed)) for seed in (0, 1))
    root = linalg.sqrtm((cov_a @ cov_b).numpy()).real
    expected = (mean_a - mean_b).square().sum() + (cov_a + cov_b).trace() - 2 * root.trace()
    ours = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-9 if n > 6 else 1e-5)


def test_distance_of_one_dimension_is_the_closed_form():
    one = torch.ones(1, dtype=torch.double)
    distance = frechet_distance(2 * one, 9 * one[None], 5 * one, 4 * one[None])
    assert distance.item() == pytest.approx((2 - 5) ** 2 + (3 - 2) ** 2)


@pytest.mark.parametrize("n", [50, 4])
def test_distance_of_equal_sets_is_zero_even_if_they_span_fewer_dimensions(n):
    x = correlated(n, 6, seed=2)
    metric = FrechetDistance()
    metric.update(x, x)
    assert metric.compute().item() == pytest.approx(0, abs=1e-9)


def test_distance_is_the_same_in_one_batch_and_in_uneven_ones():
    real, generated = correlated(40, 5, seed=0), correlated(40, 5, seed=3)
    metric = FrechetDistance()
    for part in (slice(0, 25), slice(25, 40)):
        metric.update(real[part], generated[part])
    parts = metric.compute()
    metric.reset()
    metric.update(real, generated)
    torch.testing.assert_close(parts, metric.compute())
    expected = frechet_distance(*moments(real), *moments(generated))
    torch.testing.assert_close(parts, expected)


def test_distance_grows_with_the_shift_and_ignores_a_rotation_of_both():
    x = correlated(60, 4, seed=0)
    turn, _ = torch.linalg.qr(correlated(4, 4, seed=1))
    distances = []
    for shift in (0.0, 1.0, 2.0):
        for basis in (torch.eye(4, dtype=torch.double), turn):
            metric = FrechetDistance()
            metric.update(x @ basis, (x + shift) @ basis)
            distances.append(metric.compute().item())
    assert distances == pytest.approx([0, 0, 4, 4, 16, 16], abs=1e-9)


def test_components_are_the_leading_singular_directions():
    x = correlated(80, 6, seed=0).float()
    components = PrincipalComponents(2)
    components.fit([x[:30], x[30:]])
    centred = (x - x.mean(0)).double()
    leading = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    assert components(x).shape == (80, 2) and components(x).dtype == torch.double
    expected = centred @ leading.T @ leading
    torch.testing.assert_close(components(x) @ components.directions.T, expected, atol=1e-5, rtol=0)


def test_more_components_than_elements_are_all_of_them():
    components = PrincipalComponents(32)
    components.fit([torch.randn(20, 3)])
    assert components(torch.randn(5, 3)).shape == (5, 3)


def test_large_images_are_averaged_down_and_small_ones_kept():
    for side, elements in [(5, 75), (64, 3 * 32 * 32)]:
        components = PrincipalComponents(2)
        assert components.num_components == 2
        components.mean = torch.zeros(elements)
        components.directions = torch.ones(elements, 2)
        assert components(torch.ones(4, 3, side, side)).tolist() == [[elements] * 2] * 4


def test_state_carries_the_components_over():
    x = torch.randn(20, 1, 4, 4)
    first, second = PrincipalComponents(3), PrincipalComponents(3)
    first.fit([x])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


def test_unknown_components_and_missing_samples_are_named():
    with pytest.raises(RuntimeError, match="call prepare"):
        PrincipalComponents(2)(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="batches must hold samples"):
        PrincipalComponents(2).fit([])
    with pytest.raises(ValueError, match="num_components must be at least 1, not 0"):
        PrincipalComponents(0)
