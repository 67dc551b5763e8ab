import copy
import inspect

import pytest
import torch
from torch import nn

from tests.training.side_by_side import assert_same_steps
from zoo.app.build import build_optimizers
from zoo.config.compose import check, compose
from zoo.config.errors import ConfigError
from zoo.models.vision.convnext import convnext_tiny
from zoo.models.vision.vision_transformer import vit_cifar
from zoo.tasks.classification import Classification
from zoo.training.optimizers import (
    MuonWithAdamW,
    load_optimizer,
    make_optimizer,
    takes_closure,
    takes_found_inf,
)
from zoo.training.update import Updater

CLASSES = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
)
REFUSED = {"SparseAdam": "adam", "Muon": "optimizer=muon"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.conv = nn.Conv1d(4, 4, 1)
        self.norm = nn.LayerNorm(4)
        self.hidden = nn.Linear(4, 6)
        self.deeper = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        x = self.conv(self.embedding(tokens).mT).mT.mean(1)
        return self.head(torch.tanh(self.deeper(torch.relu(self.hidden(self.norm(x))))))


def net():
    torch.manual_seed(0)
    return Net()


def train(network, optimizer, steps=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        tokens = torch.randint(5, (8, 2), generator=generator)

        def closure(tokens=tokens):
            loss = nn.functional.cross_entropy(network(tokens), tokens.sum(1) % 3)
            network.zero_grad()
            loss.backward()
            return loss

        if takes_closure(optimizer):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def names_of(group, network):
    names = {id(p): name for name, p in network.named_parameters()}
    return {names[id(p)] for p in group["params"]}


def by_config(network, **node):
    task = Classification(network, num_classes=3)
    recipe = check(compose([]).config | {"optimizer": node})
    return build_optimizers(recipe, task)["model"]


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("name", CLASSES)
def test_every_optimizer_of_torch_works_by_config_or_says_what_to_use(name):
    network = net()
    node = {"_target_": f"torch.optim.{name}"}
    if name in REFUSED:
        with pytest.raises(ConfigError, match=f"^optimizer: {name} .*use .*{REFUSED[name]}"):
            by_config(network, **node)
        return
    before = weights(network)
    train(network, by_config(network, **node, lr=0.01))
    assert weights(network).isfinite().all()
    assert not torch.equal(weights(network), before)


@pytest.mark.parametrize("name", [n for n in CLASSES if n not in REFUSED])
def test_the_fused_form_is_chosen_where_the_class_has_one(name):
    kind = getattr(torch.optim, name)
    optimizer = make_optimizer(kind, net(), lr=0.01)
    has_fused = "fused" in inspect.signature(kind).parameters
    assert bool(optimizer.param_groups[0].get("fused")) == has_fused
    if name != "Adagrad":  # whose fused form takes no flag in torch 2.11
        assert takes_found_inf(optimizer) == has_fused


def test_an_optimizer_that_takes_a_flag_leaves_everything_alone_while_it_is_set():
    for name in (n for n in CLASSES if n not in REFUSED):
        network = net()
        optimizer = make_optimizer(getattr(torch.optim, name), network, lr=0.01)
        if takes_found_inf(optimizer):
            before = weights(network)
            for flag in (1, 0):
                optimizer.found_inf = torch.tensor(float(flag))
                train(network, optimizer)
                assert torch.equal(weights(network), before) == bool(flag), name


def test_the_fused_form_of_adagrad_that_is_for_cpus_alone_is_not_chosen_elsewhere(monkeypatch):
    monkeypatch.setattr("zoo.training.optimizers.takes_found_inf", lambda optimizer: False)
    for device, is_fused in (("cpu", True), ("meta", None)):
        optimizer = make_optimizer(torch.optim.Adagrad, net().to(device))
        assert optimizer.param_groups[0]["fused"] is is_fused


def test_the_fused_form_is_not_forced_on_who_chose_another():
    for arguments in ({"fused": False}, {"foreach": True}, {"differentiable": True}):
        optimizer = make_optimizer(torch.optim.Adam, net(), **arguments)
        assert not optimizer.param_groups[0]["fused"]


def test_where_the_fused_form_does_not_work_the_class_s_own_default_is_taken():
    class Fussy(torch.optim.Adam):
        def __init__(self, params, lr=1e-3, fused=None):
            super().__init__(params, lr=lr, fused=fused)
            if fused:
                raise RuntimeError("no fused form for this type")

    network = net()
    optimizer = make_optimizer(Fussy, network)
    assert [group["fused"] for group in optimizer.param_groups] == [None]
    train(network, optimizer)


def test_norms_and_biases_take_no_weight_decay():
    network = net()
    groups = make_optimizer(torch.optim.AdamW, network, weight_decay=0.1).param_groups
    decayed = {n for g in groups if g["weight_decay"] == 0.1 for n in names_of(g, network)}
    spared = {n for g in groups if g["weight_decay"] == 0.0 for n in names_of(g, network)}
    assert decayed == {f"{n}.weight" for n in ("embedding", "conv", "hidden", "deeper", "head")}
    assert spared == {n for n, _ in network.named_parameters()} - decayed


def test_a_class_that_decays_by_default_spares_norms_and_biases_too():
    groups = make_optimizer(torch.optim.AdamW, net()).param_groups
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.01]


class Scaled(nn.Module):
    """A part with a parameter of several dimensions that is no weight, as it says itself."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 4, 1))
        self.inner = nn.Linear(4, 4)

    def no_weight_decay(self):
        return {"gain", "inner.weight", "a_part_that_this_variant_lacks"}


def test_what_a_network_or_a_part_of_it_names_takes_no_weight_decay():
    network = nn.Sequential(nn.Linear(4, 4), Scaled())
    groups = make_optimizer(torch.optim.AdamW, network, weight_decay=0.1).param_groups
    decayed = {n for g in groups if g["weight_decay"] == 0.1 for n in names_of(g, network)}
    assert decayed == {"0.weight"}
    (group,) = make_optimizer(
        torch.optim.AdamW, network, weight_decay=0.1, decay_norms_and_biases=True
    ).param_groups
    assert names_of(group, network) == {name for name, _ in network.named_parameters()}


def test_vision_transformers_and_convnexts_spare_what_their_authors_do():
    with torch.device("meta"):
        networks = vit_cifar(), convnext_tiny()
    spared = []
    for network in networks:
        groups = make_optimizer(torch.optim.AdamW, network, weight_decay=0.1).param_groups
        names = {n for g in groups if g["weight_decay"] == 0.0 for n in names_of(g, network)}
        shapes = {n: p.ndim for n, p in network.named_parameters()}
        spared.append({n.rpartition(".")[2] for n in names if shapes[n] > 1})
    assert spared == [{"class_token", "pos_embedding"}, {"layer_scale"}]


def test_weight_decay_reaches_norms_and_biases_on_request():
    network = net()
    optimizer = make_optimizer(
        torch.optim.SGD, network, lr=0.1, weight_decay=0.1, decay_norms_and_biases=True
    )
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.1
    assert len(group["params"]) == len(list(network.parameters()))


def test_without_weight_decay_there_is_one_group_in_the_order_of_the_network():
    network = net()
    (group,) = make_optimizer(torch.optim.SGD, network, lr=0.1).param_groups
    assert all(a is b for a, b in zip(group["params"], network.parameters(), strict=True))


def test_groups_give_some_parameters_other_values():
    network = net()
    optimizer = make_optimizer(
        torch.optim.AdamW,
        network,
        lr=0.1,
        weight_decay=0.2,
        groups={"h*": {"lr": 0.01}, "head.*": {"weight_decay": 0.5, "betas": [0.5, 0.9]}},
    )
    found = {
        name: (group["lr"], group["weight_decay"], tuple(group["betas"]))
        for group in optimizer.param_groups
        for name in names_of(group, network)
    }
    usual = (0.9, 0.999)
    assert found["hidden.weight"] == (0.01, 0.2, usual)
    assert found["hidden.bias"] == (0.01, 0.0, usual)
    assert found["head.weight"] == found["head.bias"] == (0.01, 0.5, (0.5, 0.9))
    assert found["conv.weight"] == (0.1, 0.2, usual)
    train(network, optimizer)


def test_groups_keep_their_own_rates_under_a_schedule():
    network = net()
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.1, groups={"head.*": {"lr": 0.01}})
    updater = Updater(network, {"model": optimizer}, device=torch.device("cpu"))
    for _ in range(2):
        updater.set_rates({"model": 0.5})
    assert sorted(g["lr"] for g in optimizer.param_groups) == [0.005, 0.05]


def test_a_pattern_that_matches_nothing_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"no parameter matches 'tail\.\*'; there are .*head"):
        make_optimizer(torch.optim.SGD, net(), lr=0.1, groups={"tail.*": {"lr": 1.0}})


def test_a_value_that_the_class_does_not_have_is_refused_in_groups():
    with pytest.raises(ValueError, match=r"'wight_decay'; groups of AdamW have .*weight_decay"):
        make_optimizer(torch.optim.AdamW, net(), groups={"head.*": {"wight_decay": 0.0}})


def test_frozen_parameters_are_left_out_and_a_wholly_frozen_network_is_refused():
    network = net()
    network.embedding.requires_grad_(False)
    optimizer = make_optimizer(torch.optim.SGD, network, lr=0.1)
    assert "embedding.weight" not in names_of(optimizer.param_groups[0], network)
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_optimizer(torch.optim.SGD, network.requires_grad_(False), lr=0.1)


def test_tied_weights_are_updated_once():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    (group,) = make_optimizer(torch.optim.SGD, network, lr=0.1).param_groups
    assert len(group["params"]) == 3


# ------------------------------------------------------------------------------------ Muon


def muon_parts(optimizer, network):
    muon, adamw = optimizer.parts
    found = {}
    for part, name in ((muon, "muon"), (adamw, "adamw")):
        for group in part.param_groups:
            found |= dict.fromkeys(names_of(group, network), name)
    return found


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    network = net()
    found = muon_parts(make_optimizer(MuonWithAdamW, network), network)
    assert {n for n, part in found.items() if part == "muon"} == {"hidden.weight", "deeper.weight"}
    assert set(found) == {name for name, _ in network.named_parameters()}


def test_muon_with_adamw_equals_the_two_optimizers_side_by_side():
    ours, theirs = net(), net()
    optimizer = make_optimizer(
        MuonWithAdamW,
        ours,
        lr=0.03,
        momentum=0.9,
        weight_decay=0.1,
        adamw_lr=0.002,
        adamw_betas=(0.8, 0.99),
    )
    hidden = [theirs.hidden.weight, theirs.deeper.weight]
    decayed = [theirs.embedding.weight, theirs.conv.weight, theirs.head.weight]
    chosen = {id(p) for p in (*hidden, *decayed)}
    spared = [p for p in theirs.parameters() if id(p) not in chosen]
    pair = [
        torch.optim.Muon(hidden, lr=0.03, momentum=0.9, weight_decay=0.1),
        torch.optim.AdamW(
            [{"params": decayed}, {"params": spared, "weight_decay": 0.0}],
            lr=0.002,
            betas=(0.8, 0.99),
            weight_decay=0.1,
            fused=True,
        ),
    ]
    assert_same_steps(train, ours, optimizer, theirs, pair)


def test_muon_with_adamw_goes_on_from_its_state_as_if_never_stopped():
    whole = net()
    one = make_optimizer(MuonWithAdamW, whole, weight_decay=0.1)
    train(whole, one)
    second = net()
    second.load_state_dict(whole.state_dict())
    resumed = make_optimizer(MuonWithAdamW, second, weight_decay=0.1)
    load_optimizer(resumed, copy.deepcopy(one.state_dict()))
    train(whole, one)
    train(second, resumed)
    assert torch.equal(weights(whole), weights(second))


def test_a_schedule_reaches_both_parts_of_muon_before_and_after_loading_a_state():
    network = net()
    optimizer = make_optimizer(MuonWithAdamW, network, lr=0.02, adamw_lr=0.001)
    updater = Updater(network, {"model": optimizer}, device=torch.device("cpu"))
    train(network, optimizer, steps=1)
    for factor in (0.5, 0.25):
        updater.set_rates({"model": factor})
        muon, adamw = ({g["lr"] for g in part.param_groups} for part in optimizer.parts)
        assert muon == {0.02 * factor}
        assert adamw == {0.001 * factor}
        load_optimizer(optimizer, copy.deepcopy(optimizer.state_dict()))


def test_muon_takes_no_layer_that_the_network_calls_an_output():
    class TwoHeads(nn.Module):
        output_layers = ("first", "second")

        def __init__(self):
            super().__init__()
            self.first, self.hidden = nn.Linear(4, 2), nn.Linear(4, 4)
            self.second, self.last = nn.Linear(4, 3), nn.Linear(4, 4)

    network = nn.Sequential(TwoHeads())
    found = muon_parts(make_optimizer(MuonWithAdamW, network), network)
    assert {n for n, part in found.items() if part == "muon"} == {
        "0.hidden.weight",
        "0.last.weight",
    }


def test_muon_without_a_hidden_matrix_says_what_to_use():
    with pytest.raises(ValueError, match=r"needs a hidden matrix.*optimizer=adamw"):
        network = nn.Linear(3, 2)
        make_optimizer(MuonWithAdamW, network)


def test_muon_of_a_network_of_matrices_alone_has_no_second_part():
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 4, bias=False))
    assert len(make_optimizer(MuonWithAdamW, network).parts) == 2  # the last is the output layer
    matrices = [{"params": list(network.parameters()), "hidden": True}]
    assert len(MuonWithAdamW(matrices).parts) == 1


# ----------------------------------------------------------------------------------- state


@pytest.mark.parametrize("name", [n for n in CLASSES if n not in REFUSED])
def test_every_optimizer_goes_on_from_its_state_as_if_never_stopped(name):
    kind = getattr(torch.optim, name)
    whole = net()
    one = make_optimizer(kind, whole, lr=0.01)
    train(whole, one)
    second = net()
    second.load_state_dict(whole.state_dict())
    resumed = make_optimizer(kind, second, lr=0.01)
    load_optimizer(resumed, copy.deepcopy(one.state_dict()))
    train(whole, one)
    train(second, resumed)
    assert torch.equal(weights(whole), weights(second))


def test_loading_a_state_keeps_the_hyperparameters_of_the_configuration():
    network = net()
    old = make_optimizer(torch.optim.AdamW, network, lr=0.1, weight_decay=0.1)
    train(network, old)
    new = make_optimizer(torch.optim.AdamW, network, lr=0.5, weight_decay=0.3, betas=(0.5, 0.6))
    Updater(network, {"model": new}, device=torch.device("cpu"))  # notes the rates
    load_optimizer(new, copy.deepcopy(old.state_dict()))
    Updater(network, {"model": new}, device=torch.device("cpu")).set_rates({"model": 1.0})
    assert {g["lr"] for g in new.param_groups} == {0.5}
    assert {g["weight_decay"] for g in new.param_groups} == {0.3, 0.0}
    assert {g["betas"] for g in new.param_groups} == {(0.5, 0.6)}
    parameter = network.head.weight
    assert torch.equal(new.state[parameter]["exp_avg"], old.state[parameter]["exp_avg"])


def test_a_state_of_other_parameters_is_refused():
    network = net()
    state = make_optimizer(torch.optim.AdamW, network).state_dict()
    with pytest.raises(ValueError, match="group"):
        load_optimizer(make_optimizer(torch.optim.AdamW, nn.Linear(2, 2)), state)


def moved(optimizer, weight, gradients):
    """How far a weight has come after each of some gradients."""
    begin, found = weight.item(), []
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        found.append(weight.item() - begin)
    return found


def single(kind, value=0.0, **arguments):
    network = nn.Linear(1, 1).double()
    nn.init.constant_(network.weight, value)
    return make_optimizer(kind, network, **arguments), network.weight


@pytest.mark.parametrize("gradient", [1e-3, 1.0, 1e3])
def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient(gradient):
    (step,) = moved(*single(torch.optim.Adam, lr=0.1), [gradient])
    assert step == pytest.approx(-0.1, rel=1e-4)


def test_adam_has_its_epsilon_outside_of_the_root():
    (step,) = moved(*single(torch.optim.Adam, lr=1e-3, eps=1e-7), [1e-3])
    assert step == pytest.approx(-0.00099990, abs=5e-9)  # inside, it would be 0.00095346


def test_rmsprop_takes_a_long_step_from_a_large_gradient_after_small_ones():
    steps = moved(*single(torch.optim.RMSprop, lr=0.01), [1e-3] * 400 + [1e3])
    assert steps[-2] - steps[-1] == pytest.approx(10 * 0.01, rel=1e-3)


def test_momentum_of_nine_tenths_makes_steps_ten_times_as_long_in_the_end():
    steps = moved(*single(torch.optim.SGD, lr=0.01, momentum=0.9), [2.0] * 200)
    assert steps[-2] - steps[-1] == pytest.approx(10 * 0.01 * 2)


def test_a_running_mean_of_gradients_is_momentum_with_a_tenth_of_the_rate():
    gradients, mean, weight = [1, -2, 0.5, 3, -1], 0.0, 0.0
    for gradient in gradients:
        mean = 0.9 * mean + 0.1 * gradient
        weight -= mean
    assert moved(*single(torch.optim.SGD, lr=0.1, momentum=0.9), gradients)[-1] == pytest.approx(
        weight
    )
    assert weight == pytest.approx(-0.32721)


def test_weight_decay_alone_shrinks_weights_by_a_factor_and_leaves_biases():
    optimizer, weight = single(torch.optim.SGD, value=1.0, lr=0.1, weight_decay=0.5)
    assert moved(optimizer, weight, [0.0]) == pytest.approx([0.95 - 1])
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        network = nn.Linear(1, 1).double()
        nn.init.ones_(network.weight), nn.init.ones_(network.bias)
        optimizer = make_optimizer(kind, network, lr=0.1, weight_decay=0.1)
        for _ in range(10):
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        assert network.weight.item() == pytest.approx(0.904382, abs=5e-7)
        assert network.bias.item() == 1
