import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from zoo.models.recurrent.gru import GRU, GRUCell
from zoo.models.recurrent.lstm import LSTM, LSTMCell
from zoo.models.recurrent.rnn import RNN, RNNCell

pytestmark = pytest.mark.parity

KINDS = {
    "rnn": (RNN, nn.RNN, RNNCell, nn.RNNCell, {}),
    "rnn_relu": (RNN, nn.RNN, RNNCell, nn.RNNCell, {"nonlinearity": "relu"}),
    "lstm": (LSTM, nn.LSTM, LSTMCell, nn.LSTMCell, {}),
    "gru": (GRU, nn.GRU, GRUCell, nn.GRUCell, {}),
}
kinds = pytest.mark.parametrize("kind", KINDS)
backends = pytest.mark.parametrize("backend", ["fused", "written"])


def parts(state):
    return list(state) if isinstance(state, tuple) else [state]


def state_like(kind, *shape):
    states = [torch.randn(shape, dtype=torch.double) for _ in range(2 if kind == "lstm" else 1)]
    return tuple(states) if kind == "lstm" else states[0]


def run(module, x, state, lengths=None):
    """Outputs, state, and the gradients of all that they depend on."""
    x = x.clone().requires_grad_()
    leaves = [] if state is None else [s.clone().requires_grad_() for s in parts(state)]
    given = None if state is None else (tuple(leaves) if len(leaves) == 2 else leaves[0])
    fed = x
    if lengths is not None:
        fed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    result = module(fed, given)
    if isinstance(module, nn.RNNBase):
        outputs, state = result
        data = outputs.data if isinstance(outputs, PackedSequence) else outputs
        results = [data, *parts(state)]
        if lengths is not None:
            results.append(pad_packed_sequence(outputs, batch_first=True)[0])
    else:
        results = parts(result)
    loss = sum(
        (r * torch.linspace(-1, 2, r.numel(), dtype=r.dtype).view_as(r)).sin().sum()
        for r in results
    )
    gradients = torch.autograd.grad(loss, [x, *leaves, *module.parameters()])
    return [*results, *gradients]


@kinds
@backends
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("lengths", [None, [4, 6, 1, 4]], ids=["full", "packed"])
def test_torchs_layers_load_strictly_with_equal_outputs_and_gradients(
    kind, backend, num_layers, bidirectional, with_state, lengths
):
    torch.manual_seed(0)
    ours_class, theirs_class, _, _, options = KINDS[kind]
    size = {"num_layers": num_layers, "bidirectional": bidirectional, **options}
    theirs = theirs_class(5, 7, batch_first=True, **size).double()
    ours = ours_class(5, 7, backend=backend, **size).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(4, 6, 5, dtype=torch.double)
    directions = num_layers * (1 + bidirectional)
    state = state_like(kind, directions, 4, 7) if with_state else None
    torch.testing.assert_close(run(ours, x, state, lengths), run(theirs, x, state, lengths))


@kinds
@backends
@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_a_packed_sequence_comes_back_as_torch_gives_it_back(kind, backend, enforce_sorted):
    torch.manual_seed(0)
    ours_class, theirs_class, _, _, options = KINDS[kind]
    theirs = theirs_class(3, 4, batch_first=True, **options)
    ours = ours_class(3, 4, backend=backend, **options)
    ours.load_state_dict(theirs.state_dict())
    lengths = [5, 5, 2] if enforce_sorted else [2, 5, 5]
    x = pack_padded_sequence(
        torch.randn(3, 5, 3), lengths, batch_first=True, enforce_sorted=enforce_sorted
    )
    for a, b in zip(ours(x)[0], theirs(x)[0], strict=True):
        torch.testing.assert_close(a, b)


@kinds
def test_ours_load_strictly_into_torchs(kind):
    ours_class, theirs_class, ours_cell, theirs_cell, options = KINDS[kind]
    layer = ours_class(5, 7, num_layers=2, bidirectional=True, **options)
    theirs = theirs_class(5, 7, num_layers=2, bidirectional=True, batch_first=True, **options)
    theirs.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(3, 6, 5)
    torch.testing.assert_close(layer(x), theirs(x))
    cell, other = ours_cell(5, 7, **options), theirs_cell(5, 7, **options)
    other.load_state_dict(cell.state_dict(), strict=True)
    torch.testing.assert_close(cell(x[:, 0]), other(x[:, 0]))


@kinds
@pytest.mark.parametrize("with_state", [False, True])
def test_torchs_cells_load_strictly_with_equal_outputs_and_gradients(kind, with_state):
    torch.manual_seed(0)
    _, _, ours_class, theirs_class, options = KINDS[kind]
    theirs, ours = theirs_class(5, 7, **options).double(), ours_class(5, 7, **options).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 5, dtype=torch.double)
    state = state_like(kind, 3, 7) if with_state else None
    torch.testing.assert_close(run(ours, x, state), run(theirs, x, state))


@kinds
@backends
def test_layers_begin_like_torchs(kind, backend):
    ours_class, theirs_class, _, _, options = KINDS[kind]
    states = []
    for build in (
        lambda: ours_class(5, 7, num_layers=2, backend=backend, **options),
        lambda: theirs_class(5, 7, num_layers=2, **options),
    ):
        torch.manual_seed(0)
        states.append(build().state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.gpu
@kinds
@pytest.mark.parametrize("lengths", [None, [4, 6, 1, 4]], ids=["full", "packed"])
def test_cudnn_equals_the_equations(kind, lengths):
    torch.manual_seed(0)
    ours_class, _, _, _, options = KINDS[kind]
    layers = [
        ours_class(5, 7, num_layers=2, bidirectional=True, backend=b, **options).double().cuda()
        for b in ("fused", "written")
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(4, 6, 5, dtype=torch.double)
    results = []
    for layer in layers:
        fed = x.cuda().requires_grad_()
        packed = fed
        if lengths is not None:
            packed = pack_padded_sequence(fed, lengths, batch_first=True, enforce_sorted=False)
        output, state = layer(packed)
        data = output.data if lengths is not None else output
        loss = data.sin().sum() + sum(s.square().sum() for s in parts(state))
        gradients = torch.autograd.grad(loss, [fed, *layer.parameters()])
        results.append([data, *parts(state), *gradients])
    torch.testing.assert_close(*results)
