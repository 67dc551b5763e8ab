import copy
import math
from typing import get_args

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.models.recurrent.gru import GRUCell, PaperGRUCell
from zoo.models.recurrent.kinds import Kind, make_rnn
from zoo.models.recurrent.layer_norm_lstm import LayerNormLSTMCell
from zoo.models.recurrent.lstm import LSTM, LSTMCell
from zoo.models.recurrent.minimal_gru import MinimalGRUCell
from zoo.models.recurrent.peephole_lstm import PeepholeLSTMCell
from zoo.models.recurrent.rnn import RNN, RNNCell

kinds = pytest.mark.parametrize("kind", get_args(Kind))
backends = pytest.mark.parametrize("backend", ["fused", "written"])

CELLS = {
    "rnn": RNNCell,
    "rnn_relu": lambda *sizes: RNNCell(*sizes, nonlinearity="relu"),
    "lstm": LSTMCell,
    "gru": GRUCell,
    "gru_paper": PaperGRUCell,
    "minimal_gru": MinimalGRUCell,
    "peephole_lstm": PeepholeLSTMCell,
    "layer_norm_lstm": LayerNormLSTMCell,
}


def parts(state):
    return list(state) if isinstance(state, tuple) else [state]


def select(state, *index):
    chosen = [s[index] for s in parts(state)]
    return tuple(chosen) if len(chosen) == 2 else chosen[0]


def random_state(kind, *shape):
    states = [torch.randn(shape, dtype=torch.double) for _ in range(1 + ("lstm" in kind))]
    return tuple(states) if len(states) == 2 else states[0]


def layer_of(kind, **options):
    torch.manual_seed(0)
    return make_rnn(kind, 3, 4, **options).double()


@kinds
def test_layer_takes_the_cells_steps(kind):
    layer, cell = layer_of(kind), CELLS[kind](3, 4).double()
    weights = {name.replace("_l0", ""): p for name, p in layer.state_dict().items()}
    cell.load_state_dict(weights, strict=True)
    x, state = torch.randn(2, 5, 3, dtype=torch.double), random_state(kind, 1, 2, 4)
    outputs, end = layer(x, state)
    state = select(state, 0)
    for t in range(5):
        state = cell(x[:, t], state)
        torch.testing.assert_close(outputs[:, t], parts(state)[0])
    torch.testing.assert_close(select(end, 0), state)
    torch.testing.assert_close(cell(x[:, 0]), select(layer(x[:, :1])[1], 0))


@kinds
@backends
def test_two_halves_with_carried_state_equal_one_pass(kind, backend):
    layer = layer_of(kind, num_layers=2, backend=backend)
    x = torch.randn(3, 8, 3, dtype=torch.double)
    whole, end = layer(x)
    first, state = layer(x[:, :5])
    second, again = layer(x[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(again, end)
    assert all(s.shape == (2, 3, 4) for s in parts(end))


@kinds
@backends
def test_bidirectional_is_a_run_forward_and_one_over_the_reversed_sequence(kind, backend):
    both = layer_of(kind, bidirectional=True, backend=backend)
    forward, backward = (make_rnn(kind, 3, 4, backend=backend).double() for _ in range(2))
    weights = both.state_dict()
    ends = {True: "_reverse", False: ""}
    for is_reverse, layer in ((False, forward), (True, backward)):
        layer.load_state_dict({n: weights[n + ends[is_reverse]] for n in layer.state_dict()})
    x = torch.randn(2, 6, 3, dtype=torch.double)
    outputs, state = both(x)
    there, there_end = forward(x)
    back, back_end = backward(x.flip(1))
    torch.testing.assert_close(outputs, torch.cat([there, back.flip(1)], dim=2))
    torch.testing.assert_close(select(state, 0), select(there_end, 0))
    torch.testing.assert_close(select(state, 1), select(back_end, 0))


@kinds
@backends
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_are_as_if_each_stood_alone(kind, backend, bidirectional):
    layer = layer_of(kind, num_layers=2, bidirectional=bidirectional, backend=backend)
    lengths = [3, 6, 1, 6]
    x = torch.randn(4, 6, 3, dtype=torch.double)
    state = random_state(kind, 2 * (1 + bidirectional), 4, 4)

    def gradients(loss):
        return torch.autograd.grad(loss, list(layer.parameters()))

    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, end = layer(packed, state)
    padded, _ = pad_packed_sequence(outputs, batch_first=True)
    loss, alone_loss = padded.sin().sum() + parts(end)[0].square().sum(), 0.0
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        alone, alone_end = layer(x[one, :length], select(state, slice(None), one))
        torch.testing.assert_close(padded[one, :length], alone)
        torch.testing.assert_close(select(end, slice(None), one), alone_end)
        alone_loss = alone_loss + alone.sin().sum() + parts(alone_end)[0].square().sum()
    torch.testing.assert_close(gradients(loss), gradients(alone_loss))


@kinds
@backends
def test_a_later_input_changes_no_earlier_output(kind, backend):
    layer = layer_of(kind, num_layers=2, backend=backend)
    x = torch.randn(2, 6, 3, dtype=torch.double)
    changed = x.clone()
    changed[:, 4] += 1
    before, after = layer(x)[0], layer(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@kinds
def test_backends_have_the_same_state_dict_and_results(kind):
    fused = layer_of(kind, num_layers=2, bidirectional=True)
    written = make_rnn(kind, 3, 4, num_layers=2, bidirectional=True, backend="written").double()
    written.load_state_dict(fused.state_dict(), strict=True)
    x = torch.randn(2, 6, 3, dtype=torch.double)
    torch.testing.assert_close(written(x), fused(x))
    torch.testing.assert_close(copy.deepcopy(written)(x), fused(x))


@kinds
@pytest.mark.parametrize("alive", [None, [2, 1]], ids=["full", "packed"])
def test_gradients_of_the_equations_are_those_of_finite_differences_twice(kind, alive):
    layer = layer_of(kind, backend="written", bidirectional=True)
    if kind == "rnn_relu":  # away from its bend
        layer.get_parameter("bias_ih_l0").data += 3
        layer.get_parameter("bias_ih_l0_reverse").data += 3
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(2, 2, 3, dtype=torch.double, requires_grad=True)
    state = [s.requires_grad_() for s in parts(random_state(kind, 2, 2, 4))]

    def function(x, *rest):
        states, weights = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        given = states if len(states) == 2 else states[0]
        fed = x if alive is None else pack_padded_sequence(x, alive, batch_first=True)
        outputs, end = torch.func.functional_call(layer, weights, (fed, given))
        return (outputs if alive is None else outputs.data, *parts(end))

    inputs = (x, *state, *layer.parameters())
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@kinds
@backends
def test_an_empty_batch_has_gradients_of_zero(kind, backend):
    layer = layer_of(kind, num_layers=2, bidirectional=True, backend=backend)
    x = torch.zeros(0, 5, 3, dtype=torch.double, requires_grad=True)
    outputs, end = layer(x)
    (outputs.sum() + sum(s.sum() for s in parts(end))).backward()
    assert x.grad.shape == x.shape
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in layer.parameters())


@kinds
@backends
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own kernels
def test_torch_func_gives_the_gradients_of_a_batch_and_of_each_sample(kind, backend):
    layer = layer_of(kind, num_layers=2, bidirectional=True, backend=backend)
    weights, x = dict(layer.named_parameters()), torch.randn(2, 4, 3, dtype=torch.double)

    def loss(weights, x):
        return torch.func.functional_call(layer, weights, (x,))[0].sin().sum()

    def expected(x):
        return torch.autograd.grad(loss(weights, x), list(weights.values()))

    found = torch.func.grad(loss)(weights, x)
    torch.testing.assert_close(tuple(found.values()), expected(x))
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x[:, None])
    for i in range(2):
        torch.testing.assert_close(tuple(g[i] for g in each.values()), expected(x[i : i + 1]))


@kinds
@backends
def test_frozen_weights_let_the_gradient_through_to_input_and_state(kind, backend):
    layer = layer_of(kind, backend=backend)
    x = torch.randn(2, 5, 3, dtype=torch.double, requires_grad=True)
    state = [s.requires_grad_() for s in parts(random_state(kind, 1, 2, 4))]
    given = tuple(state) if len(state) == 2 else state[0]
    expected = torch.autograd.grad(layer(x, given)[0].sin().sum(), [x, *state])
    layer.requires_grad_(False)
    torch.testing.assert_close(
        torch.autograd.grad(layer(x, given)[0].sin().sum(), [x, *state]), expected
    )


@kinds
@backends
def test_bfloat16_autocast_stays_close_and_gives_gradients_in_float32(kind, backend):
    layer = layer_of(kind, num_layers=2, backend=backend).float()
    x = torch.randn(3, 6, 3)
    expected, end = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, low = layer(x)
    torch.testing.assert_close(outputs.float(), expected, rtol=0.1, atol=0.05)
    for a, b in zip(parts(low), parts(end), strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0.1, atol=0.05)
    outputs.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_layer_norm_in_float32_as_cudas_autocast_has_it(monkeypatch):
    plain = F.layer_norm

    def wide(x, shape, *parameters):
        with torch.autocast("cpu", enabled=False):
            return plain(x.float(), shape, *parameters)

    layer = layer_of("layer_norm_lstm", num_layers=2).float()
    x = torch.randn(3, 6, 3)
    expected, _ = layer(x)
    monkeypatch.setattr(F, "layer_norm", wide)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer(x)
    torch.testing.assert_close(outputs.float(), expected, rtol=0.1, atol=0.05)
    outputs.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def rows_of_masks(*, training, rate=0.25):
    """States of a network that does nothing but multiply its state with the mask."""
    layer = RNN(1, 2000, nonlinearity="relu", recurrent_dropout=rate).train(training)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight_hh_l0.copy_(torch.eye(2000))
        return layer(torch.zeros(3, 4, 1), torch.ones(1, 3, 2000))[0]


def test_recurrent_dropout_draws_one_mask_a_sequence_and_keeps_the_mean():
    torch.manual_seed(0)
    states = rows_of_masks(training=True)  # (batch, time, hidden_size)
    mask = states[:, 0]
    assert mask.unique().tolist() == [0, pytest.approx(1 / 0.75)]
    for t in range(1, 4):
        torch.testing.assert_close(states[:, t], mask ** (t + 1))
    assert mask.mean().item() == pytest.approx(1, abs=5 * math.sqrt(1 / 3 / mask.numel()))
    assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(rows_of_masks(training=True)[:, 0], mask)


def test_recurrent_dropout_is_gone_in_evaluation():
    assert rows_of_masks(training=False).eq(1).all()


@kinds
def test_recurrent_dropout_acts_on_every_kind_and_on_either_backend_alike(kind):
    results = []
    for backend in ("fused", "written"):
        layer = layer_of(kind, num_layers=2, recurrent_dropout=0.5, backend=backend)
        torch.manual_seed(1)
        x = torch.randn(2, 6, 3, dtype=torch.double)
        results.append(layer(x)[0])
        layer.eval()
        assert not torch.allclose(results[-1], layer(x)[0])
        assert torch.equal(layer(x)[0], layer(x)[0])
    torch.testing.assert_close(*results)


def test_recurrent_dropout_leaves_the_cell_of_an_lstm_alone():
    torch.manual_seed(0)
    layer = LSTM(3, 4, recurrent_dropout=0.9)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih_l0[:4] = -100.0  # input gate
        layer.bias_ih_l0[4:8] = 100.0  # forget gate
    cell = torch.randn(1, 2, 4)
    _, (_, c) = layer(torch.randn(2, 30, 3), (torch.ones(1, 2, 4), cell))
    torch.testing.assert_close(c, cell)


@kinds
def test_dropout_between_layers_silences_at_the_stated_rate_and_before_no_other(kind):
    torch.manual_seed(0)
    layer = make_rnn(kind, 4, 64, num_layers=2, dropout=0.25, backend="written")
    seen = []
    steps = layer.steps
    layer.steps = lambda x, *rest: seen.append(x) or steps(x, *rest)
    with torch.no_grad():
        layer.weight_ih_l0.normal_()  # ReLU's own zeros are another matter
        layer(torch.randn(8, 10, 4))
        layer.eval()(torch.randn(8, 10, 4))
    silent = [x.eq(0).double().mean().item() for x in seen]
    own = silent[3]  # what is zero without dropout
    assert silent[0] == silent[2] == 0
    assert silent[1] == pytest.approx(own + (1 - own) * 0.25, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("rnn", 133),
        ("rnn_relu", 133),
        ("lstm", 532),
        ("gru", 399),
        ("gru_paper", 399),
        ("minimal_gru", 266),
        ("peephole_lstm", 553),
        ("layer_norm_lstm", 602),
    ],
)
def test_parameter_counts_are_the_docstrings_for_layer_and_cell(kind, parameters):
    for module in (make_rnn(kind, 10, 7), CELLS[kind](10, 7)):
        assert sum(p.numel() for p in module.parameters()) == parameters


@pytest.mark.parametrize(("kind", "ratio"), [("lstm", 4), ("gru", 3), ("minimal_gru", 2)])
def test_gated_networks_have_a_multiple_of_the_plain_ones_parameters(kind, ratio):
    size = {"num_layers": 3, "bidirectional": True}
    plain, gated = (
        sum(p.numel() for p in make_rnn(k, 5, 6, **size).parameters()) for k in ("rnn", kind)
    )
    assert gated == ratio * plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0}, "input_size must be at least 1, not 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"dropout": 0.5}, "dropout acts between layers and there is one: not 0.5"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), not -0.1"),
        ({"recurrent_dropout": 1.0}, r"recurrent_dropout must be in \[0, 1\), not 1.0"),
        ({"backend": "slow"}, "backend must be fused or written, not 'slow'"),
        ({"kind": "elman"}, "kind must be one of rnn, .*, not 'elman'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        make_rnn(**{"kind": "lstm", "input_size": 3, "hidden_size": 4, **arguments})


def test_an_unknown_nonlinearity_is_refused():
    for build in (RNN, RNNCell):
        with pytest.raises(ValueError, match=r"^nonlinearity must be tanh or relu, not 'gelu'"):
            build(3, 4, nonlinearity="gelu")


@kinds
@backends
@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        ((2, 5, 4), None, r"^x must be \(batch, time, 3\), not \(2, 5, 4\)"),
        ((5, 3), None, r"^x must be \(batch, time, 3\), not \(5, 3\)"),
        ((2, 0, 3), None, r"^x must have at least one step, not \(2, 0, 3\)"),
        ((2, 5, 3), (1, 3, 4), r"^state must be .* \(1, 2, 4\), not \(1, 3, 4\)"),
    ],
)
def test_input_of_another_shape_is_refused(kind, backend, x, state, message):
    state = None if state is None else random_state(kind, *state)
    with pytest.raises(ValueError, match=message):
        layer_of(kind, backend=backend)(torch.zeros(x, dtype=torch.double), state)


@kinds
def test_a_cell_refuses_input_of_another_shape(kind):
    with pytest.raises(ValueError, match=r"^x must be \(batch, 3\), not \(2, 5, 3\)"):
        CELLS[kind](3, 4)(torch.zeros(2, 5, 3))


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_paper"])
@backends
def test_a_compiled_network_may_contain_layers(kind, backend):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = layer_of(kind, backend=backend), torch.nn.Linear(4, 2).double()

        def forward(self, x):
            return self.head(self.layer(2 * x)[0]).sin()

    network = Network()
    x = torch.randn(2, 5, 3, dtype=torch.double)
    results = []
    for callee in (network, torch.compile(network, backend="eager")):
        outputs = callee(x)
        gradients = torch.autograd.grad(outputs.square().sum(), list(network.parameters()))
        results.append([outputs, *gradients])
    torch.testing.assert_close(*results)
