import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from zoo.layers.gru_scan import gru_scan
from zoo.models.recurrent.gru import GRU, GRUCell, PaperGRU, PaperGRUCell
from zoo.models.recurrent.minimal_gru import MinimalGRUCell

forms = pytest.mark.parametrize("form", [GRUCell, PaperGRUCell])


@forms
def test_update_gate_of_one_copies_the_state(form):
    torch.manual_seed(0)
    cell = form(3, 4)
    with torch.no_grad():
        cell.bias_ih[4:8] = 1000.0
    h = torch.randn(2, 4)
    assert torch.equal(cell(torch.randn(2, 3), h), h)


@forms
def test_update_and_reset_gates_of_zero_leave_the_candidate_of_the_input_alone(form):
    torch.manual_seed(0)
    cell = form(3, 4)
    with torch.no_grad():
        cell.bias_ih[:8] = -1000.0
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    candidate = x @ cell.weight_ih[8:].T + cell.bias_ih[8:]
    if form is PaperGRUCell:  # its second bias is no part of what is reset
        candidate = candidate + cell.bias_hh[8:]
    torch.testing.assert_close(cell(x, h), candidate.tanh())


@forms
def test_the_form_is_what_it_says_about_the_reset_gate(form):
    torch.manual_seed(0)
    cell = form(3, 4)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    w_r, w_z, w_n = cell.weight_ih.chunk(3)
    u_r, u_z, u_n = cell.weight_hh.chunk(3)
    b_r, b_z, b_n = cell.bias_ih.chunk(3)
    c_r, c_z, c_n = cell.bias_hh.chunk(3)
    r = 1 / (1 + torch.exp(-(x @ w_r.T + b_r + h @ u_r.T + c_r)))
    z = 1 / (1 + torch.exp(-(x @ w_z.T + b_z + h @ u_z.T + c_z)))
    after = r * (h @ u_n.T + c_n)
    before = (r * h) @ u_n.T + c_n
    n = torch.tanh(x @ w_n.T + b_n + (before if form is PaperGRUCell else after))
    torch.testing.assert_close(cell(x, h), (1 - z) * n + z * h)


def test_papers_form_and_torchs_are_different_functions_that_agree_without_reset():
    torch.manual_seed(0)
    torchs, papers = GRU(3, 4), PaperGRU(3, 4)
    papers.load_state_dict(torchs.state_dict(), strict=True)
    x = torch.randn(2, 6, 3)
    assert (torchs(x)[0] - papers(x)[0]).abs().max() > 1e-3
    with torch.no_grad():
        for layer in (torchs, papers):
            layer.bias_ih_l0[:4] = 1000.0  # r = 1
    torch.testing.assert_close(papers(x), torchs(x))


def test_minimal_unit_keeps_its_state_where_its_gate_is_zero():
    torch.manual_seed(0)
    cell = MinimalGRUCell(3, 4)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    with torch.no_grad():
        cell.bias_ih[:4] = -1000.0
        assert torch.equal(cell(x, h), h)
        cell.bias_ih[:4] = 1000.0
        candidate = x @ cell.weight_ih[4:].T + h @ cell.weight_hh[4:].T
        candidate = candidate + cell.bias_ih[4:] + cell.bias_hh[4:]
        torch.testing.assert_close(cell(x, h), candidate.tanh())


@pytest.mark.parametrize("is_reverse", [False, True])
@pytest.mark.parametrize("alive", [None, [3, 2, 2, 1]], ids=["full", "packed"])
def test_gradient_by_hand_is_that_of_finite_differences(alive, is_reverse):
    torch.manual_seed(0)
    sizes = [(4, 3, 2), (3, 3), (9, 2), (9, 3), (9,), (9,)]
    inputs = [torch.randn(size, dtype=torch.double, requires_grad=True) for size in sizes]

    def function(x, h, *weights):
        outputs, last = gru_scan(x, h, weights, alive, is_reverse=is_reverse)
        return outputs, last, gru_scan(x, last, weights, alive, is_reverse=is_reverse)[0]

    assert torch.autograd.gradcheck(function, inputs)


def test_gradient_by_hand_of_any_one_result_alone():
    torch.manual_seed(0)
    fused, written = GRU(3, 4, num_layers=2), GRU(3, 4, num_layers=2, backend="written")
    written.load_state_dict(fused.state_dict())
    x = torch.randn(2, 5, 3)
    for choose in (lambda r: r[0].sum(), lambda r: r[1].sum(), lambda r: r[0][:, 2].sum()):
        gradients = [
            torch.autograd.grad(choose(layer(x)), list(layer.parameters()))
            for layer in (fused, written)
        ]
        torch.testing.assert_close(*gradients)


def test_second_derivatives_are_refused_by_fused_and_given_by_written():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, requires_grad=True)
    fused = GRU(3, 4)
    (first,) = torch.autograd.grad(fused(x)[0].sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
    written = GRU(3, 4, backend="written")
    (first,) = torch.autograd.grad(written(x)[0].sin().sum(), x, create_graph=True)
    first.sum().backward()
    assert written.weight_hh_l0.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", ["fused", "written"])
def test_what_the_caller_holds_is_never_changed_and_may_be_changed_by_the_caller(backend):
    torch.manual_seed(0)
    layer = GRU(3, 4, backend=backend)
    x, h = torch.randn(2, 5, 3), torch.randn(1, 2, 4)
    kept = [t.clone() for t in (x, h, *layer.parameters())]
    outputs, state = layer(x, h)
    expected = torch.autograd.grad((2 * outputs).sum() + state.sum(), list(layer.parameters()))
    outputs, state = layer(x, h)
    outputs *= 2
    loss = outputs.sum() + state.sum()
    torch.testing.assert_close(torch.autograd.grad(loss, list(layer.parameters())), expected)
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, h, *layer.parameters()), strict=True))


def test_inference_equals_training_and_needs_no_graph():
    torch.manual_seed(0)
    layer = GRU(3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(2, 5, 3)
    packed = pack_padded_sequence(x, [5, 3], batch_first=True)
    with torch.inference_mode():
        results = layer(x)[0], layer(packed)[0].data
    assert not any(result.requires_grad for result in results)
    torch.testing.assert_close(results, (layer(x)[0], layer(packed)[0].data))
