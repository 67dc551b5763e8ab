import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.download import DataError
from zoo.data.images.base import Normalize
from zoo.data.masks.base import (
    MaskModule,
    NormalizeAnySize,
    border_weights,
    check_pair,
    class_balance,
    image_tensor,
    read_image,
    read_mask,
)

MEAN, STD = [0.1, 0.5, 0.7], [0.2, 0.3, 0.4]


def save(path, pixels, mode="L"):
    image = Image.fromarray(np.array(pixels, dtype=np.uint8))
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([7 * i % 256 for i in range(768)])
    else:
        image = image.convert(mode)
    image.save(path)
    return path


class Module(MaskModule):
    image_size, in_channels, class_names = 8, 3, ("background", "thing")
    normalize = NormalizeAnySize(MEAN, STD)

    def setup(self, *, seed=0, device="cpu"):
        raise NotImplementedError


def test_normalisation_gives_the_same_bits_as_elsewhere():
    images = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    for dtype in (torch.uint8, torch.float32):
        given = images.to(dtype)
        actual = NormalizeAnySize(MEAN, STD)(given)
        assert torch.equal(actual, Normalize(MEAN, STD)(given)) and actual.dtype == torch.float32
        assert torch.equal(given, images.to(dtype))


def test_normalisation_keeps_the_same_table_for_all_sizes():
    normalize = NormalizeAnySize(MEAN, STD)
    for size in range(1, 9):
        normalize(torch.zeros(1, 3, size, size + 1))
    assert len(normalize._tables) == 1
    with pytest.raises(ValueError, match="images must have 3 channels, as many as mean, not 1"):
        normalize(torch.zeros(2, 1, 4, 4))


def test_a_image_is_prepared_in_its_own_size():
    image = Image.new("RGB", (13, 7), (0, 128, 255))
    prepared = Module().preprocess(image)
    expected = (torch.tensor([0, 128, 255]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert prepared.shape == (3, 7, 13)
    torch.testing.assert_close(prepared[:, 3, 5], expected)


def test_facts_hold_a_side_only_where_images_are_square():
    module = Module()
    without = {
        "num_classes": 2,
        "class_names": list(Module.class_names),
        "in_channels": 3,
    }
    assert module.facts() == without | {"image_size": 8}
    module.image_size = None
    assert module.facts() == without


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_images_of_every_mode_are_taken(mode, in_channels):
    pixels = image_tensor(Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode), in_channels)
    assert pixels.shape == (in_channels, 7, 9) and pixels.dtype == torch.uint8
    assert (pixels > 250).all()


def test_images_of_sixteen_bits_are_scaled_rather_than_cut_off(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 257 * 99, dtype=np.uint16)).save(path)
    assert (read_image(path, 1) == 99).all()


@pytest.mark.parametrize("read", [lambda path: read_image(path, 3), read_mask])
@pytest.mark.parametrize("content", [b"", b"no image"])
def test_an_unreadable_file_is_named(read, content, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an? (image|mask)"):
        read(path)


def test_indexed_masks_are_read_as_the_numbers_and_not_the_colours_of_their_palette(tmp_path):
    values, indexed = read_mask(save(tmp_path / "a.png", [[0, 1, 20], [255, 3, 0]], "P"))
    assert values.tolist() == [[0, 1, 20], [255, 3, 0]] and indexed


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1"])
def test_grey_masks_are_read_as_their_values_however_stored(mode, tmp_path):
    values, indexed = read_mask(save(tmp_path / "a.png", [[0, 255], [255, 0]], mode))
    assert values.tolist() == [[0, 255], [255, 0]] and not indexed


def test_coloured_masks_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (3, 3), (200, 0, 0)).save(path)
    with pytest.raises(DataError, match=r"a.png is an image of mode RGB, not a mask: save it as"):
        read_mask(path)


def test_a_mask_of_another_size_than_its_image_is_told():
    sample = torch.zeros(3, 4, 5), torch.zeros(4, 6)
    with pytest.raises(DataError, match="m has 6x4 pixels, but its image p 5x4"):
        check_pair("p", "m", sample)


def test_balanced_classes_weigh_the_same_and_one_on_average():
    mask = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 3, 255]], dtype=torch.uint8)
    weights = class_balance([mask, mask], 5)
    counts = torch.tensor([6.0, 2, 0, 1, 0])
    torch.testing.assert_close(weights[:5] * counts, torch.tensor([3.0, 3, 0, 3, 0]))
    assert (weights[5:] == 0).all()
    assert weights[mask.long()].sum().item() == pytest.approx(9)


def test_border_weights_are_equation_two_of_the_paper():
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[5:30, 4:20] = 1
    mask[8:35, 26:40] = 1
    mask[2:9, 45:58] = 2
    mask[10:12, 45:58] = 2
    mask[36:, :] = 255
    balance = class_balance([mask], 3)
    weights = border_weights(mask, balance, border=7.0, sigma=4.0)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    boxes = [(5, 30, 4, 20), (8, 35, 26, 40), (2, 9, 45, 58), (10, 12, 45, 58)]
    distances = []
    for top, bottom, left, right in boxes:
        up = torch.maximum(top - y, y - bottom + 1).clamp(min=0)
        aside = torch.maximum(left - x, x - right + 1).clamp(min=0)
        distances.append((up**2 + aside**2).double().sqrt())
    d1, d2 = torch.stack(distances).sort(0).values[:2]
    expected = balance[mask.long()] + 7 * (-((d1 + d2) ** 2) / 32).exp() * (mask == 0)
    torch.testing.assert_close(weights, expected.float(), atol=1e-6, rtol=1e-5)
    assert (weights[36:] == 0).all()
    assert weights[20, 22] > weights[20, 1] and weights[9, 50] > balance[0] + 3


def test_border_weights_of_a_mask_with_nothing_or_one_thing_are_those_of_the_classes():
    for mask in (torch.zeros(9, 9), torch.eye(9).cummax(0).values):
        mask = mask.to(torch.uint8)
        balance = class_balance([mask], 2)
        torch.testing.assert_close(border_weights(mask, balance), balance[mask.long()])
