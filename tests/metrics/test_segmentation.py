import pytest
import torch

from zoo.metrics.segmentation import SegmentationScores


@pytest.fixture
def torchmetrics():
    return pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")


def batches(classes, *, absent=(), count=3):
    torch.manual_seed(classes)
    present = torch.tensor([k for k in range(classes) if k not in absent])
    for _ in range(count):
        targets = present[torch.randint(len(present), (2, 6, 7))]
        other = present[torch.randint(len(present), (2, 6, 7))]
        predicted = torch.where(torch.rand(2, 6, 7) < 0.6, targets, other)
        targets[torch.rand(2, 6, 7) < 0.1] = 255
        yield predicted, targets


@pytest.mark.parity
@pytest.mark.parametrize(("classes", "absent"), [(2, ()), (5, ()), (6, (2, 5)), (4, (0,))])
def test_scores_equal_torchmetrics_with_absent_classes_and_ignored_pixels(
    torchmetrics, classes, absent
):
    ours = SegmentationScores(classes)
    options = {"num_classes": classes, "ignore_index": 255}
    classification = torchmetrics.classification
    theirs = {
        "mean_iou": classification.MulticlassJaccardIndex(average="macro", **options),
        "dice": classification.MulticlassF1Score(average="macro", **options),
        "pixel_accuracy": classification.MulticlassAccuracy(average="micro", **options),
    }
    for predicted, targets in batches(classes, absent=absent):
        ours.update(predicted, targets)
        for metric in theirs.values():
            metric.update(predicted, targets)
    values = ours.compute()
    for name, metric in theirs.items():
        torch.testing.assert_close(values[name].float(), metric.compute(), msg=name)
    assert values["pixel_error"].item() == pytest.approx(1 - values["pixel_accuracy"].item())
    each = classification.MulticlassJaccardIndex(average="none", **options)
    for predicted, targets in batches(classes, absent=absent):
        each.update(predicted, targets)
    torch.testing.assert_close(ours.iou().nan_to_num(0).float(), each.compute())
    assert ours.iou().isnan().nonzero().flatten().tolist() == list(absent)


@pytest.mark.parity
def test_class_predicted_but_not_there_counts_as_in_torchmetrics(torchmetrics):
    targets = torch.tensor([[[0, 0, 1, 1]]])
    predicted = torch.tensor([[[0, 0, 1, 2]]])
    ours = SegmentationScores(4)
    ours.update(predicted, targets)
    theirs = torchmetrics.classification.MulticlassJaccardIndex(num_classes=4)
    expected = (1 + 0.5 + 0) / 3
    assert ours.compute()["mean_iou"].item() == pytest.approx(expected)
    assert theirs(predicted, targets).item() == pytest.approx(expected)


def test_pixel_error_of_two_classes_is_the_squared_distance_of_the_labels_a_pixel():
    scores, distance, pixels = SegmentationScores(2), 0.0, 0
    for predicted, targets in batches(2):
        scores.update(predicted, targets)
        counted = targets != 255
        distance += (predicted - targets)[counted].double().square().sum().item()
        pixels += int(counted.sum())
    assert scores.compute()["pixel_error"].item() == pytest.approx(distance / pixels)


def test_halves_of_a_data_set_combine_by_their_sums():
    whole, first, second = (SegmentationScores(3) for _ in range(3))
    for number, batch in enumerate(batches(3, count=4)):
        whole.update(*batch)
        (first if number < 2 else second).update(*batch)
    first.add(**second.sums)
    assert first.compute() == whole.compute()


def test_without_pixels_all_scores_are_zero_and_reset_forgets():
    scores = SegmentationScores(3)
    scores.update(*next(batches(3)))
    scores.reset()
    masks = torch.full((1, 2, 2), 255)
    scores.update(torch.zeros_like(masks), masks)
    assert set(map(float, scores.compute().values())) == {0.0}
