import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.side_by_side import assert_same_steps
from zoo.training.muon import FilterMuon, MuonWithSGD, orthogonalized
from zoo.training.optimizers import load_optimizer, make_optimizer


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 2),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.Linear(6 * 9, 5),
        nn.Linear(5, 4),
    )


def train(network, optimizer, steps=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 3, 6, 6, generator=generator)
        loss = F.cross_entropy(network(x), torch.arange(16) % 4)
        network.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (7, 7)])
def test_singular_vectors_stay_and_the_values_come_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalized(matrix, steps=5).float() @ vh.T
    values = inside.diagonal()
    assert (inside - values.diag()).abs().max() < 0.06
    assert (values > 0.5).all() and (values < 1.3).all()


@pytest.mark.parity
def test_a_step_is_that_of_torchs_muon_on_filters_as_rows_of_a_matrix_of_fixed_norm():
    torch.manual_seed(2)
    ours, rows = nn.Parameter(torch.randn(4, 3, 2, 2)), nn.Parameter(torch.empty(4, 12))
    optimizer = FilterMuon([ours], lr=0.1, momentum=0.5, ns_steps=3)
    theirs = torch.optim.Muon([rows], lr=0.1, momentum=0.5, ns_steps=3, weight_decay=0.0)
    rows.data.copy_(ours.data.flatten(1))
    for _ in range(4):
        ours.grad = torch.randn_like(ours)
        rows.grad = ours.grad.flatten(1)
        rows.data *= 2 / rows.data.norm()
        optimizer.step()
        theirs.step()
        torch.testing.assert_close(ours.flatten(1), rows, atol=6e-3, rtol=0)


def test_filters_are_muons_and_all_else_is_sgds():
    ours, theirs = net(), net()
    groups = {"7.weight": {"lr": 0.7, "weight_decay": 0.01}}
    optimizer = make_optimizer(
        MuonWithSGD, ours, lr=0.1, sgd_lr=0.05, sgd_momentum=0.8, weight_decay=0.1, groups=groups
    )
    filters = [p for p in theirs.parameters() if p.ndim == 4]
    biases = [p for p in theirs.parameters() if p.ndim == 1]
    pair = (
        FilterMuon(filters, lr=0.1),
        torch.optim.SGD(
            [
                {"params": biases, "weight_decay": 0.0},
                {"params": [theirs[6].weight]},
                {"params": [theirs[7].weight], "lr": 0.7, "weight_decay": 0.01},
            ],
            lr=0.05,
            momentum=0.8,
            nesterov=True,
            weight_decay=0.1,
            fused=True,
        ),
    )
    assert_same_steps(train, ours, optimizer, theirs, pair)


def test_channels_last_filters_take_the_same_steps():
    plain, last = net(), net().to(memory_format=torch.channels_last)
    optimizers = [make_optimizer(MuonWithSGD, network) for network in (plain, last)]
    pairs = list(zip(plain.parameters(), last.parameters(), strict=True))
    for _ in range(2):
        for mine, other in pairs:  # The same gradients: bfloat16 enlarges what differs in them.
            mine.grad = torch.randn_like(mine)
            other.grad = torch.empty_like(other).copy_(mine.grad)
        for optimizer in optimizers:
            optimizer.step()
    assert last[3].weight.is_contiguous(memory_format=torch.channels_last)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other)


def test_muon_of_filters_goes_on_from_its_state_as_if_never_stopped():
    whole = net()
    one = make_optimizer(MuonWithSGD, whole, weight_decay=0.1)
    train(whole, one)
    second = net()
    second.load_state_dict(whole.state_dict())
    resumed = make_optimizer(MuonWithSGD, second, weight_decay=0.1)
    load_optimizer(resumed, copy.deepcopy(one.state_dict()))
    train(whole, one)
    train(second, resumed)
    for mine, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_wrong_values_and_networks_without_filters_are_refused():
    for arguments, message in (
        ({"lr": -1.0}, "lr must be at least 0, not -1"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), not 1"),
        ({"ns_steps": 0}, "ns_steps must be at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_optimizer(MuonWithSGD, net(), **arguments)
    with pytest.raises(ValueError, match="needs the filters of a convolution and this network"):
        make_optimizer(MuonWithSGD, nn.Linear(3, 2))
