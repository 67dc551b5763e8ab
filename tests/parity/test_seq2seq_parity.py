"""The encoder-decoders against their equations, sentence by sentence and step by step.

Nothing is batched, padded, packed or fused here: each sentence is read alone, by `torch.nn`'s cells
or by gates written out, and each step is computed from what its paper says.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.recurrent.bahdanau import seq2seq_attention
from zoo.models.recurrent.cho import seq2seq_gru
from zoo.models.recurrent.luong import seq2seq_luong
from zoo.models.recurrent.seq2seq import seq2seq_lstm

pytestmark = pytest.mark.parity

HIDDEN = 5
LENGTHS = [3, 6, 1]
SMALL = {"embed_dim": 4, "hidden_size": HIDDEN, "dropout": 0.0}


def sentences():
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(1, 11, (3, 6), generator=generator)
    source[torch.arange(6) >= torch.tensor(LENGTHS).unsqueeze(1)] = 0
    return source, torch.randint(1, 9, (3, 4), generator=generator)


def prepared(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.8, 0.8)
    return model.double()


def check(model, by_hand):
    """Equal logits, and equal gradients of every parameter, for a padded batch."""
    source, target = sentences()
    parameters = dict(model.named_parameters())
    ours = model(source, target, torch.tensor(LENGTHS))
    theirs = torch.stack(
        [
            torch.stack(by_hand(parameters, x[:n].tolist(), y.tolist()))
            for x, y, n in zip(source, target, LENGTHS, strict=True)
        ]
    )
    torch.testing.assert_close(ours, theirs)
    slopes = torch.linspace(-1, 1, ours.numel(), dtype=torch.double).view_as(ours)
    gradients = [
        torch.autograd.grad((o * slopes).sum(), list(parameters.values())) for o in (ours, theirs)
    ]
    for name, one, other in zip(parameters, *gradients, strict=True):
        torch.testing.assert_close(one, other, msg=name)


def gates(p, name, suffix, x, h, number):
    """Both products of a recurrent layer, gate by gate."""
    of_input = p[f"{name}.weight_ih_{suffix}"] @ x + p[f"{name}.bias_ih_{suffix}"]
    of_state = p[f"{name}.weight_hh_{suffix}"] @ h + p[f"{name}.bias_hh_{suffix}"]
    return of_input.chunk(number), of_state.chunk(number)


def lstm_step(p, name, x, states):
    """One step through all layers; states is a list of (h, c)."""
    new = []
    for layer, (h, c) in enumerate(states):
        a, b = gates(p, name, f"l{layer}", x, h, 4)
        i, f, g, o = (one + other for one, other in zip(a, b, strict=True))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        x = torch.sigmoid(o) * torch.tanh(c)
        new.append((x, c))
    return x, new


def gru_step(p, name, suffix, x, h):
    (r_x, z_x, n_x), (r_h, z_h, n_h) = gates(p, name, suffix, x, h, 3)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    return (1 - z) * torch.tanh(n_x + r * n_h) + z * h


def zeros():
    return torch.zeros(HIDDEN, dtype=torch.double)


def linear(p, name, x):
    return p[f"{name}.weight"] @ x + p.get(f"{name}.bias", 0)


def pairs_max(x):
    return torch.stack([torch.maximum(x[i], x[i + 1]) for i in range(0, len(x), 2)])


def output(p, features):
    """Linear layer of the concatenated features, after maxout units where there are any."""
    features = torch.cat(features)
    if "decoder.maxout.linear.weight" in p:
        features = pairs_max(linear(p, "decoder.maxout.linear", features))
    return linear(p, "decoder.fc_out", features)


def read_with_lstm(p, source, backwards):
    """A vector for each source token, in the source's order, and the last state."""
    states, vectors = [(zeros(), zeros())] * 2, {}
    order = range(len(source))
    for position in reversed(order) if backwards else order:
        x = p["encoder.embedding.weight"][source[position]]
        vectors[position], states = lstm_step(p, "encoder.rnn", x, states)
    return [vectors[position] for position in order], states


@pytest.mark.parametrize("reverse_source", [False, True])
def test_sutskevers_network_is_its_equations(reverse_source):
    def by_hand(p, source, target):
        _, states = read_with_lstm(p, source, reverse_source)
        logits = []
        for token in target:
            h, states = lstm_step(p, "decoder.rnn", p["decoder.embedding.weight"][token], states)
            logits.append(linear(p, "decoder.fc_out", h))
        return logits

    check(prepared(seq2seq_lstm(11, 9, reverse_source=reverse_source, **SMALL)), by_hand)


@pytest.mark.parametrize("maxout_size", [None, 3])
def test_chos_network_is_its_equations(maxout_size):
    def by_hand(p, source, target):
        context = zeros()
        for token in source:
            x = p["encoder.embedding.weight"][token]
            context = gru_step(p, "encoder.rnn", "l0", x, context)
        s, logits = context, []
        for token in target:
            x = p["decoder.embedding.weight"][token]
            s = gru_step(p, "decoder.rnn", "l0", torch.cat([x, context]), s)
            logits.append(output(p, [x, s, context]))
        return logits

    check(prepared(seq2seq_gru(11, 9, maxout_size=maxout_size, **SMALL)), by_hand)


@pytest.mark.parametrize("maxout_size", [None, 3])
def test_bahdanaus_network_is_its_equations(maxout_size):
    def by_hand(p, source, target):
        embedded = [p["encoder.embedding.weight"][token] for token in source]
        forwards, backwards = [zeros()], [zeros()]
        for x in embedded:
            forwards.append(gru_step(p, "encoder.rnn", "l0", x, forwards[-1]))
        for x in reversed(embedded):
            backwards.append(gru_step(p, "encoder.rnn", "l0_reverse", x, backwards[-1]))
        s = torch.tanh(linear(p, "encoder.fc", torch.cat([forwards[-1], backwards[-1]])))
        memory = [
            torch.cat(both) for both in zip(forwards[1:], reversed(backwards[1:]), strict=True)
        ]
        logits = []
        for token in target:
            energies = [
                linear(p, "decoder.attention.query", s) + linear(p, "decoder.attention.key", h)
                for h in memory
            ]
            scores = [linear(p, "decoder.attention.v", e.tanh()).exp() for e in energies]
            c = sum(score * h for score, h in zip(scores, memory, strict=True)) / sum(scores)
            x = p["decoder.embedding.weight"][token]
            s = gru_step(p, "decoder.rnn", "l0", torch.cat([x, c]), s)
            logits.append(output(p, [s, c, x]))
        return logits

    check(prepared(seq2seq_attention(11, 9, maxout_size=maxout_size, **SMALL)), by_hand)


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
@pytest.mark.parametrize("input_feeding", [False, True])
@pytest.mark.parametrize("reverse_source", [False, True])
def test_luongs_network_is_its_equations(score, input_feeding, reverse_source):
    def compared(p, h, source_vector):
        if score == "dot":
            return h @ source_vector
        key = p["decoder.attention.key.weight"]
        if score == "general":
            return h @ key @ source_vector
        matrix = torch.cat([p["decoder.attention.query.weight"], key], dim=1)
        hidden = torch.tanh(matrix @ torch.cat([h, source_vector]))
        return p["decoder.attention.v.weight"][0] @ hidden

    def by_hand(p, source, target):
        memory, states = read_with_lstm(p, source, reverse_source)
        attentional, logits = zeros(), []
        for token in target:
            x = p["decoder.embedding.weight"][token]
            x = torch.cat([x, attentional]) if input_feeding else x
            h, states = lstm_step(p, "decoder.rnn", x, states)
            scores = [compared(p, h, vector).exp() for vector in memory]
            c = sum(s * vector for s, vector in zip(scores, memory, strict=True)) / sum(scores)
            attentional = torch.tanh(p["decoder.attentional.weight"] @ torch.cat([c, h]))
            logits.append(linear(p, "decoder.fc_out", attentional))
        return logits

    model = seq2seq_luong(
        11,
        9,
        score=score,
        input_feeding=input_feeding,
        reverse_source=reverse_source,
        **SMALL,
    )
    check(prepared(model), by_hand)


class Layers(nn.Module):
    """A bag of torch's own layers under the names of the public recipe."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


def test_checkpoint_of_the_public_recipes_first_lesson_loads_strictly():
    theirs = Layers(
        encoder=Layers(embedding=nn.Embedding(11, 4), rnn=nn.LSTM(4, HIDDEN, 2)),
        decoder=Layers(
            embedding=nn.Embedding(9, 4), rnn=nn.LSTM(4, HIDDEN, 2), fc_out=nn.Linear(HIDDEN, 9)
        ),
    ).double()
    ours = seq2seq_lstm(11, 9, reverse_source=False, **SMALL).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    source, target = sentences()
    _, state = theirs.encoder.rnn(theirs.encoder.embedding(source.T))
    for step, tokens in enumerate(target.T):
        h, state = theirs.decoder.rnn(theirs.decoder.embedding(tokens)[None], state)
        torch.testing.assert_close(ours(source, target)[:, step], theirs.decoder.fc_out(h[0]))


def test_checkpoint_of_the_public_recipes_second_lesson_loads_strictly():
    theirs = Layers(
        encoder=Layers(embedding=nn.Embedding(11, 4), rnn=nn.GRU(4, HIDDEN)),
        decoder=Layers(
            embedding=nn.Embedding(9, 4),
            rnn=nn.GRU(4 + HIDDEN, HIDDEN),
            fc_out=nn.Linear(4 + 2 * HIDDEN, 9),
        ),
    ).double()
    ours = seq2seq_gru(11, 9, **SMALL).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    source, target = sentences()
    _, context = theirs.encoder.rnn(theirs.encoder.embedding(source.T))
    hidden = context
    for step, tokens in enumerate(target.T):
        x = theirs.decoder.embedding(tokens)[None]
        h, hidden = theirs.decoder.rnn(torch.cat([x, context], dim=2), hidden)
        expected = theirs.decoder.fc_out(torch.cat([x, h, context], dim=2))[0]
        torch.testing.assert_close(ours(source, target)[:, step], expected)


def test_checkpoint_of_the_public_recipes_third_lesson_loads_with_its_attention_split():
    theirs = Layers(
        encoder=Layers(
            embedding=nn.Embedding(11, 4),
            rnn=nn.GRU(4, HIDDEN, bidirectional=True),
            fc=nn.Linear(2 * HIDDEN, HIDDEN),
        ),
        decoder=Layers(
            attention=Layers(
                attn=nn.Linear(3 * HIDDEN, HIDDEN), v=nn.Linear(HIDDEN, 1, bias=False)
            ),
            embedding=nn.Embedding(9, 4),
            rnn=nn.GRU(4 + 2 * HIDDEN, HIDDEN),
            fc_out=nn.Linear(4 + 3 * HIDDEN, 9),
        ),
    ).double()
    weights = theirs.state_dict()
    joined = weights.pop("decoder.attention.attn.weight")
    weights["decoder.attention.query.weight"] = joined[:, :HIDDEN]
    weights["decoder.attention.key.weight"] = joined[:, HIDDEN:]
    weights["decoder.attention.key.bias"] = weights.pop("decoder.attention.attn.bias")
    ours = seq2seq_attention(11, 9, **SMALL).double()
    ours.load_state_dict(weights, strict=True)
    source, target = sentences()
    memory, last = theirs.encoder.rnn(theirs.encoder.embedding(source.T))
    s = torch.tanh(theirs.encoder.fc(torch.cat([last[0], last[1]], dim=1)))
    for step, tokens in enumerate(target.T):
        asking = torch.cat([s.expand(len(memory), -1, -1), memory], dim=2)
        scores = theirs.decoder.attention.v(torch.tanh(theirs.decoder.attention.attn(asking)))
        c = (F.softmax(scores, dim=0) * memory).sum(0)
        x = theirs.decoder.embedding(tokens)
        s = theirs.decoder.rnn(torch.cat([x, c], dim=1)[None], s[None])[0][0]
        expected = theirs.decoder.fc_out(torch.cat([s, c, x], dim=1))
        torch.testing.assert_close(ours(source, target)[:, step], expected)
