"""Curves of several runs as an image."""

import pytest

from zoo.figures.histories import histories_image

CURVE = ([1, 2, 3], [0.5, 0.4, 0.2])


def colours(image):
    return {tuple(pixel) for pixel in (image * 255).round().int().flatten(1).T.tolist()}


def test_each_side_has_its_colour_and_each_metric_its_chart():
    blue, orange = (31, 119, 180), (255, 127, 14)
    one = histories_image({"val/loss": {"a": [CURVE]}})
    assert blue in colours(one) and orange not in colours(one)
    both = histories_image({"val/loss": {"a": [CURVE], "b": [(*CURVE[:1], [0.3, 0.6, 0.1])]}})
    assert {blue, orange} <= colours(both)
    assert both.shape == one.shape and one.shape[0] == 3
    three = histories_image({key: {"a": [CURVE]} for key in "xyz"})
    assert three.shape[1] == 2 * one.shape[1] and three.shape[2] == 2 * one.shape[2]


def test_a_curve_of_one_point_can_be_seen():
    assert (31, 119, 180) in colours(histories_image({"loss": {"a": [([4], [0.5])]}}))


def test_no_metric_is_refused():
    with pytest.raises(ValueError, match="at least one metric"):
        histories_image({})
