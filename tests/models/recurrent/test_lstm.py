import pytest
import torch
from torch import nn

from zoo.models.recurrent.layer_norm_lstm import LayerNormLSTM, LayerNormLSTMCell
from zoo.models.recurrent.lstm import LSTM
from zoo.models.recurrent.peephole_lstm import PeepholeLSTM, PeepholeLSTMCell


def test_open_forget_gate_and_shut_input_gate_carry_the_cell_unchanged():
    torch.manual_seed(0)
    lstm = LSTM(3, 4, backend="written")
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
        lstm.bias_ih_l0[:4] = -100.0  # input gate
        lstm.bias_ih_l0[4:8] = 100.0  # forget gate
        lstm.bias_ih_l0[12:] = 100.0  # output gate
    cell = torch.randn(1, 2, 4)
    outputs, (h, c) = lstm(torch.randn(2, 30, 3), (torch.zeros(1, 2, 4), cell))
    torch.testing.assert_close(c, cell)
    torch.testing.assert_close(h, cell.tanh())
    torch.testing.assert_close(outputs[:, 17], cell[0].tanh())


@pytest.mark.parametrize("kind", [LSTM, PeepholeLSTM, LayerNormLSTM])
def test_forget_bias_is_what_both_biases_of_the_gate_add_up_to(kind):
    states = []
    for forget_bias in (None, 1.0):
        torch.manual_seed(0)
        lstm = kind(3, 4, num_layers=2, bidirectional=True, forget_bias=forget_bias)
        states.append(lstm.state_dict())
    plain, biased = states
    for name, value in biased.items():
        if name.startswith("bias_") and "ln" not in name:
            expected = 1.0 if name.startswith("bias_ih") else 0.0
            assert value[4:8].eq(expected).all()
            value = torch.cat([value[:4], plain[name][4:8], value[8:]])
        assert torch.equal(value, plain[name])


def test_forget_bias_loads_torchs_checkpoint_all_the_same():
    theirs = nn.LSTM(3, 4)
    ours = LSTM(3, 4, forget_bias=1.0)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(ours.bias_ih_l0, theirs.bias_ih_l0)


def test_peepholes_of_zero_leave_an_lstm():
    torch.manual_seed(0)
    lstm, peephole = LSTM(3, 4, num_layers=2), PeepholeLSTM(3, 4, num_layers=2)
    missing, unexpected = peephole.load_state_dict(lstm.state_dict(), strict=False)
    assert {name[:9] for name in missing} == {"weight_ci", "weight_cf", "weight_co"}
    assert not unexpected
    x = torch.randn(2, 5, 3)
    assert not torch.allclose(peephole(x)[0], lstm(x)[0])
    with torch.no_grad():
        for name in missing:
            peephole.get_parameter(name).zero_()
    torch.testing.assert_close(peephole(x), lstm(x))


def test_input_and_forget_gates_peep_at_the_old_cell_and_the_output_gate_at_the_new():
    torch.manual_seed(0)
    cell = PeepholeLSTMCell(3, 4).double()
    x, h, c = (torch.randn(2, size, dtype=torch.double) for size in (3, 4, 4))
    blocks = [
        x @ w.T + h @ u.T + b + d
        for w, u, b, d in zip(
            *(p.chunk(4) for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)),
            strict=True,
        )
    ]

    def logistic(a):
        return 1 / (1 + torch.exp(-a))

    i = logistic(blocks[0] + cell.weight_ci * c)
    f = logistic(blocks[1] + cell.weight_cf * c)
    new = f * c + i * torch.tanh(blocks[2])
    o = logistic(blocks[3] + cell.weight_co * new)
    torch.testing.assert_close(cell(x, (h, c)), (o * torch.tanh(new), new))


def test_layer_normalised_cell_is_the_papers_equations():
    torch.manual_seed(0)
    cell = LayerNormLSTMCell(3, 4).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_()
    x, h, c = (torch.randn(2, size, dtype=torch.double) for size in (3, 4, 4))

    def norm(a, gain, bias):
        mean, variance = a.mean(1, keepdim=True), a.var(1, correction=0, keepdim=True)
        return gain * (a - mean) / (variance + 1e-5).sqrt() + bias

    gates = norm(x @ cell.weight_ih.T, cell.weight_ln_ih, cell.bias_ih) + norm(
        h @ cell.weight_hh.T, cell.weight_ln_hh, cell.bias_hh
    )
    i, f, g, o = gates[:, :4], gates[:, 4:8], gates[:, 8:12], gates[:, 12:]
    new = c * f.sigmoid() + i.sigmoid() * g.tanh()
    shown = o.sigmoid() * norm(new, cell.weight_ln_c, cell.bias_ln_c).tanh()
    torch.testing.assert_close(cell(x, (h, c)), (shown, new))


def test_layer_normalisation_makes_the_scale_of_the_matrices_irrelevant():
    torch.manual_seed(0)
    lstm = LayerNormLSTM(30, 40).double()
    x = torch.randn(2, 6, 30, dtype=torch.double)
    before = lstm(x)[0]
    with torch.no_grad():
        lstm.weight_ih_l0 *= 100
        lstm.weight_hh_l0 *= 100
    after = lstm(x)[0]
    # But for the first step's state of zeros and the epsilon of the normalisation.
    torch.testing.assert_close(after, before, rtol=0, atol=2e-3)


def test_layer_normalisation_starts_with_gains_of_one():
    lstm = LayerNormLSTM(3, 4, num_layers=2, bidirectional=True)
    for name, parameter in lstm.named_parameters():
        if name.startswith("weight_ln"):
            assert parameter.eq(1).all()
        elif name.startswith("bias_ln"):
            assert parameter.eq(0).all()
        else:
            assert 0 < parameter.abs().max() <= 0.5
