import math

import pytest
import torch
from torch import nn

from tests.training.tiny import Rows, Samples, mlp, trainer_of
from zoo.training.optimizers import make_optimizer
from zoo.training.update import SMALLEST_SCALE, NonFiniteError, Updater

CPU = torch.device("cpu")


class Recorder(torch.optim.SGD):
    """Notes the gradients that reach the step."""

    def __init__(self, params, lr=1.0):
        super().__init__(params, lr=lr)
        self.seen = []

    def step(self, closure=None):
        self.seen.append([p.grad.clone() for g in self.param_groups for p in g["params"]])
        super().step()


def updater_of(model, optimizer, **options):
    return Updater(model, {"model": optimizer}, device=CPU, **options)


def line(*values):
    """A network of one weight a value, whose gradient is what its input is."""
    model = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([values]))
    return model


def step(updater, model, gradient, count=None, measure=False):
    loss = model(torch.tensor([gradient])).sum()
    updater.backward(loss, "model")
    return updater.update("model", loss.detach(), count, measure=measure)


def test_loss_and_gradients_are_divided_by_the_count():
    model = line(2.0, 1.0)
    optimizer = Recorder(model.parameters())
    updater = updater_of(model, optimizer)
    loss = model(torch.tensor([[4.0, 8.0]])).sum()
    updater.backward(loss, "model")
    mean = loss.detach()
    updater.update("model", mean, torch.tensor(4))
    assert torch.equal(optimizer.seen[0][0], torch.tensor([[1.0, 2.0]]))
    assert mean.item() == 16.0 / 4


def test_gradients_are_divided_before_they_are_clipped():
    model = line(1.0, 1.0)
    optimizer = Recorder(model.parameters())
    step(updater_of(model, optimizer, clip_norm=1.0), model, [30.0, 40.0], count=10)
    assert optimizer.seen[0][0].norm().item() == pytest.approx(1.0, rel=1e-5)  # else it were 0.1


def test_gradients_are_checked_before_they_are_clipped():
    model = line(1.0, 1.0)
    updater = updater_of(model, Recorder(model.parameters()), clip_value=1.0)
    with pytest.raises(NonFiniteError):  # clipped, an infinity is 1
        step(updater, model, [math.inf, 1.0])


@pytest.mark.parity
def test_clipping_by_norm_equals_clip_grad_norm_of_torch():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 5)
    optimizer = Recorder(ours.parameters())
    updater = updater_of(ours, optimizer, clip_norm=0.3)
    updater.backward(ours(x).square().mean(), "model")
    updater.update("model", torch.zeros(()))
    theirs(x).square().mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.3)
    assert torch.equal(updater.norms["model"], norm)
    for mine, parameter in zip(optimizer.seen[0], theirs.parameters(), strict=True):
        assert torch.equal(mine, parameter.grad)


def test_a_norm_that_is_too_large_for_its_type_is_not_taken_for_a_gradient_that_is_not_finite():
    model = line(1.0, 1.0)
    optimizer = Recorder(model.parameters())
    step(updater_of(model, optimizer, clip_norm=1.0), model, [3e38, -3e38])
    assert torch.equal(optimizer.seen[0][0], torch.zeros(1, 2))  # as torch clips it


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_found_beside_a_finite_norm(bad):
    model = line(1.0, 1.0)
    updater = updater_of(model, Recorder(model.parameters()), clip_norm=1.0)
    updater.backward(model(torch.ones(1, 2)).sum(), "model")
    with pytest.raises(NonFiniteError, match="the loss"):
        updater.update("model", torch.tensor(bad))


@pytest.mark.parity
def test_clipping_by_value_equals_clip_grad_value_of_torch():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 5)
    optimizer = Recorder(ours.parameters())
    updater = updater_of(ours, optimizer, clip_value=0.05)
    updater.backward(ours(x).square().mean(), "model")
    updater.update("model", torch.zeros(()))
    theirs(x).square().mean().backward()
    torch.nn.utils.clip_grad_value_(theirs.parameters(), 0.05)
    for mine, parameter in zip(optimizer.seen[0], theirs.parameters(), strict=True):
        assert torch.equal(mine, parameter.grad)


def test_the_norm_is_measured_before_clipping_and_only_when_asked_or_needed():
    model = line(1.0, 1.0)
    updater = updater_of(model, Recorder(model.parameters()), clip_norm=0.1)
    step(updater, model, [3.0, 4.0])
    assert updater.norms["model"].item() == 5.0
    model = line(1.0, 1.0)
    updater = updater_of(model, Recorder(model.parameters()))
    step(updater, model, [3.0, 4.0])
    assert updater.norms == {}
    step(updater, model, [3.0, 4.0], measure=True)
    assert updater.norms["model"].item() == 5.0


def test_gradients_are_gone_after_the_update():
    model = line(1.0)
    step(updater_of(model, Recorder(model.parameters())), model, [1.0])
    assert model.weight.grad is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.NAdam])
def test_a_non_finite_gradient_reaches_neither_weights_nor_optimizer_state(bad, kind):
    model = line(1.0, 2.0)
    optimizer = make_optimizer(kind, model, lr=0.1)
    updater = updater_of(model, optimizer, clip_norm=1.0)
    step(updater, model, [1.0, 1.0])
    before = model.weight.clone()
    state = {k: v.clone() for k, v in optimizer.state[model.weight].items() if v is not None}
    with pytest.raises(NonFiniteError, match="the loss"):
        step(updater, model, [bad, 1.0])
    assert torch.equal(model.weight, before)
    assert all(torch.equal(optimizer.state[model.weight][k], v) for k, v in state.items())


def test_a_finite_loss_with_a_non_finite_gradient_is_said_to_be_the_gradient():
    model = line(0.0)
    updater = updater_of(model, Recorder(model.parameters()))
    updater.backward(model(torch.ones(1, 1)).sqrt().sum(), "model")  # an infinite slope at 0
    with pytest.raises(NonFiniteError, match="a gradient"):
        updater.update("model", torch.zeros(()))


def test_a_loss_without_a_gradient_says_what_may_be_wrong():
    model = line(1.0)
    updater = updater_of(model, Recorder(model.parameters()))
    with pytest.raises(RuntimeError, match=r"'model' has no gradient.*no_grad"):
        updater.backward(model(torch.ones(1, 1)).detach().sum(), "model")


def test_layer_norms_bear_the_names_of_the_parameters_and_are_of_the_mean_gradient():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    updater = updater_of(model, Recorder(model.parameters()), layer_gradients=True)
    for measure in (False, True):
        updater.backward(model(torch.ones(1, 2)).sum(), "model")
        expected = {n: p.grad.norm().item() / 4 for n, p in model.named_parameters()}
        updater.update("model", torch.zeros(()), 4, measure=measure)
        found = {n: v.item() for n, v in updater.layers.items()}
        assert found == (pytest.approx(expected) if measure else {})


# ----------------------------------------------------- the flag that stays on the device


def masking(model, kind, **arguments):
    """An updater that treats this CPU like a GPU: its flag is read by `check` alone."""
    optimizer = make_optimizer(kind, model, lr=0.1, **arguments)
    updater = updater_of(model, optimizer, clip_norm=1.0)
    updater._checked_at_once, updater._is_checked_later = set(), True
    optimizer.found_inf = updater._flag
    return updater, optimizer


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.Adam, {}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.Adagrad, {}),
    ],
)
def test_the_flag_masks_every_later_update_and_counts_them(kind, arguments):
    model = line(1.0, 2.0)
    updater, optimizer = masking(model, kind, **arguments)
    for _ in range(2):
        step(updater, model, [1.0, 1.0])
        updater.end_step()
    assert updater.check() is None
    before = model.weight.clone()
    state = {k: v.clone() for k, v in optimizer.state[model.weight].items()}
    for masked, gradient in enumerate([[math.nan, 1.0], [1.0, 1.0], [1.0, 1.0]], start=1):
        step(updater, model, gradient)
        updater.end_step()
        assert updater.check() == masked
    assert torch.equal(model.weight, before)
    assert all(torch.equal(optimizer.state[model.weight][k], v) for k, v in state.items())


def test_on_a_cpu_the_flag_is_looked_at_in_every_update():
    model = line(1.0)
    assert updater_of(model, make_optimizer(torch.optim.AdamW, model))._checked_at_once == {"model"}


# ------------------------------------------------------------------------------------ fp16


def half(model, optimizer, scale=2.0**10, **options):
    updater = updater_of(model, optimizer, dtype=torch.float16, **options)
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    return updater


def test_fp16_gradients_are_unscaled_then_divided_then_clipped():
    model = line(1.0, 1.0)
    optimizer = Recorder(model.parameters())
    updater = half(model, optimizer, clip_norm=1.0)
    assert step(updater, model, [30.0, 40.0], count=10, measure=True)
    assert updater.norms["model"].item() == pytest.approx(5.0, rel=1e-3)
    assert optimizer.seen[0][0].norm().item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_logged_norms_are_those_of_a_plain_loop(accumulate, dtype):
    model, plain, rows = mlp(), mlp(), Rows()
    data = Samples(sizes=(16, 10, 7), shuffle=False).setup()
    trainer = trainer_of(
        model, data, accumulate=accumulate, steps=1, epochs=None, layer_gradients=True
    )
    if dtype is not None:
        trainer.updater.scaler = torch.amp.GradScaler("cpu")  # without autocast: exact
    trainer.fit(callbacks=[rows])
    inputs, targets = data.loaders["train"]._tensors
    size = 4 * accumulate
    nn.functional.cross_entropy(plain(inputs[:size]), targets[:size]).backward()
    (row,) = rows.of("train")
    for name, parameter in plain.named_parameters():
        assert row[f"grad_norm/{name}"] == pytest.approx(parameter.grad.norm().item(), rel=1e-4)
    whole = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters()])
    assert row["grad_norm"] == pytest.approx(whole.item(), rel=1e-4)


def test_fp16_overflow_takes_no_step_and_halves_the_scale():
    model = line(1.0)
    optimizer = Recorder(model.parameters())
    updater = half(model, optimizer)
    assert not step(updater, model, [math.inf])
    assert optimizer.seen == []
    assert updater.scaler.get_scale() == 2.0**9
    assert model.weight.grad is None
    assert step(updater, model, [1.0])
    assert step(updater, model, [1.0])  # the scale grows here, which is no skipped step
    assert updater.scaler.get_scale() == 2.0**10
    assert len(optimizer.seen) == 2


def test_fp16_that_never_becomes_finite_stops_the_run():
    model = line(1.0)
    updater = half(model, Recorder(model.parameters()), scale=SMALLEST_SCALE * 2)
    assert not step(updater, model, [math.nan])
    with pytest.raises(NonFiniteError):
        step(updater, model, [math.nan])
    assert model.weight.item() == 1.0


def test_fp16_scales_two_networks_one_after_the_other():
    both = nn.ModuleDict({"a": line(1.0), "b": line(1.0)})
    optimizers = {name: Recorder(both[name].parameters()) for name in ("a", "b")}
    updater = Updater(both, optimizers, device=CPU, dtype=torch.float16)
    for name, value in (("a", 3.0), ("b", 5.0)):
        loss = both[name](torch.tensor([[value]])).sum()
        updater.backward(loss, name)
        assert updater.update(name, loss.detach())
        assert optimizers[name].seen[0][0].item() == value
