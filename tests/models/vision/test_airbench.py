import copy

import pytest
import torch
import torch.nn.functional as F

from zoo.data.loading.tensor import TensorLoader
from zoo.models.vision.airbench import WHITENED, Airbench, Whitening, airbench94
from zoo.tasks.classification import Classification
from zoo.tasks.multi_label_classification import MultiLabelClassification


def images(count=64, size=32, seed=0):
    """Images whose neighbours are alike, in colours that are alike."""
    rough = torch.rand(
        count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed)
    )
    return F.interpolate(rough + rough.mean(1, keepdim=True), scale_factor=4, mode="bilinear") - 1


def by_formula(state, x):
    """The network as the recipe's authors compute it, from the tensors alone, in training."""
    x = F.gelu(F.conv2d(x, state["whiten.weight"], state["whiten.bias"]))
    for group in ("layers.1", "layers.2", "layers.3"):
        for number, pool in (("1", True), ("2", False)):
            x = F.conv2d(x, state[f"{group}.conv{number}.weight"], padding="same")
            x = F.max_pool2d(x, 2) if pool else x
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
            x = (x - mean) / (var + 1e-12).sqrt()
            x = F.gelu(x + state[f"{group}.norm{number}.bias"].view(-1, 1, 1))
    x = F.max_pool2d(x, 3).flatten(1)
    return x @ state["head.weight"].T / 256


def test_the_network_is_the_recipes_formula_gradients_included():
    torch.manual_seed(0)
    model, x = airbench94().double(), images(8).double()
    for name, tensor in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(tensor)
    state = {
        n: t.detach().clone().requires_grad_(t.is_floating_point())
        for n, t in model.state_dict().items()
        if t.is_floating_point()
    }
    ours, theirs = model(x), by_formula(state, x)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad)


def test_what_is_trained_and_what_is_not_are_the_recipes():
    model = airbench94()
    trained = {name for name, _ in model.named_parameters()}
    filters = {f"layers.{i}.conv{j}.weight" for i in (1, 2, 3) for j in (1, 2)}
    shifts = {f"layers.{i}.norm{j}.bias" for i in (1, 2, 3) for j in (1, 2)}
    assert trained == {"whiten.bias", "head.weight", *filters, *shifts}
    sizes = 24, 24 * 64 * 9, 64 * 64 * 9, 64 * 256 * 9, 3 * 256 * 256 * 9, 2 * 64 + 4 * 256, 2560
    assert sum(p.numel() for p in model.parameters()) == sum(sizes) == 1_971_352
    norm = model.layers[2].norm1
    assert (norm.eps, norm.momentum) == (1e-12, 0.4) and torch.equal(norm.weight, torch.ones(256))


def test_convolutions_start_as_identities_and_the_head_with_unit_deviation():
    torch.manual_seed(0)
    model = airbench94()
    x = torch.randn(2, 64, 7, 7)
    torch.testing.assert_close(model.layers[2].conv1(x)[:, :64], x)
    assert model.layers[2].conv1(x)[:, 64:].abs().min() > 0
    assert model.head.weight.std().item() == pytest.approx(1)


def test_whitened_patches_are_uncorrelated_and_of_unit_variance():
    x, layer = images(256).double(), Whitening(3, eps=0.0).double()
    layer.reset_parameters()
    torch.nn.init.zeros_(layer.bias)
    layer.weight.copy_(torch.zeros(()))
    layer.fit(x.float())
    values = layer(x).transpose(0, 1).flatten(1)  # (24, patches)
    moments = values[:12] @ values[:12].T / values.size(1)
    torch.testing.assert_close(moments, torch.eye(12).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(values[12:], -values[:12])


@pytest.mark.parametrize("kind", [Classification, MultiLabelClassification])
def test_a_task_shows_the_model_training_images_before_it_begins(kind):
    x = images(40)
    is_multi = kind is MultiLabelClassification
    targets = torch.ones(40, 10) if is_multi else torch.arange(40) % 10
    loader = TensorLoader((x, targets), batch_size=16)
    model, other = airbench94(), airbench94()
    kind(model, num_classes=10).prepare(loader.batches(0))
    other.whiten.fit(x)
    torch.testing.assert_close(model.whiten.weight, other.whiten.weight)


def test_no_more_images_are_taken_than_are_needed():
    taken = []

    def batches():
        while True:
            taken.append(2000)
            yield images(20).repeat(100, 1, 1, 1)

    airbench94().init_from_data(batches())
    assert sum(taken) == 6000 > WHITENED


def test_filters_that_were_loaded_are_kept():
    first, second = airbench94(), airbench94()
    first.init_from_data([images(32)])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.init_from_data([images(32, seed=1)])
    assert torch.equal(first.whiten.weight, second.whiten.weight)
    third = airbench94()
    third.init_from_data([images(32, seed=1)])
    assert not torch.equal(first.whiten.weight, third.whiten.weight)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        Airbench(0)
    with pytest.raises(ValueError, match="x must be at least 9x9 pixels"):
        airbench94()(torch.zeros(2, 3, 8, 8))
