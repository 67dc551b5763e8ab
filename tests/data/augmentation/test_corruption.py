"""Corruptions: their moments, what scipy's are, and that they get worse."""

import pytest
import torch

from zoo.data.augmentation.corruption import CORRUPTIONS, corrupt


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def images(channels=3):
    smooth = torch.rand(4, channels, 4, 4)
    return torch.nn.functional.interpolate(smooth, size=(32, 32), mode="bilinear")


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_get_worse_by_degrees_and_stay_images(kind, channels):
    x = images(channels)
    assert torch.equal(corrupt(x, kind, 0), x)
    errors = []
    for severity in range(1, 6):
        y = corrupt(x, kind, severity)
        assert y.shape == x.shape and y.dtype == x.dtype and y.min() >= 0 and y.max() <= 1
        errors.append((y - x).square().mean().item())
    assert errors == sorted(errors) and errors[0] > 0


def test_noise_has_mean_0_and_its_deviation():
    x = torch.full((8, 3, 64, 64), 0.5)
    rest = corrupt(x, "noise", 1) - x
    assert rest.mean().item() == pytest.approx(0, abs=1e-3)
    assert rest.std().item() == pytest.approx(0.08, rel=0.01)


def test_contrast_keeps_the_mean_and_scales_what_differs_from_it():
    x = images()
    y, mean = corrupt(x, "contrast", 2), x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(y - mean, 0.3 * (x - mean))


@pytest.mark.parity
@pytest.mark.parametrize("severity", [1, 5])
def test_blur_is_scipys(severity):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")
    x, deviation = torch.rand(2, 3, 32, 32).double(), (0.4, None, None, None, 1.0)[severity - 1]
    expected = ndimage.gaussian_filter(
        x.numpy(), (0, 0, deviation, deviation), mode="nearest", radius=[0, 0, 4, 4]
    )
    found = corrupt(x, "blur", severity)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_refused():
    with pytest.raises(ValueError, match="corrupt must be one of noise, blur, contrast, jpeg"):
        corrupt(images(), "fog", 1)
    with pytest.raises(ValueError, match="severity must be from 0 to 5, not 6"):
        corrupt(images(), "noise", 6)
