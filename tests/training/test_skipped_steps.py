"""An update that is skipped, whatever its place in a run, is as if it had never been asked for."""

import inspect
import warnings

import pytest
import torch
from torch import nn

from tests.training.tiny import Samples, mlp, trainer_of, weights
from zoo.training.optimizers import MuonWithAdamW, make_optimizer, takes_found_inf
from zoo.training.update import Updater

STEPS = 5
CLASSES = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
} | {"MuonWithAdamW": MuonWithAdamW}
REFUSED = ("Optimizer", "SparseAdam")  # `make_optimizer` says what to use.
SEARCHING = ("LBFGS",)  # takes no update but searches
PENALTIES = {"l1": 0.1, "towards_start": 0.5, "max_norm": 0.5}
OPTIONS = {
    **{name: [{}] for name in sorted(set(CLASSES) - {*REFUSED, *SEARCHING})},
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "maximize": True},
        {"momentum": 0.9, **PENALTIES},
    ],
    "Adam": [{}, {"amsgrad": True}],
    "AdamW": [{}, {"amsgrad": True}, PENALTIES],
}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Memory that nobody has written to is NaN, and not by chance zero."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


def network():
    torch.manual_seed(6)
    hidden = [nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)]
    return nn.Sequential(*hidden)


def gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator) for p in model.parameters()]


def reference(kind, options, skipped):
    """The optimizer of torch in its plain form, which is never asked for a skipped step."""
    model = network()
    plain = {} if "fused" not in inspect.signature(kind).parameters else {"fused": False}
    optimizer = make_optimizer(kind, model, lr=0.05, **options, **plain)
    for step in range(STEPS):
        if step in skipped:
            continue
        for parameter, gradient in zip(model.parameters(), gradients(model, step), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return weights(model)


@pytest.mark.parametrize("skipped", [{0}, {2}, {STEPS - 1}, {0, 1}], ids=str)
@pytest.mark.parametrize("way", ["scaler", "flag"])
@pytest.mark.parametrize(
    ("name", "options"), [(name, o) for name, many in OPTIONS.items() for o in many], ids=str
)
def test_a_skipped_step_leaves_no_trace(name, options, way, skipped, monkeypatch):
    kind, model = CLASSES[name], network()
    optimizer = make_optimizer(kind, model, lr=0.05, **options)
    dtype = torch.float16 if way == "scaler" else None
    updater = Updater(model, {"model": optimizer}, device=torch.device("cpu"), dtype=dtype)
    if way == "flag" and takes_found_inf(optimizer):  # as on a GPU, which is not waited for
        updater._checked_at_once = set()
        monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    for step in range(STEPS):
        scale = updater.scaler.scale(torch.ones(())) if updater.scaler else 1.0
        for parameter, gradient in zip(model.parameters(), gradients(model, step), strict=True):
            parameter.grad = gradient * scale
        is_empty = way == "flag" and step in skipped
        if way == "scaler" and step in skipped:
            next(model.parameters()).grad[0, 0] = torch.inf
        taken = updater.update("model", torch.zeros(()), is_empty=torch.tensor(is_empty))
        assert taken == (way == "flag" or step not in skipped)
    assert torch.allclose(weights(model), reference(kind, options, skipped), rtol=1e-4, atol=1e-6)


def test_every_optimizer_is_here_and_those_that_the_zoo_refuses_are_refused():
    assert {"SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "NAdam", "Muon"} <= set(OPTIONS)
    for name in set(REFUSED) - {"Optimizer"}:
        with pytest.raises(ValueError, match="use optimizer=adam"):
            make_optimizer(CLASSES[name], network(), lr=0.05)


def test_an_optimizer_made_by_hand_is_prepared_and_so_is_one_whose_state_is_loaded():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    fresh = optimizer.state_dict()  # as versions before saved it, before a first step
    Updater(model, {"model": optimizer}, device=torch.device("cpu"))
    optimizer.load_state_dict(fresh)
    for parameter in model.parameters():
        assert not optimizer.state[parameter]["momentum_buffer"].any()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_sgd_learns_in_fp16(momentum):
    model = mlp()
    options = {"momentum": momentum}
    data = Samples().setup()
    trainer = trainer_of(
        model, data, kind=torch.optim.SGD, optimizer=options, precision="fp16", epochs=3
    )
    trainer.updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)  # overflows at first
    before = weights(model)
    trainer.fit()
    assert trainer.position.updates < trainer.step
    assert 1e-3 < (weights(model) - before).abs().max() < 1
