import sys

import pytest
import torch

from zoo.figures.grids import (
    are_images,
    confusion_matrix_image,
    enlarge,
    image_grid,
    input_grid,
    labelled_image_grid,
    rescale,
)


def assert_shows(image):
    assert image.shape[0] == 3 and image.ndim == 3 and image.is_floating_point()
    assert image.min() >= 0 and image.max() <= 1
    assert image.std() > 0


def test_grid_puts_each_image_in_its_place_on_black():
    images = torch.rand(5, 1, 3, 4)
    grid = image_grid(images, columns=2, padding=1)
    assert grid.shape == (3, 3 * 4, 2 * 5)
    for number, image in enumerate(images):
        row, column = divmod(number, 2)
        tile = grid[:, row * 4 : row * 4 + 3, column * 5 : column * 5 + 4]
        assert torch.equal(tile, image.expand(3, -1, -1))
    assert grid.sum() == pytest.approx(3 * images.sum().item(), rel=1e-5)


def test_grid_keeps_colours():
    images = torch.rand(2, 3, 4, 4)
    grid = image_grid(images, columns=8, padding=0)
    assert torch.equal(grid, torch.cat([images[0], images[1]], 2))


def test_rescaling_undoes_a_normalisation_by_channel():
    images = torch.rand(4, 3, 5, 5)
    images[0, :, 0, 0], images[1, :, 0, 0] = 0, 1
    mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.1
    torch.testing.assert_close(rescale((images - mean) / std), images)


def test_rescaling_equal_images_is_finite():
    assert torch.equal(rescale(torch.full((2, 1, 3, 3), 7.0)), torch.zeros(2, 1, 3, 3))


def test_input_grid_shows_the_first_sixteen():
    inputs = torch.randn(20, 1, 8, 8)
    image = input_grid(inputs)
    assert_shows(image)
    assert image.shape == (3, 4 * 66, 4 * 66)
    assert torch.equal(image, input_grid(inputs[:16]))


@pytest.mark.parametrize(("size", "factor"), [((8, 8), 8), ((28, 28), 2), ((9, 70), 1)])
def test_small_images_are_enlarged_pixel_by_pixel(size, factor):
    images = torch.rand(2, 1, *size)
    large = enlarge(images)
    assert large.shape == (2, 1, size[0] * factor, size[1] * factor)
    assert torch.equal(large[..., ::factor, ::factor], images)
    assert torch.equal(large[..., factor - 1 :: factor, factor - 1 :: factor], images)


def test_what_is_not_a_batch_of_images_is_told_apart():
    for inputs in (torch.rand(4, 3), torch.rand(4, 2, 8, 8), torch.zeros(4, 1, 8, 8).long(), [[1]]):
        assert not are_images(inputs)
    assert are_images(torch.rand(4, 1, 8, 8)) and are_images(torch.rand(4, 3, 8, 8))


@pytest.mark.parametrize("classes", [1, 5, 20, 40])
def test_confusion_matrix_is_drawn_for_few_and_many_classes(classes):
    torch.manual_seed(0)
    matrix = torch.randint(9, (classes, classes))
    matrix[0] = 0
    assert_shows(confusion_matrix_image(matrix))


def test_class_names_stand_on_the_axes_as_they_are():
    matrix = torch.eye(2, dtype=torch.int64)
    plain = confusion_matrix_image(matrix)
    assert not torch.equal(plain, confusion_matrix_image(matrix, ("$x^2$", "_{")))


def test_colour_is_the_share_of_the_true_class():
    # A class of one sample is as dark as a class of a thousand.
    image = confusion_matrix_image(torch.diag(torch.tensor([1, 1000])).repeat(8, 8)[:16, :16])
    darkest = confusion_matrix_image(torch.zeros(16, 16, dtype=torch.int64))
    assert image.mean() < darkest.mean()


def test_labelled_grid_is_drawn_for_grey_and_colour():
    assert_shows(labelled_image_grid(torch.rand(5, 1, 8, 8), list("abcde")))
    assert_shows(labelled_image_grid(torch.rand(1, 3, 8, 8), ["a $ → b"]))


def test_figures_leave_pyplot_alone():
    assert_shows(confusion_matrix_image(torch.eye(3, dtype=torch.int64)))
    if "torchmetrics" not in sys.modules and "networkx" not in sys.modules:
        assert "matplotlib.pyplot" not in sys.modules
