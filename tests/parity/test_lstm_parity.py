import pytest
import torch
from torch import nn

from zoo.models.recurrent.lstm import LSTM

pytestmark = pytest.mark.parity


def run(lstm, x, state):
    """Outputs, state, and the gradients of all that they depend on."""
    x = x.clone().requires_grad_()
    state = None if state is None else tuple(s.clone().requires_grad_() for s in state)
    outputs, (h, c) = lstm(x, state)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=x.dtype).view_as(outputs)
    loss = (outputs * weights).sum() + h.square().sum() + c.sin().sum()
    inputs = [x, *(state or ()), *lstm.parameters()]
    return outputs, h, c, *torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("backend", ["fused", "written"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("with_state", [False, True])
def test_torchs_lstm_loads_strictly_with_equal_outputs_and_gradients(
    backend, num_layers, with_state
):
    torch.manual_seed(0)
    theirs = nn.LSTM(5, 7, num_layers=num_layers, batch_first=True).double()
    ours = LSTM(5, 7, num_layers=num_layers, backend=backend).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 6, 5, dtype=torch.double)
    state = None
    if with_state:
        state = tuple(torch.randn(num_layers, 3, 7, dtype=torch.double) for _ in range(2))
    torch.testing.assert_close(run(ours, x, state), run(theirs, x, state))


def test_ours_loads_strictly_into_torchs():
    ours, theirs = LSTM(5, 7, num_layers=2), nn.LSTM(5, 7, num_layers=2, batch_first=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(3, 6, 5)
    assert torch.equal(ours(x)[0], theirs(x)[0])


def test_layer_of_one_step_equals_torchs_cell():
    torch.manual_seed(0)
    ours, cell = LSTM(5, 7, backend="written"), nn.LSTMCell(5, 7)
    cell.load_state_dict({name[: -len("_l0")]: p for name, p in ours.state_dict().items()})
    x, h, c = torch.randn(3, 5), torch.randn(3, 7), torch.randn(3, 7)
    _, (h_ours, c_ours) = ours(x[:, None], (h[None], c[None]))
    torch.testing.assert_close((h_ours[0], c_ours[0]), cell(x, (h, c)))
