import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.images.base import Normalize, fit_square

MEAN, STD = [0.1, 0.5, 0.7], [0.2, 0.3, 0.4]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalisation_is_that_of_torchvision_in_any_memory_format(memory_format, dtype):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = torch.randint(0, 256, (5, 3, 7, 6), dtype=torch.uint8)
    expected = functional.normalize(images.float() / 255, MEAN, STD)
    given = images.to(dtype).contiguous(memory_format=memory_format)
    before = given.clone()
    actual = Normalize(MEAN, STD)(given)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    assert actual.dtype == torch.float32
    assert actual.is_contiguous(memory_format=memory_format)
    assert torch.equal(given, before)


def test_normalisation_of_a_image_does_not_depend_on_its_batch():
    images = torch.rand(17, 3, 5, 5)
    normalize = Normalize(MEAN, STD, max_value=1)
    assert torch.equal(normalize(images)[4:9], normalize(images[4:9]))


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="images must have 3 channels, as many as mean, not 1"):
        Normalize(MEAN, STD)(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.5, 0.5], "equally long, not 1 and 2"),
        ([0.5], [0.0], "std must be greater than 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalize(mean, std)


def test_a_long_image_is_cropped_to_its_middle_or_kept_whole_on_black():
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 200
    image = Image.fromarray(pixels)
    assert (fit_square(image, 10, in_channels=1, crop=True) == 200).all()
    whole = fit_square(image, 30, in_channels=1, crop=False).squeeze(2)
    assert (whole[10:20, 11:19] == 200).all()
    assert (whole[:10] == 0).all() and (whole[20:] == 0).all() and (whole[:, :9] == 0).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_images_of_every_mode_are_taken(mode, in_channels):
    image = Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode)
    pixels = fit_square(image, 6, in_channels=in_channels, crop=True)
    assert pixels.shape == (6, 6, in_channels) and pixels.dtype == torch.uint8
    assert (pixels > 250).all()
