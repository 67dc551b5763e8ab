import math

import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of, tables_of
from zoo.figures.masks import Sample, colour_masks, comparison, overlay
from zoo.figures.palette import voc_colours
from zoo.inference.tiling import mirror
from zoo.models.segmentation.unet import UNet, unet_padded
from zoo.tasks.prediction import Masks
from zoo.tasks.segmentation import Segmentation


class Valid(nn.Module):
    """A network that loses a pixel on each side."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, num_classes, 3)

    def forward(self, x):
        return self.conv(x)


def batch(size=8, count=3, num_classes=3, channels=1):
    torch.manual_seed(0)
    images = torch.randn(count, channels, size, size)
    return images, torch.randint(num_classes, (count, size, size))


def pointwise(num_classes=3, channels=1):
    torch.manual_seed(0)
    return nn.Conv2d(channels, num_classes, 1)


def test_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    model = pointwise(5)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    loss, count = Segmentation(model, num_classes=5).loss(batch(num_classes=5))
    assert loss.item() == pytest.approx(math.log(5)) and count == 3 * 64


def test_targets_and_weights_are_cut_to_the_centre_that_an_unpadded_network_sees():
    task, (images, masks) = Segmentation(Valid(), num_classes=3), batch()
    weights = torch.rand(3, 8, 8)
    loss, count = task.loss((images, masks, weights))
    each = nn.functional.cross_entropy(task.model(images), masks[:, 1:7, 1:7], reduction="none")
    inner = weights[:, 1:7, 1:7]
    torch.testing.assert_close(loss, (each * inner).sum() / inner.sum())
    torch.testing.assert_close(count, inner.sum())


def test_evaluation_judges_every_pixel_with_the_image_mirrored_at_its_border():
    task, (images, masks) = Segmentation(Valid(), num_classes=3), batch()
    masks[0, 0, 0] = 255
    task.evaluate((images, masks))
    logits = task.model(mirror(images, 10, 10))
    values = task.compute()
    expected = nn.functional.cross_entropy(logits, masks, ignore_index=255).item()
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    right = (logits.argmax(1) == masks)[masks != 255].double().mean().item()
    assert values["pixel_accuracy"] == pytest.approx(right)
    assert values["pixel_error"] == pytest.approx(1 - right)
    assert set(values) == {"loss", "mean_iou", "dice", "pixel_accuracy", "pixel_error"}
    assert (task.monitor, task.mode, task.predicts) == ("mean_iou", "max", Masks)


def test_metrics_weigh_uneven_batches_by_their_pixels():
    images, masks = batch(count=5)
    masks[3, :4] = 255
    whole, parts = (Segmentation(pointwise(), num_classes=3) for _ in range(2))
    whole.evaluate((images, masks))
    for part in (slice(0, 4), slice(4, 5)):
        parts.evaluate((images[part], masks[part]))
    assert parts.compute() == pytest.approx(whole.compute())
    whole.reset()
    assert math.isnan(whole.compute()["loss"]) and not images_of(whole)


@pytest.mark.parametrize("tile_size", [None, 9])
@pytest.mark.parametrize("tta", ["none", "flips", "dihedral"])
def test_predictions_have_the_images_size_and_need_no_targets(tile_size, tta):
    task = Segmentation(Valid(), num_classes=3, tile_size=tile_size, tta=tta)
    images = torch.randn(2, 1, 13, 21)
    masks = task.predict(images).masks
    assert masks.shape == (2, 13, 21) and masks.dtype == torch.int64
    assert torch.equal(masks, task.predict((images, None)).masks)


def test_tiles_and_symmetries_change_nothing_where_the_network_sees_single_pixels():
    images = torch.randn(2, 1, 13, 21)
    plain = Segmentation(pointwise(), num_classes=3).predict(images).masks
    for arguments in ({"tile_size": 8}, {"tta": "dihedral"}, {"tile_size": 8, "tta": "flips"}):
        assert torch.equal(
            Segmentation(pointwise(), num_classes=3, **arguments).predict(images).masks, plain
        )


@pytest.mark.parametrize("tile_size", [None, 52])
def test_unpadded_u_net_gives_every_pixel_of_any_image_a_class(tile_size):
    model = UNet(3, base_channels=2, num_levels=2).eval()
    task = Segmentation(model, num_classes=3, tile_size=tile_size)
    images, masks = torch.randn(1, 1, 23, 41), torch.randint(3, (1, 23, 41))
    task.evaluate((images, masks))
    assert task.predict(images).masks.shape == (1, 23, 41)
    assert task.scores.sums["matrix"].sum() == 23 * 41


def test_tiles_of_the_unpadded_u_net_equal_the_whole_image():
    torch.manual_seed(0)
    model = UNet(3, base_channels=2, num_levels=2).double().eval()
    images = torch.randn(1, 1, 36, 60, dtype=torch.float64)
    whole = Segmentation(model, num_classes=3)._probabilities(images)
    # Tiles of 12 output pixels begin at multiples of the pooling step of 4.
    tiled = Segmentation(model, num_classes=3, tile_size=52)._probabilities(images)
    torch.testing.assert_close(tiled, whole)


def test_u_net_learns_a_few_images_by_heart():
    torch.manual_seed(0)
    model = unet_padded(3, base_channels=4, num_levels=2)
    task = Segmentation(model, num_classes=3)
    images, masks = torch.rand(3, 1, 16, 16), torch.zeros(3, 16, 16, dtype=torch.int64)
    masks[0, 3:9, 2:7], masks[1, 8:14, 5:15], masks[2, 2:6, 2:14] = 1, 2, 1
    images += masks.unsqueeze(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        for objective in task.objectives((images, masks)):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    model.eval()
    task.evaluate((images, masks))
    values = task.compute()
    assert values["loss"] < 0.02 and values["mean_iou"] > 0.999 and values["pixel_error"] < 0.001


@pytest.mark.parametrize("loss", ["dice", "focal", "cross_entropy_dice"])
def test_each_loss_learns_a_single_image(loss):
    torch.manual_seed(0)
    model = unet_padded(2, base_channels=4, num_levels=1)
    task = Segmentation(model, num_classes=2, loss=loss)
    images, masks = torch.randn(1, 1, 8, 8), torch.randint(2, (1, 8, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        value, _ = task.loss((images, masks))
        value.backward()
        optimizer.step()
    assert value.item() < 0.05


def test_loss_and_probabilities_are_in_single_precision_under_autocast():
    task = Segmentation(Valid(), num_classes=3)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = task.loss(batch())
        task.evaluate(batch())
        probabilities = task._probabilities(batch()[0])
    assert loss.dtype == probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3, 8, 8))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_an_evaluation_show_its_first_samples_whatever_their_size(channels):
    task = Segmentation(
        pointwise(channels=channels), num_classes=3, class_names=("_none", "cat", "price in $")
    )
    with torch.inference_mode():
        for size in (8, 12):
            images, masks = batch(size, channels=channels)
            masks[0, 0] = 255
            task.evaluate((images, masks))
        images = images_of(task)
    assert [image.size(-1) for image, *_ in task.samples.kept] == [8, 8, 8, 12]
    assert set(images) == {"samples"}
    image = images["samples"]
    assert image.shape[0] == 3 and image.min() >= 0 and image.max() <= 1
    assert image.std() > 0.1
    kept = task.samples.kept[0][0]
    assert kept.untyped_storage().nbytes() == channels * 8 * 8 * 4


def test_many_channels_are_segmented_without_images():
    task, data = Segmentation(pointwise(channels=5), num_classes=3), batch(channels=5)
    task.evaluate(data)
    assert images_of(task) == {} and task.show_inputs(data) == {}


def test_images_of_a_batch_stand_next_to_their_masks():
    images, masks = batch()
    grid = Segmentation(pointwise(), num_classes=3).show_inputs((images, masks))["inputs"].pixels
    assert grid.shape == (3, 2 * 66, 4 * 66)  # of 8x8 pixels, each eight times
    assert torch.equal(grid[:, :64:8, 66:130:8], colour_masks(masks[0]))
    assert grid.min() >= 0 and grid.max() <= 1


def test_colours_are_those_of_pascal_voc():
    colours = voc_colours()
    assert colours[:9].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
        [0, 128, 128],
        [128, 128, 128],
        [64, 0, 0],
    ]
    assert colours[[20, 255]].tolist() == [[0, 64, 128], [224, 224, 192]]
    assert len(colours.unique(dim=0)) == 256


def test_overlay_colours_all_but_the_background():
    image, mask = torch.ones(3, 1, 3), torch.tensor([[0, 1, 255]])
    laid = overlay(image, mask)
    assert laid[:, 0, 0].tolist() == [1, 1, 1]
    torch.testing.assert_close(laid[:, 0, 1], torch.tensor([(1 + 128 / 255) / 2, 0.5, 0.5]))


def test_more_classes_than_fit_are_drawn_without_legend():
    masks = torch.arange(64).view(8, 8)
    assert comparison([Sample(torch.rand(1, 8, 8), masks, masks)]).shape[0] == 3


def test_table_of_an_evaluation_is_the_iou_of_each_class_that_occurs():
    task = Segmentation(nn.Identity(), num_classes=3, class_names=("sky", "cat", "dog"))
    masks = torch.tensor([[[0, 0], [1, 1]]])
    task.evaluate((torch.eye(3)[torch.tensor([[[0, 0], [1, 0]]])].movedim(-1, 1), masks))
    assert tables_of(task)["classes"] == [
        {"class": "sky", "iou": pytest.approx(2 / 3), "pixels": 2},
        {"class": "cat", "iou": 0.5, "pixels": 2},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"loss": "hinge"}, "loss must be one of cross_entropy, .* not 'hinge'"),
        ({"ignore_index": 1}, "ignore_index must not be one of the 3 classes, but is 1"),
        ({"tile_size": 0}, "tile_size must be at least 1 or None, not 0"),
        ({"tile_overlap": 1.0}, r"tile_overlap must be in \[0, 1\), not 1.0"),
        ({"tta": "turns"}, "tta must be one of none, flips, dihedral, not 'turns'"),
        ({"class_names": ("a",)}, r"class_names must name 3 classes \(num_classes\), not 1"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Segmentation(nn.Identity(), **{"num_classes": 3, **arguments})


def test_output_that_does_not_fit_is_refused():
    images, masks = batch()
    with pytest.raises(
        ValueError, match=r"num_classes is 3, .*height, width\), not \(3, 4, 8, 8\)"
    ):
        Segmentation(pointwise(4), num_classes=3).loss((images, masks))
    with pytest.raises(ValueError, match=r"more pixels than it is given, but makes \(10, 10\)"):
        Segmentation(nn.Conv2d(1, 3, 3, padding=2), num_classes=3).loss((images, masks))
    with pytest.raises(ValueError, match=r"masks must be .* \(3, 8, 8\) as the images, not \(3, 6"):
        Segmentation(pointwise(), num_classes=3).loss((images, masks[:, :6]))
    with pytest.raises(ValueError, match=r"weights must be \(batch, height, width\), here"):
        Segmentation(pointwise(), num_classes=3).evaluate((images, masks, torch.ones(3, 6, 6)))
