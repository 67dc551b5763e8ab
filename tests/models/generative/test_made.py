import itertools

import pytest
import torch
from torch.nn import functional as F

from zoo.models.generative.made import MADE


def small(seed=0, scale=1.0, **options):
    torch.manual_seed(seed)
    model = MADE(3, **{"hidden_sizes": (20, 15), **options}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale)
    return model


def states(units):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)), dtype=torch.double)


@pytest.mark.parametrize(
    ("hidden_sizes", "count"),
    [((8000,), 12_552_784), ((500,), 785_284), ((500, 500), 1_035_784)],
)
def test_parameter_counts_are_the_docstrings(hidden_sizes, count):
    with torch.device("meta"):
        model = MADE(hidden_sizes=hidden_sizes)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("ordering", ["natural", "random"])
@pytest.mark.parametrize("hidden_sizes", [(100,), (100, 80), (100, 80, 100)])
def test_a_logit_depends_on_just_the_pixels_before_it(ordering, hidden_sizes):
    model = small(hidden_sizes=hidden_sizes, ordering=ordering, scale=0.5)
    places = model.order.argsort()
    depends = torch.zeros(9, 9, dtype=torch.bool)
    for image in torch.randn(10, 1, 3, 3, dtype=torch.double):
        jacobian = torch.autograd.functional.jacobian(model, image[None]).view(9, 9)
        depends |= jacobian[places][:, places] != 0  # outputs, inputs: both in the order's turn
    before = torch.ones(9, 9, dtype=torch.bool).tril(-1)
    assert not (depends & ~before).any()
    assert depends[before].float().mean() > 0.8  # A ReLU may be silent for ten images.
    paths = torch.eye(9)
    for layer in model.layers:
        paths = layer.mask.float() @ paths
    assert torch.equal(paths[places][:, places] > 0, before)  # No pixel before is out of reach.


@pytest.mark.parametrize("ordering", ["natural", "random"])
def test_probabilities_of_all_images_sum_to_one(ordering):
    model = small(ordering=ordering)
    log_probabilities = model.log_prob(states(9).view(-1, 1, 3, 3))
    assert log_probabilities.logsumexp(0).item() == pytest.approx(0, abs=1e-10)
    assert log_probabilities.std() > 1  # It is not that all of them are equally likely.


def test_log_prob_is_the_product_of_the_conditionals_one_by_one():
    model = small(ordering="random")
    image = states(9)[300].view(1, 1, 3, 3)
    total = 0.0
    for place in model.order.argsort():
        seen = image.flatten() * (model.order < model.order[place])  # the pixels before alone
        mean = model(seen.view(1, 1, 3, 3)).sigmoid().flatten()[place]
        total += torch.log(mean if image.flatten()[place] else 1 - mean)
    torch.testing.assert_close(model.log_prob(image)[0], total)


def test_samples_come_from_the_model():
    model = small()
    exact = model.log_prob(states(9).view(-1, 1, 3, 3)).exp()
    samples = model.sample(40_000, torch.Generator().manual_seed(0))
    assert samples.shape == (40_000, 1, 3, 3)
    numbers = samples.flatten(1) @ torch.tensor([2.0**k for k in reversed(range(9))]).double()
    shares = torch.bincount(numbers.long(), minlength=512) / len(samples)
    torch.testing.assert_close(shares.double(), exact, atol=0.01, rtol=0)
    assert F.mse_loss(shares.double(), exact) < 1 / len(samples) / 512 * 3


def test_the_first_pixel_of_the_order_is_a_matter_of_its_bias():
    model = small(ordering="random")
    first = int(model.order.argmin())
    logits = model(torch.rand(4, 1, 3, 3, dtype=torch.double)).flatten(1)[:, first]
    torch.testing.assert_close(logits, model.layers[-1].bias[first].expand(4))


def test_a_new_network_starts_at_the_mean_image_and_a_trained_one_stays():
    mean = torch.rand(1, 3, 3) * 0.8 + 0.1
    torch.manual_seed(0)
    model = MADE(3, hidden_sizes=(20,))
    model.start_at(mean)
    bias = model.layers[-1].bias.detach().clone()
    torch.testing.assert_close(bias.sigmoid(), mean.flatten())
    model.start_at(1 - mean)
    assert torch.equal(model.layers[-1].bias, bias)


def test_the_order_is_part_of_the_state_and_differs_from_seed_to_seed():
    one, other = small(0, ordering="random"), small(1, ordering="random")
    assert not torch.equal(one.order, other.order)
    assert sorted(one.order.tolist()) == list(range(1, 10))
    image = torch.ones(1, 1, 3, 3, dtype=torch.double)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.log_prob(image), one.log_prob(image))


def test_nonsense_is_refused_with_its_value():
    with pytest.raises(ValueError, match="two pixels and a hidden layer at least, not 1 and"):
        MADE(1)
    with pytest.raises(ValueError, match=r"not 784 and hidden_sizes=\[\]"):
        MADE(hidden_sizes=())
    with pytest.raises(ValueError, match="ordering must be 'natural' or 'random', not 'odd'"):
        MADE(3, ordering="odd")
