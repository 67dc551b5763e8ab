import pytest
import torch
import torch.nn.functional as F

from zoo.tasks.segmentation_losses import SegmentationLoss

CLASSES = 3
NAMES = ["cross_entropy", "dice", "focal", "cross_entropy_dice"]


def example(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, CLASSES, 5, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(CLASSES, (batch, 5, 6), generator=generator)
    ignored = torch.rand(batch, 5, 6, generator=generator) < 0.2
    weights = torch.rand(batch, 5, 6, generator=generator, dtype=torch.float64) + 0.5
    return logits, targets.masked_fill(ignored, 255), weights


def criterion(name, **arguments):
    return SegmentationLoss(name, num_classes=CLASSES, **arguments)


@pytest.mark.parametrize("class_weights", [None, (0.2, 1.0, 3.0)])
def test_cross_entropy_equals_torchs_with_ignored_pixels_and_class_weights(class_weights):
    logits, targets, _ = example()
    loss, count = criterion("cross_entropy", class_weights=class_weights)(
        logits.log_softmax(1), targets
    )
    weight = None if class_weights is None else torch.tensor(class_weights).double()
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, weight, ignore_index=255))
    each = (torch.ones(3).double() if weight is None else weight)[targets[targets != 255]]
    torch.testing.assert_close(count, each.sum())


def test_weight_map_multiplies_each_pixel():
    logits, targets, weights = example()
    loss, count = criterion("cross_entropy")(logits.log_softmax(1), targets, weights)
    each = F.cross_entropy(logits, targets, ignore_index=255, reduction="none")
    counted = weights[targets != 255].sum()
    torch.testing.assert_close(loss, (weights * each).sum() / counted)
    torch.testing.assert_close(count, counted)


def test_focal_is_the_equation_and_without_gamma_cross_entropy():
    logits, targets, weights = example()
    log_p = logits.log_softmax(1)
    loss, _ = criterion("focal", focal_gamma=1.5, class_weights=(1.0, 2.0, 0.5))(log_p, targets)
    total, norm = 0.0, 0.0
    for place in (targets != 255).nonzero():
        b, y, x = place.tolist()
        k = int(targets[b, y, x])
        p, alpha = log_p[b, k, y, x].exp().item(), (1.0, 2.0, 0.5)[k]
        total += -alpha * (1 - p) ** 1.5 * torch.tensor(p).log().item()
        norm += alpha
    assert loss.item() == pytest.approx(total / norm, rel=1e-5)
    plain = criterion("focal", focal_gamma=0.0)(log_p, targets, weights)
    torch.testing.assert_close(plain, criterion("cross_entropy")(log_p, targets, weights))


def test_focal_has_a_finite_gradient_where_a_pixel_is_surely_right():
    logits = torch.tensor([60.0, -60.0, -60.0]).view(1, 3, 1, 1).requires_grad_()
    for gamma in (0.5, 2.0):
        targets = torch.zeros(1, 1, 1, dtype=torch.int64)
        criterion("focal", focal_gamma=gamma)(logits.log_softmax(1), targets)[0].backward()
        assert logits.grad.isfinite().all()


def test_dice_is_the_equation_of_each_image():
    logits, targets, _ = example()
    p, expected, pixels = logits.softmax(1), 0.0, 0
    for i in range(len(p)):
        counted = targets[i] != 255
        ratios = []
        for k in range(CLASSES):
            truth = (targets[i] == k)[counted].double()
            chance = p[i, k][counted]
            ratios.append((2 * (truth * chance).sum() + 1) / (truth.sum() + chance.sum() + 1))
        expected += counted.sum() * (1 - sum(ratios) / CLASSES)
        pixels += counted.sum()
    loss, count = criterion("dice")(logits.log_softmax(1), targets)
    torch.testing.assert_close(loss, expected / pixels)
    assert count == pixels


def test_sum_is_cross_entropy_and_weighted_dice():
    logits, targets, _ = example()
    log_p = logits.log_softmax(1)
    parts = [criterion(name)(log_p, targets)[0] for name in ("cross_entropy", "dice")]
    both = criterion("cross_entropy_dice", dice_weight=0.3)(log_p, targets)[0]
    torch.testing.assert_close(both, parts[0] + 0.3 * parts[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_uneven_parts_of_a_batch_add_up_to_its_gradient(name, is_weighted):
    logits, targets, weights = example(batch=5)
    loss_of = criterion(
        name, class_weights=(0.5, 1.0, 2.0) if is_weighted and name != "dice" else None
    )
    weights = weights if is_weighted else None

    def gradient(parts):
        x = logits.clone().requires_grad_()
        total, count = 0.0, 0.0
        for part in parts:
            w = None if weights is None else weights[part]
            loss, terms = loss_of(x[part].log_softmax(1), targets[part], w)
            total, count = total + loss * terms, count + terms
        (total / count).backward()
        return x.grad

    parts = [slice(0, 1), slice(1, 4), slice(4, 5)]
    torch.testing.assert_close(gradient(parts), gradient([slice(0, 5)]))


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_have_no_gradient_and_a_batch_of_them_no_say(name):
    logits, targets, weights = example()
    x = logits.clone().requires_grad_()
    criterion(name)(x.log_softmax(1), targets, weights)[0].backward()
    gradient = x.grad.movedim(1, -1)
    assert not gradient[targets == 255].any() and gradient[targets != 255].any()
    loss, count = criterion(name)(x.log_softmax(1), torch.full_like(targets, 255))
    assert (loss.item(), count.item()) == (0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_prediction_costs_nothing(name):
    _, targets, _ = example()
    targets[0] = 0  # Classes that are not there cost nothing either.
    labels = targets.masked_fill(targets == 255, 0)
    logits = 80 * F.one_hot(labels, CLASSES).movedim(-1, 1).double()
    assert criterion(name)(logits.log_softmax(1), targets)[0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "hinge"}, "loss must be one of cross_entropy, dice, focal, .* not 'hinge'"),
        ({"dice_weight": -1.0}, "dice_weight must not be negative, but is -1.0"),
        ({"focal_gamma": -0.5}, "focal_gamma must not be negative, but is -0.5"),
        ({"class_weights": (1.0, 2.0)}, r"class_weights must be 3 numbers .* not \[1.0, 2.0\]"),
        ({"class_weights": (1.0, -1.0, 2.0)}, "class_weights must be 3 numbers .* none negative"),
        ({"name": "dice", "class_weights": (1.0, 1.0, 2.0)}, "class_weights must be null where"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(**{"num_classes": CLASSES, **arguments})
