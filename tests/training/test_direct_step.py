import copy

import pytest
import torch
from torch import nn

from zoo.training.direct_step import DirectStep

CASES = [
    (torch.optim.AdamW, {}),
    (torch.optim.AdamW, {"weight_decay": 0.0, "amsgrad": True, "maximize": True}),
    (torch.optim.Adam, {"weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5, "maximize": True}),
    (torch.optim.SGD, {}),
]


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 7))
    return model.to(memory_format=torch.channels_last)


def optimizer_of(model, kind, **options):
    """Two groups, of different rates."""
    groups = [
        {"params": list(model[0].parameters()), "lr": 0.1},
        {"params": list(model[2].parameters()), "lr": 0.01},
    ]
    return kind(groups, fused=True, **options)


def gradients(model, seed, without=()):
    torch.manual_seed(seed)
    model.zero_grad()
    model(torch.randn(2, 3, 6, 6)).square().sum().backward()
    for name in without:
        model.get_parameter(name).grad = None


def pair(kind, **options):
    models = [network(), network()]
    ours, theirs = (optimizer_of(m, kind, **options) for m in models)
    return models, ours, theirs


def same(models, ours, theirs):
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


class Counting:
    """Counts the calls of torch's own step."""

    def __init__(self, monkeypatch, optimizer):
        self.calls = 0
        step = type(optimizer).step

        def counted(*arguments, **options):
            self.calls += 1
            return step(*arguments, **options)

        monkeypatch.setattr(type(optimizer), "step", counted)


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_weights_and_state_are_those_of_torch_bit_for_bit(kind, options, monkeypatch):
    models, ours, theirs = pair(kind, **options)
    step, torchs = DirectStep(ours), type(theirs).step
    counting = Counting(monkeypatch, ours)
    for number in range(5):
        for model in models:
            gradients(model, number)
        for optimizer in (ours, theirs):
            optimizer.param_groups[1]["lr"] = 0.01 / (number + 1)  # a schedule
        step()
        torchs(theirs)
        same(models, ours, theirs)
    assert counting.calls <= 1  # the first: there is no state before


@pytest.mark.parity
def test_a_state_that_is_loaded_between_two_steps_is_the_one_that_goes_on():
    models, ours, theirs = pair(torch.optim.AdamW)
    step, kept = DirectStep(ours), None
    for number in range(6):
        for model in models:
            gradients(model, number)
        step()
        theirs.step()
        if number == 2:
            kept = copy.deepcopy(theirs.state_dict())
        if number == 3:
            ours.load_state_dict(copy.deepcopy(kept))
            theirs.load_state_dict(copy.deepcopy(kept))
        same(models, ours, theirs)


@pytest.mark.parity
def test_parameters_without_a_gradient_are_left_out_as_torch_does():
    models, ours, theirs = pair(torch.optim.AdamW)
    step = DirectStep(ours)
    for number, without in enumerate([("2.bias",), (), ("0.weight", "2.bias"), ()]):
        for model in models:
            gradients(model, number, without)
        step()
        theirs.step()
        same(models, ours, theirs)


@pytest.mark.parametrize("what", ["hook", "patched step", "tensor rate", "subclass", "not fused"])
def test_whatever_is_not_plain_is_left_to_the_optimizer_itself(what):
    model = network()
    calls = []

    class Own(torch.optim.AdamW):
        def step(self, closure=None):
            calls.append("own")
            return super().step(closure)

    kind = Own if what == "subclass" else torch.optim.AdamW
    optimizer = kind(model.parameters(), lr=0.1, fused=what != "not fused")
    if what == "hook":
        optimizer.register_step_post_hook(lambda *_: calls.append("hook"))
    step = DirectStep(optimizer)
    gradients(model, 0)
    step()
    if what == "patched step":
        optimizer.step = lambda: calls.append("patched")
    if what == "tensor rate":
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    before = model[0].weight.detach().clone()
    gradients(model, 1)
    step()
    assert len(calls) == {"hook": 2, "subclass": 2, "patched step": 1}.get(what, 0)
    assert torch.equal(model[0].weight, before) == (what == "patched step")


def test_a_group_that_is_added_takes_part():
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1, fused=True)
    step = DirectStep(optimizer)
    gradients(model, 0)
    step()
    optimizer.add_param_group({"params": list(model[2].parameters())})
    before = model[2].weight.detach().clone()
    gradients(model, 1)
    step()
    assert not torch.equal(model[2].weight, before)
