import math

import pytest
import torch

from zoo.metrics.sample_quality import (
    SampleQuality,
    kernel_distance,
    precision_recall_density_coverage,
)


def features(count, dim=5, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) + shift


@pytest.mark.parity
@pytest.mark.parametrize("shift", [0.0, 0.7, 9.0])
def test_neighbourhoods_equal_the_package_of_their_authors(shift):
    prdc = pytest.importorskip("prdc")
    real, generated = features(1300), features(1100, shift=shift, seed=1)
    expected = prdc.compute_prdc(real.numpy(), generated.numpy(), nearest_k=4)
    found = precision_recall_density_coverage(real, generated, neighbours=4)
    assert found == pytest.approx({name: float(value) for name, value in expected.items()})


@pytest.mark.parity
def test_the_kernel_distance_equals_that_of_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")
    network = torch.nn.Identity()
    network.num_features = 5
    metric = kid.KernelInceptionDistance(network, subsets=1, subset_size=60)
    real, generated = features(60), features(60, shift=0.4, seed=1)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    found = kernel_distance(real, generated)
    torch.testing.assert_close(found.float(), metric.compute()[0].float(), rtol=1e-5, atol=1e-7)


def test_the_kernel_distance_is_unbiased_and_grows_with_the_shift():
    same = [kernel_distance(features(50, seed=s), features(50, seed=s + 200)) for s in range(100)]
    same = torch.stack(same)
    assert same.mean().abs() < 4 * same.std() / 10
    distances = [
        kernel_distance(features(2500), features(2500, shift=s, seed=1)) for s in (0, 1, 2)
    ]
    assert abs(distances[0]) < 0.05 < distances[1] < distances[2]


def test_a_copy_of_the_data_is_perfect_and_noise_far_away_is_worthless():
    real = features(200)
    perfect = precision_recall_density_coverage(real, real.clone())
    assert perfect["precision"] == perfect["recall"] == perfect["coverage"] == 1
    far = precision_recall_density_coverage(real, features(200, shift=100.0, seed=1))
    assert set(far.values()) == {0.0}


def test_one_mode_of_two_is_precise_and_recalls_half():
    both = torch.cat([features(300), features(300, shift=50.0, seed=1)])
    one = features(600, seed=2)
    found = precision_recall_density_coverage(both, one)
    assert found["precision"] > 0.9 and found["recall"] <= 0.5 and found["coverage"] <= 0.5


def test_parts_add_up_within_the_limit():
    real, generated = features(90), features(90, shift=0.3, seed=1)
    whole = SampleQuality(limit=80)
    whole.update(real[:80], generated[:80])
    first, second = SampleQuality(limit=80), SampleQuality(limit=80)
    first.update(real[:30], generated[:30])
    second.update(real[30:], generated[30:])
    first.merge(second)
    assert first.compute() == whole.compute()
    assert set(first.compute()) == set(SampleQuality.higher_is_better)
    first.reset()
    assert all(map(math.isnan, first.compute().values()))


def test_too_few_samples_have_no_neighbourhoods():
    metric = SampleQuality(neighbours=5)
    metric.update(features(5), features(50, seed=1))
    assert all(map(math.isnan, metric.compute().values()))
    with pytest.raises(ValueError, match="neighbours must be from 1 to below limit 10, not 10"):
        SampleQuality(neighbours=10, limit=10)
