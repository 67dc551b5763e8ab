import pytest
import torch
from torch import nn

from zoo.models.recurrent.language_model import RecurrentLanguageModel

EVERY_KIND = (
    "rnn",
    "rnn_relu",
    "lstm",
    "gru",
    "gru_paper",
    "minimal_gru",
    "peephole_lstm",
    "layer_norm_lstm",
)


def count(model):
    return sum(p.numel() for p in model.parameters())


def small(kind="lstm", **arguments):
    torch.manual_seed(0)
    settings = {"embed_dim": 5, "hidden_size": 6, "num_layers": 2, **arguments}
    return RecurrentLanguageModel(9, kind=kind, **settings)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize(
    ("kind", "recurrent", "total"),
    [
        ("rnn", 131_584, 164_929),
        ("gru", 394_752, 428_097),
        ("lstm", 526_336, 559_681),
    ],
)
def test_parameter_counts_are_the_docstrings(kind, recurrent, total):
    model = RecurrentLanguageModel(kind=kind)
    assert count(model.encoder) == 16_640 and count(model.decoder) == 16_705
    assert count(model.rnn) == recurrent and count(model) == total


def test_parameter_count_is_that_of_zarembas_small_network_with_two_biases():
    model = RecurrentLanguageModel(10_000, embed_dim=200, hidden_size=200, num_layers=2)
    assert count(model) == 4_653_200


@pytest.mark.parametrize("backend", ["fused", "written"])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_two_halves_with_carried_state_equal_one_pass(kind, backend):
    model = small(kind, backend=backend)
    tokens = torch.randint(9, (3, 8))
    whole, end = model(tokens)
    first, state = model(tokens[:, :5])
    second, last = model(tokens[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(parts(last), parts(end))
    assert all(part.shape == (2, 3, 6) for part in parts(end))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_changing_a_token_leaves_all_earlier_logits_alone(kind):
    model = small(kind)
    tokens = torch.randint(9, (2, 8))
    changed = tokens.clone()
    changed[:, 4] = (tokens[:, 4] + 1) % 9
    before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_tied_weights_are_one_parameter_and_survive_a_state_dict():
    torch.manual_seed(0)
    tied, other = (RecurrentLanguageModel(tie_weights=True) for _ in range(2))
    assert tied.decoder.weight is tied.encoder.weight
    assert count(tied) == 559_681 - 65 * 256
    other.load_state_dict(tied.state_dict())
    tokens = torch.randint(65, (2, 4))
    assert torch.equal(tied(tokens)[0], other(tokens)[0])


def test_dropout_acts_in_training_only_and_also_with_one_layer():
    for num_layers in (1, 2):
        model = small(dropout=0.5, num_layers=num_layers)
        tokens = torch.randint(9, (2, 4))
        assert not torch.equal(model(tokens)[0], model(tokens)[0])
        model.eval()
        assert torch.equal(model(tokens)[0], model(tokens)[0])


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_short_text_is_learned_by_heart(kind):
    torch.manual_seed(0)
    model = RecurrentLanguageModel(9, kind=kind, embed_dim=16, hidden_size=32)
    text = torch.randint(9, (2, 12))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        logits, _ = model(text[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Of the second token nothing is known but the first: two texts that begin alike differ.
    assert loss.item() < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"embed_dim": 0}, "embed_dim must be at least 1, not 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        (
            {"embed_dim": 8, "tie_weights": True},
            "embed_dim must equal hidden_size=256 to tie weights, not 8",
        ),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecurrentLanguageModel(**{"vocab_size": 9, **arguments})
