import pytest
import torch

from zoo.data.augmentation.mixing import (
    BetaQuantiles,
    CutMix,
    Mixup,
    MixupOrCutMix,
    mixing,
    soft_targets,
)
from zoo.data.loading.tensor import TensorLoader

EVERY = [Mixup(10, 0.4), CutMix(10, 1.0), MixupOrCutMix(10, mixup=0.4, cutmix=1.0)]


def batch(n=6, size=8, dtype=torch.uint8):
    images = torch.arange(n).view(n, 1, 1, 1).mul(10).expand(n, 3, size, size)
    return images.to(dtype).contiguous(), torch.arange(n) % 10


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_shares_follow_the_beta_distribution(alpha):
    stats = pytest.importorskip("scipy.stats")
    uniforms = torch.linspace(0, 1, 10_007)
    shares = BetaQuantiles(alpha)(uniforms)
    assert shares.dtype == torch.float32 and shares.min() == 0 and shares.max() == 1
    expected = torch.from_numpy(stats.beta(alpha, alpha).ppf(uniforms.double().numpy()))
    torch.testing.assert_close(shares.double(), expected, atol=2e-3, rtol=0)
    inner = slice(100, -100)
    torch.testing.assert_close(shares.double()[inner], expected[inner], atol=1e-4, rtol=0)


def test_mixup_adds_each_image_and_label_to_the_next_ones():
    images, labels = batch()
    draws = uniform(6, 1)
    share = BetaQuantiles(0.4)(draws[:, 0])
    mixed, targets = Mixup(10, 0.4).apply((images, labels), draws)
    for i in range(6):
        j, part = (i + 1) % 6, share[i]
        expected = part * images[i].float() + (1 - part) * images[j].float()
        torch.testing.assert_close(mixed[i], expected)
        shares = torch.zeros(10)
        shares[i] += part
        shares[j] += 1 - part
        torch.testing.assert_close(targets[i], shares)
    assert torch.equal(Mixup(10, 0.4)(images, draws), mixed)


def test_cutmix_labels_are_the_shares_of_the_pixels():
    images = torch.arange(200).view(200, 1, 1, 1).expand(200, 1, 9, 9).to(torch.uint8)
    cut, targets = CutMix(200, 1.0).apply((images, torch.arange(200)), uniform(200, 3))
    assert cut.dtype == torch.uint8
    for i in range(200):
        own = (cut[i] == i).float().mean()
        torch.testing.assert_close(targets[i, i], own)
        torch.testing.assert_close(targets[i, (i + 1) % 200], 1 - own)
    assert torch.equal(CutMix(200, 1.0)(images, uniform(200, 3)), cut)


def test_cutmix_cuts_rectangles_of_the_drawn_area_around_the_drawn_centre():
    draws = torch.tensor([[0.75, 0.5, 0.5], [0.0, 0.5, 0.5], [0.75, 0.0, 0.99]])
    rectangles = CutMix(10, 1.0).rectangles(draws, 8, 16).tolist()
    assert rectangles[0] == [2, 4, 4, 8]  # a quarter of the area: half the sides
    assert rectangles[1] == [0, 0, 8, 16]
    assert rectangles[2] == [0, 11, 2, 5]  # what lies outside does not count


def test_both_are_drawn_for_half_the_samples_each():
    images, labels = batch(n=2000)
    both = MixupOrCutMix(10, mixup=0.4, cutmix=1.0)
    draws = uniform(2000, both.num_draws)
    mixed, targets = both.apply((images, labels), draws)
    first = Mixup(10, 0.4).apply((images, labels), draws[:, 1:2])
    second = CutMix(10, 1.0).apply((images, labels), draws[:, 2:])
    chosen = draws[:, 0] < 0.5
    assert 900 < chosen.sum() < 1100
    for result, one, other in zip((mixed, targets), first, second, strict=True):
        assert torch.equal(result[chosen], one[chosen])
        assert torch.equal(result[~chosen], other[~chosen].float())
    assert torch.equal(both(images, draws), mixed)


@pytest.mark.parametrize("augmentation", EVERY)
def test_targets_add_up_to_one_and_other_targets_stay(augmentation):
    images, labels = batch()
    extra = torch.rand(6)
    draws = uniform(6, augmentation.num_draws)
    _, targets, same = augmentation.apply((images, labels, extra), draws)
    assert targets.shape == (6, 10) and targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    assert same is extra
    again = augmentation.apply((images, targets), draws)[1]
    torch.testing.assert_close(again.sum(1), torch.ones(6))


@pytest.mark.parametrize("augmentation", EVERY)
def test_a_batch_of_one_is_mixed_with_itself(augmentation):
    images, labels = batch(n=1)
    mixed, targets = augmentation.apply((images + 9, labels), uniform(1, augmentation.num_draws))
    torch.testing.assert_close(mixed.float(), (images + 9).float())
    torch.testing.assert_close(targets, soft_targets(labels, 10))


@pytest.mark.parametrize("augmentation", EVERY)
def test_a_loader_mixes_the_same_from_any_batch_on(augmentation):
    images, labels = batch(n=23)
    loader = TensorLoader((images, labels), batch_size=5, shuffle=True, augment=(augmentation,))
    whole, rest = list(loader.batches(1)), list(loader.batches(1, 3))
    for first, second in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert whole[0][1].shape == (5, 10)


def test_settings_of_zero_mix_nothing():
    assert mixing(10, mixup=0.0, cutmix=0.0) == ()
    kinds = [type(mixing(10, mixup=m, cutmix=c)[0]) for m, c in ((1, 0), (0, 1), (1, 1))]
    assert kinds == [Mixup, CutMix, MixupOrCutMix]


@pytest.mark.parametrize("alpha", [0, -1, float("inf")])
def test_nonsense_is_refused_with_the_value(alpha):
    with pytest.raises(ValueError, match=f"alpha must be greater than 0, not {alpha}"):
        Mixup(10, alpha)
