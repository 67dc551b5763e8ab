import pytest
import torch

from zoo.models.recurrent.chrono import remember_
from zoo.models.recurrent.kinds import make_rnn
from zoo.models.recurrent.sequence_heads import rnn_regressor

GATED = ("lstm", "peephole_lstm", "gru", "gru_paper", "minimal_gru")


def echo(kind, num_steps):
    """How much of the first input's influence on the state is left after so many steps."""
    torch.manual_seed(0)
    layers = make_rnn(kind, 1, 64)
    with torch.no_grad():  # gates that only their biases move, and a candidate of the input alone
        for name, parameter in layers.named_parameters():
            if name.startswith("weight_ih"):
                blocks = parameter.chunk(len(parameter) // 64)
                candidate = 2 if "lstm" in kind else len(blocks) - 1
                for block in (*blocks[:candidate], *blocks[candidate + 1 :]):
                    block.zero_()
            elif name.startswith("weight"):
                parameter.zero_()
    if num_steps is not None:
        remember_(layers, kind, num_steps)
    inputs = torch.zeros(1, 100, 1, requires_grad=True)
    output, _ = layers(inputs)
    weights = torch.randn(64, generator=torch.Generator().manual_seed(1))
    near = torch.autograd.grad((output[0, 1] * weights).sum(), inputs, retain_graph=True)[0]
    far = torch.autograd.grad((output[0, -1] * weights).sum(), inputs)[0]
    return (far[0, 0] / near[0, 0]).abs().item()


@pytest.mark.parametrize("kind", GATED)
def test_gates_remember_after_a_hundred_steps_and_torchs_do_not(kind):
    assert echo(kind, None) < 1e-6
    assert echo(kind, 100) > 1e-3


@pytest.mark.parametrize("bidirectional", [False, True])
def test_times_of_an_lstm_are_uniform_up_to_the_stated_length(bidirectional):
    torch.manual_seed(0)
    layers = make_rnn("lstm", 3, 4000, bidirectional=bidirectional)
    cell_and_output = layers.bias_ih_l0[8000:].clone()
    remember_(layers, "lstm", 200)
    for bias_ih, bias_hh in (weights[2:4] for weights in layers.all_weights):
        write, keep = (bias_ih + bias_hh).chunk(4)[:2]
        assert torch.equal(write, -keep)
        times = keep.exp()
        assert times.min() >= 1 and times.max() <= 199
        assert times.mean().item() == pytest.approx(100, rel=0.05)
    assert torch.equal(layers.bias_ih_l0[8000:], cell_and_output)


@pytest.mark.parametrize("kind", ["lstm", "peephole_lstm", "layer_norm_lstm"])
def test_gates_of_input_and_memory_are_opposite(kind):
    layers = make_rnn(kind, 3, 50)
    remember_(layers, kind, 200)
    write, keep = (layers.bias_ih_l0 + layers.bias_hh_l0).chunk(4)[:2]
    assert torch.equal(write, -keep) and keep.exp().min() >= 1 and keep.exp().max() <= 199.1


@pytest.mark.parametrize("kind", ["rnn", "rnn_relu"])
def test_plain_layers_stay_as_they_are(kind):
    layers = make_rnn(kind, 3, 4)
    before = [p.clone() for p in layers.parameters()]
    remember_(layers, kind, 100)
    for old, new in zip(before, layers.parameters(), strict=True):
        assert torch.equal(old, new)


def test_networks_take_the_length_by_name_and_refuse_too_short_a_one():
    model = rnn_regressor(2, memory_length=50)
    keep = model.reader.rnn.bias_ih_l0.chunk(4)[1].exp()
    assert keep.min() >= 1 and keep.max() <= 49
    with pytest.raises(ValueError, match="memory_length must be at least 3 or None, not 2"):
        rnn_regressor(2, memory_length=2)
    with pytest.raises(ValueError, match="num_steps must be at least 3, not 2"):
        remember_(model.reader.rnn, "lstm", 2)
