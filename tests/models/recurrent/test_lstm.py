import pytest
import torch

from zoo.models.recurrent.lstm import LSTM, LSTMLanguageModel, char_lstm


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_docstrings():
    model = char_lstm()
    parts = (model.embedding, model.lstm, model.head)
    assert [count(part) for part in parts] == [16_640, 526_336, 16_705]
    assert count(model) == 559_681


def test_parameter_count_is_that_of_zarembas_small_network_with_two_biases():
    model = LSTMLanguageModel(10_000, embed_dim=200, hidden_size=200, num_layers=2)
    assert count(model) == 4_653_200


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


@pytest.mark.parametrize("backend", ["fused", "written"])
def test_two_halves_with_carried_state_equal_one_pass(backend):
    torch.manual_seed(0)
    model = LSTMLanguageModel(9, embed_dim=5, hidden_size=6, num_layers=2, backend=backend)
    tokens = torch.randint(9, (3, 8))
    whole, (h, c) = model(tokens)
    first, state = model(tokens[:, :5])
    second, (h_end, c_end) = model(tokens[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close((h_end, c_end), (h, c))
    assert h.shape == c.shape == (2, 3, 6)


@pytest.mark.parametrize("backend", ["fused", "written"])
def test_changing_a_token_leaves_all_earlier_logits_alone(backend):
    torch.manual_seed(0)
    model = LSTMLanguageModel(9, embed_dim=5, hidden_size=6, backend=backend)
    tokens = torch.randint(9, (2, 8))
    changed = tokens.clone()
    changed[:, 4] = (tokens[:, 4] + 1) % 9
    before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_tied_weights_are_one_parameter_and_survive_a_state_dict():
    torch.manual_seed(0)
    tied, other = (char_lstm(tie_weights=True) for _ in range(2))
    assert tied.head.weight is tied.embedding.weight
    assert count(tied) == 559_681 - 65 * 256
    other.load_state_dict(tied.state_dict())
    tokens = torch.randint(65, (2, 4))
    assert torch.equal(tied(tokens)[0], other(tokens)[0])


def test_dropout_acts_in_training_only_and_on_no_connection_in_time():
    torch.manual_seed(0)
    model = LSTMLanguageModel(9, embed_dim=5, hidden_size=6, num_layers=2, dropout=0.5)
    tokens = torch.randint(9, (2, 4))
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_written_dropout_between_layers_silences_at_the_stated_rate():
    torch.manual_seed(0)
    lstm = LSTM(4, 64, num_layers=2, dropout=0.25, backend="written")
    seen = []
    layer = lstm._layer
    lstm._layer = lambda x, *rest: seen.append(x) or layer(x, *rest)
    lstm(torch.randn(8, 10, 4))
    assert seen[0].eq(0).float().mean() == 0
    assert seen[1].eq(0).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"dropout": 0.5}, "dropout acts between layers and there is one: not 0.5"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), not -0.1"),
        ({"backend": "slow"}, "backend must be fused or written, not 'slow'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        LSTM(3, 4, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"embed_dim": 0}, "embed_dim must be at least 1, not 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        (
            {"embed_dim": 8, "tie_weights": True},
            "embed_dim must equal hidden_size=256 to tie weights, not 8",
        ),
    ],
)
def test_language_model_refuses_nonsense_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        LSTMLanguageModel(**{"vocab_size": 9, **arguments})
