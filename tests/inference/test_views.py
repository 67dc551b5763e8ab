import pytest
import torch
from torch import nn

from zoo.inference.views import AveragedViews
from zoo.tasks.classification import Classification


def small(size=None):
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(2) if size is None else nn.Identity()
    features = 3 * (4 if size is None else size * size)
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(features, 5))


def test_flip_is_the_mean_of_the_image_and_its_mirror_image():
    model, x = small(), torch.rand(4, 3, 8, 10)
    expected = (model(x).softmax(1) + model(x.flip(3)).softmax(1)) / 2
    task = Classification(AveragedViews(model, "flip"), num_classes=5)
    torch.testing.assert_close(task.predict(x).probabilities, expected)
    targets = torch.tensor([0, 1, 2, 3])
    task.evaluate((x, targets))
    values = task.compute()
    assert values["loss"] == pytest.approx(-expected[range(4), targets].log().mean().item())
    assert values["accuracy"] == (expected.argmax(1) == targets).float().mean()


def test_shifted_views_have_the_weights_of_the_speed_runs():
    model, x = small(), torch.rand(4, 3, 8, 10)
    wide = torch.cat([x[..., 1:2], x, x[..., -2:-1]], 3)
    wide = torch.cat([wide[:, :, 1:2], wide, wide[:, :, -2:-1]], 2)

    def both(view):
        return (model(view).softmax(1) + model(view.flip(3)).softmax(1)) / 2

    moved = (both(wide[:, :, :8, :10]) + both(wide[:, :, 2:, 2:])) / 2
    task = Classification(AveragedViews(model, "flip_shift"), num_classes=5)
    torch.testing.assert_close(task.predict(x).probabilities, (both(x) + moved) / 2)


@pytest.mark.parity
@pytest.mark.parametrize(("crop", "size"), [(6, (6, 6)), (12, (12, 12)), (None, (14, 28))])
def test_ten_crops_are_torchvisions(crop, size):
    functional = pytest.importorskip(
        "torchvision.transforms.v2.functional", reason="torchvision is not installed"
    )
    model, x = small(), torch.rand(2, 3, 16, 32)
    crops = functional.ten_crop(x, size)
    expected = torch.stack([model(view).softmax(1) for view in crops]).mean(0)
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    task = Classification(AveragedViews(model, "ten_crop", crop=crop), num_classes=5)
    torch.testing.assert_close(task.predict(x).probabilities, expected)

    def as_set(views):
        return {tuple(view.flatten().tolist()) for view in views}

    assert as_set(seen) == as_set(crops)


def test_images_that_look_the_same_from_everywhere_are_judged_as_without():
    model, x = small(), torch.rand(3, 3, 1, 1).expand(-1, -1, 8, 8)
    plain = model(x).softmax(1)
    for views in ("flip", "flip_shift", "ten_crop"):
        torch.testing.assert_close(AveragedViews(model, views)(x).softmax(1), plain)


def test_certainty_does_not_become_infinite():
    class Sure(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 1e4]]).expand(len(x), -1)

    task = Classification(AveragedViews(Sure(), "flip"), num_classes=2, label_smoothing=0.1)
    task.evaluate((torch.rand(2, 3, 4, 4), torch.tensor([0, 1])))
    assert 0 < task.compute()["loss"] < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flips",), "tta=flips: must be one of flip, flip_shift, ten_crop"),
        (("flip", 4), "crop=4: goes with tta=ten_crop"),
        (("ten_crop", 0), "crop=0: must be at least 1"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AveragedViews(small(), arguments[0], crop=arguments[1] if arguments[1:] else None)


def test_images_that_do_not_fit_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="crop=9: must be at most the images' 8x8"):
        AveragedViews(small(), "ten_crop", crop=9)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="the model does not take images of 7x7 pixels"):
        AveragedViews(small(8), "ten_crop")(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="tta=flip: these data are not images"):
        AveragedViews(small(), "flip")(torch.rand(1, 8))
