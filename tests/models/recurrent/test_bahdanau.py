import pytest
import torch
import torch.nn.functional as F

from zoo.models.recurrent.bahdanau import AdditiveAttention, BahdanauSeq2Seq, seq2seq_attention
from zoo.models.recurrent.encoder_decoder import reverse


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameter_counts_are_the_public_recipes():
    model = seq2seq_attention(7853, 5893)
    encoder, decoder = model.encoder, model.decoder
    parts = (
        (encoder.embedding, decoder.embedding),
        (encoder.rnn, encoder.fc),
        (decoder.attention,),
        (decoder.rnn,),
        (decoder.fc_out,),
    )
    counts = [count(*part) for part in parts]
    assert counts == [3_518_976, 2_890_240, 787_456, 2_755_584, 10_566_149]
    assert sum(counts) == count(model) == 20_518_405


def test_the_papers_form_has_its_sizes():
    with torch.device("meta"):
        model = BahdanauSeq2Seq(30_000, 30_000)
    decoder = model.decoder
    assert model.encoder.embedding.weight.shape == (30_000, 620)
    assert decoder.attention.key.weight.shape == (1000, 2000)
    assert decoder.maxout.linear.weight.shape == (2 * 500, 1000 + 2000 + 620)
    assert decoder.fc_out.weight.shape == (30_000, 500)


def test_attention_on_equal_vectors_is_even_and_prefers_what_the_network_scores_higher():
    torch.manual_seed(0)
    attention = AdditiveAttention(3, 4, 5)
    query, vector = torch.randn(2, 3), torch.randn(1, 1, 4)
    keys = attention.keys(vector.expand(2, 6, 4))
    torch.testing.assert_close(attention(query, keys, None), torch.full((2, 6), 1 / 6))
    mask = torch.tensor([[True, True, False, True, False, False]]).expand(2, 6)
    torch.testing.assert_close(attention(query, keys, mask), mask / 3)
    keys = keys.clone()
    keys[:, 3] += 10 * attention.v.weight[0].sign()
    assert attention(query, keys, mask).argmax(1).tolist() == [3, 3]


def test_source_is_projected_once_for_all_steps():
    torch.manual_seed(0)
    model = seq2seq_attention(9, 9, embed_dim=4, hidden_size=6)
    calls = []
    model.decoder.attention.key.register_forward_hook(lambda *_: calls.append(1))
    state = model.encode(torch.randint(9, (2, 5)))
    for _ in range(3):
        _, state = model.decode(torch.randint(9, (2, 2)), state)
    assert len(calls) == 1


def test_weights_start_as_in_the_paper():
    torch.manual_seed(0)
    model = seq2seq_attention(50, 50)
    attention = model.decoder.attention
    for matrix in (attention.query.weight, attention.key.weight):
        assert matrix.std().item() == pytest.approx(0.001, rel=0.05)
    for weights in (model.encoder.rnn.weight_hh_l0_reverse, model.decoder.rnn.weight_hh_l0):
        for gate in weights.detach().chunk(3):
            torch.testing.assert_close(gate @ gate.T, torch.eye(512), atol=1e-5, rtol=0)
    assert model.decoder.fc_out.weight.std().item() == pytest.approx(0.01, rel=0.05)


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
    model = seq2seq_attention(9, 9, embed_dim=16, hidden_size=32, dropout=0.0)
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
    assert (logits.argmax(2) == target)[is_token].float().mean() > 0.95
    looked_at = model.attention_maps(source, inputs, lengths)["attention"][:, 0].argmax(2)
    mirrored = lengths.unsqueeze(1) - 1 - torch.arange(5)
    assert (looked_at == mirrored)[is_token].float().mean() > 0.9
