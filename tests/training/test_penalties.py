import copy

import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso
from torch import nn

from tests.training.tiny import At, Rows, differences, new_folder, trainer_of, without_timings
from zoo.training.optimizers import MuonWithAdamW, load_optimizer, make_optimizer
from zoo.training.update import Updater


def line(features=10):
    network = nn.Linear(features, 1).double()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


def fit(network, optimizer, x, y, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (network(x).squeeze(1) - y).square().mean().backward()
        optimizer.step()


def train(network, optimizer, steps=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.LayerNorm(5))


@pytest.fixture(scope="module")
def diabetes():
    x, y = load_diabetes(return_X_y=True)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()


def test_an_orthonormal_design_has_the_soft_threshold_of_least_squares():
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(50, 10, dtype=torch.double)).Q * 50**0.5
    y = x @ torch.linspace(-1, 1, 10, dtype=torch.double)
    network = line()
    optimizer = make_optimizer(
        torch.optim.SGD, network, lr=0.3, momentum=0.5, l1=0.7, groups={"bias": {"lr": 0.0}}
    )
    fit(network, optimizer, x, y, 200)
    least = x.T @ y / 50
    expected = least.sign() * (least.abs() - 0.35).clamp(min=0)  # the squared error has no half
    torch.testing.assert_close(network.weight[0], expected, atol=1e-12, rtol=0)
    assert torch.equal(network.weight[0] == 0, least.abs() <= 0.35)


@pytest.mark.parametrize("arguments", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_coefficients_are_those_of_lasso(diabetes, arguments):
    x, y = diabetes
    network = line()
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.05, l1=0.1, **arguments)
    fit(network, optimizer, x, y, 3000)
    theirs = torch.from_numpy(Lasso(alpha=0.05, tol=1e-10).fit(x, y).coef_)
    torch.testing.assert_close(network.weight[0], theirs, atol=1e-6, rtol=0)
    assert 0 < network.weight.eq(0).sum() < 10
    assert torch.equal(network.weight[0] == 0, theirs == 0)


def test_with_weight_decay_they_are_those_of_the_elastic_net(diabetes):
    x, y = diabetes
    alpha, ratio = 0.1, 0.3
    network = line()
    penalties = {"l1": 2 * alpha * ratio, "weight_decay": 2 * alpha * (1 - ratio)}
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.05, momentum=0.9, **penalties)
    fit(network, optimizer, x, y, 3000)
    theirs = ElasticNet(alpha=alpha, l1_ratio=ratio, tol=1e-10).fit(x, y).coef_
    torch.testing.assert_close(network.weight[0], torch.from_numpy(theirs), atol=1e-6, rtol=0)


def test_the_curve_has_the_share_of_exact_zeros_where_they_are_aimed_at():
    def curve(**options):
        rows = Rows()
        trainer_of(kind=torch.optim.SGD, optimizer=options, epochs=1).fit(callbacks=[rows])
        return rows.of("train")

    assert all("zero_weights" not in row for row in curve())
    shares = [row["zero_weights"] for row in curve(l1=5.0)]
    assert shares[0] < shares[-1] and 0 < shares[-1] <= 1
    assert all(share * 72 == pytest.approx(round(share * 72)) for share in shares)  # no biases


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_without_it_no_coefficient_is_zero(diabetes, decay):
    network = line()
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.05, weight_decay=decay)
    fit(network, optimizer, *diabetes, 500)
    assert network.weight.count_nonzero() == 10


def test_towards_start_is_ridge_around_the_first_weights(diabetes):
    x, y = diabetes
    network = line()
    start = torch.linspace(-2, 2, 10, dtype=torch.double)
    with torch.no_grad():
        network.weight.copy_(start)
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.05, momentum=0.9, towards_start=0.4)
    fit(network, optimizer, x, y, 3000)
    n = len(x)  # x and y have mean zero, so that the bias has no part in it
    matrix = 2 * x.T @ x / n + 0.4 * torch.eye(10, dtype=torch.double)
    expected = torch.linalg.solve(matrix, 2 * x.T @ y / n + 0.4 * start)
    torch.testing.assert_close(network.weight[0], expected, atol=1e-8, rtol=0)


def test_both_minimise_the_loss_and_both_penalties():
    network = line(1)
    with torch.no_grad():
        network.weight.fill_(2)
    options = {"l1": 0.4, "towards_start": 0.5, "groups": {"bias": {"lr": 0.0}}}
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.1, **options)
    one = torch.ones(1, dtype=torch.double)
    fit(network, optimizer, one[:, None], one, 400)
    # 2 (w - 1) + 0.4 + 0.5 (w - 2) = 0
    assert network.weight.item() == pytest.approx(2.6 / 2.5, abs=1e-9)


def test_a_strong_pull_keeps_weights_where_they_began_and_biases_free():
    network = net()
    before = copy.deepcopy(network)
    train(network, make_optimizer(torch.optim.SGD, network, lr=0.1, towards_start=1e9))
    for ours, theirs in zip(network.parameters(), before.parameters(), strict=True):
        if ours.ndim == 2:
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
        else:
            assert not torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, MuonWithAdamW])
def test_penalties_of_zero_are_none_at_all(kind):
    networks = net(), net()
    none = {"l1": 0.0, "towards_start": 0.0, "max_norm": None}
    optimizers = [
        make_optimizer(kind, network, lr=0.1, **options)
        for network, options in zip(networks, ({}, none), strict=True)
    ]
    for network, optimizer in zip(networks, optimizers, strict=True):
        train(network, optimizer)
    for ours, theirs in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())


def test_rows_are_scaled_down_to_the_norm_and_no_others():
    network = nn.Conv2d(2, 3, 3)
    with torch.no_grad():
        network.weight.copy_(network.weight.new_tensor([0.1, 1, 10])[:, None, None, None])
        network.bias.fill_(100)
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.0, max_norm=3)
    network(torch.rand(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    weight = network.weight.detach().flatten(1)
    torch.testing.assert_close(weight.norm(dim=1), torch.tensor([0.1 * 18**0.5, 3, 3]))
    assert weight[0].eq(0.1).all()  # exactly
    assert network.bias.eq(100).all()


def test_the_norm_can_be_bounded_in_the_last_layer_alone():
    network = net()
    optimizer = make_optimizer(
        torch.optim.Adam, network, lr=0.5, groups={"2.weight": {"max_norm": 0.3}}
    )
    train(network, optimizer)
    assert network[2].weight.norm(dim=1).max() < 0.3 + 1e-6
    assert network[0].weight.norm(dim=1).min() > 0.3


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_that_is_masked_on_the_device_takes_no_penalty(kind):
    network = net()
    options = {"l1": 0.1, "towards_start": 0.5, "max_norm": 0.01}
    optimizer = make_optimizer(kind, network, lr=0.1, **options)
    before = copy.deepcopy(network.state_dict())
    optimizer.found_inf = torch.ones(())
    train(network, optimizer, steps=1)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    optimizer.found_inf = torch.zeros(())
    train(network, optimizer, steps=1)
    assert network[0].weight.norm(dim=1).max() < 0.0101


def test_an_overflow_of_fp16_takes_no_penalty():
    network = nn.Linear(4, 3)
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.1, l1=1.0)
    updater = Updater(
        network, {"model": optimizer}, device=torch.device("cpu"), dtype=torch.float16
    )
    before = network.weight.detach().clone()
    loss = network(torch.full((2, 4), 1e30)).sum() * 1e30
    updater.backward(loss, "model")
    assert not updater.update("model", loss.detach())
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, MuonWithAdamW])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_run_goes_on_from_its_state_towards_its_own_start(kind, steps):
    def make(network):
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return make_optimizer(kind, network, lr=0.1, l1=0.01, towards_start=0.5, **options)

    network = net()
    optimizer = make(network)
    train(network, optimizer, steps=steps)
    weights = copy.deepcopy(network.state_dict())
    state = copy.deepcopy(optimizer.state_dict())
    train(network, optimizer, steps=3, seed=2)
    other = net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)  # begins elsewhere
    again = make(other)
    other.load_state_dict(weights)
    load_optimizer(again, state)
    train(other, again, steps=3, seed=2)
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_killed_run_goes_on_towards_the_start_of_the_run(tmp_path):
    def make():
        options = {"l1": 0.01, "towards_start": 0.5, "max_norm": 0.5}
        return trainer_of(epochs=1, optimizer=options, checkpoints={"every_steps": 1})

    whole, first, second = make(), make(), make()
    whole.fit(folder=new_folder(tmp_path / "whole"))

    def kill(trainer):
        raise KeyboardInterrupt

    folder = new_folder(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        first.fit(folder=folder, callbacks=[At(4, kill)])
    with torch.no_grad():
        for parameter in second.task.model.parameters():
            parameter.zero_()
    second.fit(folder=folder, callbacks=[At(0, kill)], resume=True)
    states = [without_timings(trainer.state_dict()) for trainer in (whole, second)]
    assert not differences(*states)


def test_a_start_that_was_not_kept_is_refused_and_one_that_is_not_wanted_dropped():
    plain, pulled = (
        make_optimizer(torch.optim.AdamW, net(), towards_start=alpha) for alpha in (0.0, 0.1)
    )
    with pytest.raises(ValueError, match="towards_start needs the weights that the run began with"):
        load_optimizer(pulled, plain.state_dict())
    load_optimizer(plain, pulled.state_dict())
    assert not plain.state


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1": -1.0}, "l1 must be at least 0, not -1.0"),
        ({"towards_start": -0.1}, "towards_start must be at least 0, not -0.1"),
        ({"max_norm": 0.0}, "max_norm must be greater than 0, or null, not 0.0"),
        ({"groups": {"2.*": {"l1": -2.0}}}, "l1 must be at least 0, not -2.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(torch.optim.SGD, net(), **options)


@pytest.mark.parametrize("kind", [torch.optim.Rprop, torch.optim.ASGD, torch.optim.Adafactor])
def test_steps_of_unknown_length_take_no_penalty_but_a_bound(kind):
    with pytest.raises(ValueError, match=f"those of {kind.__name__} are not; use optimizer=sgd"):
        make_optimizer(kind, net(), l1=0.1)
    make_optimizer(kind, net(), max_norm=3.0)
