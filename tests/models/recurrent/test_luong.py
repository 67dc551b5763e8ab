import pytest
import torch
import torch.nn.functional as F

from zoo.models.recurrent.encoder_decoder import reverse
from zoo.models.recurrent.luong import GlobalAttention, LuongSeq2Seq, seq2seq_luong


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("score", "of_attention", "total"),
    [
        ("general", 262_144, 15_733_509),
        ("dot", 0, 15_471_365),
        ("concat", 524_800, 15_996_165),
    ],
)
def test_parameter_counts_are_the_docstrings(score, of_attention, total):
    model = seq2seq_luong(7853, 5893, score=score)
    encoder, decoder = model.encoder, model.decoder
    assert count(encoder.embedding, decoder.embedding) == 3_518_976
    assert count(encoder.rnn) == 3_678_208
    assert count(decoder.attention) == of_attention
    assert count(decoder.rnn, decoder.attentional) == 5_251_072
    assert count(decoder.fc_out) == 3_023_109
    assert count(model) == total


def test_the_papers_form_has_four_layers_of_1000_that_are_fed_2000():
    with torch.device("meta"):
        model = LuongSeq2Seq(50_000, 50_000)
    assert model.encoder.rnn.weight_ih_l3.shape == (4000, 1000)
    assert model.decoder.rnn.weight_ih_l0.shape == (4000, 2000)
    assert model.decoder.attentional.weight.shape == (1000, 2000)


def test_general_score_with_the_identity_between_is_the_dot_product():
    torch.manual_seed(0)
    general, dot = GlobalAttention(6, score="general"), GlobalAttention(6, score="dot")
    torch.nn.init.eye_(general.key.weight)
    states, memory = torch.randn(2, 3, 6), torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    weights = [score(states, score.keys(memory), mask) for score in (general, dot)]
    torch.testing.assert_close(*weights)
    scores = (states[1, 2] * memory[1, :2]).sum(1)
    torch.testing.assert_close(weights[0][1, 2, :2], scores.exp() / scores.exp().sum())


@pytest.mark.parametrize(("input_feeding", "calls"), [(False, 1), (True, 4)])
def test_without_input_feeding_all_known_steps_run_at_once(input_feeding, calls):
    torch.manual_seed(0)
    model = seq2seq_luong(9, 9, embed_dim=4, hidden_size=6, input_feeding=input_feeding)
    seen = []
    model.decoder.rnn.register_forward_hook(lambda *_: seen.append(1))
    model(torch.randint(9, (2, 5)), torch.randint(9, (2, 4)))
    assert len(seen) == calls


def test_input_feeding_tells_a_step_where_the_one_before_has_looked():
    torch.manual_seed(0)
    model = seq2seq_luong(9, 9, embed_dim=4, hidden_size=6, dropout=0.0)
    state = model.encode(torch.randint(9, (2, 5)))
    assert not state.feed.any()
    tokens = torch.randint(9, (2, 1))
    fed = model.decode(tokens, state._replace(feed=torch.ones_like(state.feed)))[0]
    assert not torch.isclose(fed, model.decode(tokens, state)[0]).all(2).any()


def test_unknown_score_is_refused():
    with pytest.raises(
        ValueError, match=r"^score must be one of dot, general, concat, not 'local'"
    ):
        seq2seq_luong(9, 9, score="local")


def test_matrices_start_uniform_in_the_papers_range():
    torch.manual_seed(0)
    matrices = [p.flatten() for p in seq2seq_luong(50, 50).parameters() if p.ndim == 2]
    matrices = torch.cat(matrices)
    assert matrices.abs().max() <= 0.1
    assert matrices.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.01)


def strings(count, generator):
    """Strings of three to five digits, their lengths, and the strings reversed."""
    lengths = torch.randint(3, 6, (count,), generator=generator)
    source = torch.randint(3, 9, (count, 5), generator=generator)
    source = source * (torch.arange(5) < lengths.unsqueeze(1))
    return source, lengths, reverse(source, lengths)


@pytest.mark.slow
def test_reversing_strings_is_learned_by_looking_at_the_digit_that_comes_next():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = seq2seq_luong(
        9,
        9,
        embed_dim=16,
        hidden_size=32,
        num_layers=1,
        dropout=0.0,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(150):
        source, lengths, target = strings(32, generator)
        logits = model(source, F.pad(target, (1, 0), value=2)[:, :-1], lengths)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    source, lengths, target = strings(500, generator)
    inputs, is_token = F.pad(target, (1, 0), value=2)[:, :-1], target > 0
    logits = model(source, inputs, lengths)
    looked_at = model.attention_maps(source, inputs, lengths)["attention"][:, 0].argmax(2)
    mirrored = lengths.unsqueeze(1) - 1 - torch.arange(5)
    assert (logits.argmax(2) == target)[is_token].float().mean() > 0.95
    assert (looked_at == mirrored)[is_token].float().mean() > 0.9
