"""What holds for every recurrent encoder-decoder, whatever the paper."""

import pytest
import torch
import torch.nn.functional as F

from zoo.models.recurrent.bahdanau import seq2seq_attention
from zoo.models.recurrent.cho import seq2seq_gru
from zoo.models.recurrent.luong import seq2seq_luong
from zoo.models.recurrent.seq2seq import seq2seq_lstm

BUILDERS = {
    "lstm": (seq2seq_lstm, {}),
    "lstm_forwards": (seq2seq_lstm, {"reverse_source": False, "num_layers": 1}),
    "lstm_as_gru": (seq2seq_lstm, {"kind": "gru"}),
    "cho": (seq2seq_gru, {}),
    "cho_maxout": (seq2seq_gru, {"maxout_size": 5, "kind": "gru_paper"}),
    "bahdanau": (seq2seq_attention, {}),
    "bahdanau_maxout": (seq2seq_attention, {"maxout_size": 5, "kind": "gru_paper"}),
    "luong": (seq2seq_luong, {}),
    "luong_dot": (seq2seq_luong, {"score": "dot", "num_layers": 1}),
    "luong_concat": (seq2seq_luong, {"score": "concat", "reverse_source": False}),
    "luong_unfed": (seq2seq_luong, {"input_feeding": False, "kind": "gru"}),
    "luong_concat_unfed": (seq2seq_luong, {"score": "concat", "input_feeding": False}),
}
ATTENTIVE = [name for name in BUILDERS if name.startswith(("bahdanau", "luong"))]
LENGTHS = torch.tensor([4, 7, 1, 5])


def build(name, **arguments):
    """A small network, its weights large enough that everything has an effect."""
    builder, own = BUILDERS[name]
    small = {"embed_dim": 6, "hidden_size": 8, "dropout": 0.0}
    model = builder(11, 9, **(small | own | arguments)).double()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.7, 0.7)
    return model


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(3, 11, (4, 7), generator=generator)
    source[torch.arange(7) >= LENGTHS.unsqueeze(1)] = 0
    return source, torch.randint(1, 9, (4, 5), generator=generator)


def each(names=tuple(BUILDERS)):
    return pytest.mark.parametrize("name", names)


@each()
def test_logits_have_a_row_for_each_target_token(name, batch):
    source, target = batch
    assert build(name)(source, target, LENGTHS).shape == (4, 5, 9)


@each()
@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [2, 3], [4, 1]])
def test_decoding_in_pieces_equals_teacher_forcing_of_the_whole(name, sizes, batch):
    source, target = batch
    model = build(name)
    state, pieces = model.encode(source, LENGTHS), []
    for tokens in target.split(sizes, dim=1):
        logits, state = model.decode(tokens, state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(source, target, LENGTHS))


@each()
def test_decoding_leaves_the_state_that_it_is_given_as_it_was(name, batch):
    source, target = batch
    model = build(name)
    state = model.encode(source, LENGTHS)
    first = model.decode(target, state)[0]
    assert torch.equal(model.decode(target, state)[0], first)


@each()
def test_padding_changes_nothing(name, batch):
    source, target = batch
    model = build(name)
    together = model(source, target, LENGTHS)
    alone = [model(s[None, :n], t[None]) for s, t, n in zip(source, target, LENGTHS, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))
    wider = F.pad(source, (0, 3))
    wider[wider == 0] = 10
    torch.testing.assert_close(model(wider, target, LENGTHS), together)


@each()
def test_lengths_of_a_source_without_padding_are_optional(name, batch):
    source, target = batch
    model = build(name)
    whole = model(source, target, torch.full((4,), 7))
    torch.testing.assert_close(model(source, target), whole)


@each()
def test_gradients_reach_every_parameter_and_none_the_padding(name, batch):
    source, target = batch
    model = build(name)
    model(source, target, LENGTHS).square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key
    assert not model.encoder.embedding.weight.grad[0].any()
    assert model.encoder.embedding.weight.grad[source[0, 0]].any()


@each()
def test_stepwise_gradients_are_those_of_the_whole(name, batch):
    source, target = batch
    model = build(name)
    whole = torch.autograd.grad(model(source, target, LENGTHS).sin().sum(), model.parameters())
    state, loss = model.encode(source, LENGTHS), 0.0
    for tokens in target.split(1, dim=1):
        logits, state = model.decode(tokens, state)
        loss = loss + logits.sin().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, model.parameters()), whole)


@each()
@pytest.mark.parametrize("lengths", [LENGTHS, None])
def test_reordered_state_goes_on_as_if_the_batch_had_been_so(name, lengths, batch):
    source, target = batch
    model = build(name)
    rows = torch.tensor([3, 1, 1, 0, 2, 3])
    _, state = model.decode(target[:, :2], model.encode(source, lengths))
    logits, _ = model.decode(target[rows, 2:], model.reorder(state, rows))
    lengths = None if lengths is None else lengths[rows]
    torch.testing.assert_close(logits, model(source[rows], target[rows], lengths)[:, 2:])


@each()
def test_changing_a_target_token_changes_its_own_and_later_logits_only(name, batch):
    source, target = batch
    model = build(name)
    changed = target.clone()
    changed[:, 2] = (target[:, 2] + 1) % 9
    before, after = model(source, target, LENGTHS), model(source, changed, LENGTHS)
    assert torch.equal(before[:, :2], after[:, :2])
    for step in (2, 3, 4):
        assert not torch.isclose(before[:, step], after[:, step]).all(1).any()


@each()
def test_every_source_token_has_a_say_in_every_logit(name, batch):
    source, target = batch
    model = build(name)
    before = model(source, target, LENGTHS)
    for position in (0, 3, 6):
        changed = source.clone()
        changed[1, position] = (source[1, position] + 1) % 11
        after = model(changed, target, LENGTHS)
        assert not (before[1] == after[1]).all(1).any()
        assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])


@each()
def test_dropout_acts_in_training_only(name, batch):
    source, target = batch
    model = build(name, dropout=0.5)
    assert not torch.equal(model(source, target, LENGTHS), model(source, target, LENGTHS))
    model.eval()
    assert torch.equal(model(source, target, LENGTHS), model(source, target, LENGTHS))


@each()
def test_written_backend_equals_the_fused_one(name, batch):
    source, target = batch
    fused, written = build(name), build(name, backend="written")
    written.load_state_dict(fused.state_dict(), strict=True)
    torch.testing.assert_close(written(source, target, LENGTHS), fused(source, target, LENGTHS))


@each(ATTENTIVE)
def test_attention_adds_up_to_one_over_the_tokens_and_is_zero_at_padding(name, batch):
    source, target = batch
    (maps,) = build(name).attention_maps(source, target, LENGTHS).values()
    assert not maps.requires_grad
    assert maps.shape == (4, 1, 5, 7)
    torch.testing.assert_close(maps.sum(3), torch.ones(4, 1, 5, dtype=torch.double))
    is_token = torch.arange(7) < LENGTHS.unsqueeze(1)
    is_token = is_token[:, None, None].expand_as(maps)
    assert (maps[is_token] > 0).all()
    assert not maps[~is_token].any()


@each(ATTENTIVE)
def test_attention_of_a_sentence_alone_is_that_in_its_batch(name, batch):
    source, target = batch
    model = build(name)
    maps = model.attention_maps(source, target, LENGTHS)["attention"]
    alone = model.attention_maps(source[:1, :4], target[:1])["attention"]
    torch.testing.assert_close(maps[:1, :, :, :4], alone)


@each([name for name in BUILDERS if name not in ATTENTIVE])
def test_networks_without_attention_have_no_maps(name):
    assert not hasattr(build(name), "attention_maps")


@each()
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([4, 7, 1], r"source_lengths must be 4 whole numbers from 1 to 7, not \[4, 7, 1\]"),
        ([4, 7, 0, 5], r"source_lengths must be 4 whole numbers from 1 to 7, not \[4, 7, 0, 5\]"),
        ([4, 8, 1, 5], r"source_lengths must be 4 whole numbers from 1 to 7, not \[4, 8, 1, 5\]"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(name, lengths, message, batch):
    source, target = batch
    with pytest.raises(ValueError, match=message):
        build(name)(source, target, torch.tensor(lengths))


@pytest.mark.parametrize("builder", [seq2seq_lstm, seq2seq_gru, seq2seq_attention, seq2seq_luong])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_vocab_size": 0}, "^source_vocab_size must be at least 1, not 0"),
        ({"target_vocab_size": -1}, "^target_vocab_size must be at least 1, not -1"),
        ({"embed_dim": 0}, "^embed_dim must be at least 1, not 0"),
        ({"hidden_size": 0}, "^hidden_size must be at least 1, not 0"),
        ({"dropout": 1.0}, r"^dropout must be in \[0, 1\), not 1.0"),
        ({"kind": "transformer"}, "^kind must be one of .*gru.*, not 'transformer'"),
    ],
)
def test_nonsense_is_refused_with_the_value(builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        builder(**{"source_vocab_size": 9, "target_vocab_size": 9, **arguments})


@pytest.mark.parametrize("builder", [seq2seq_gru, seq2seq_attention])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maxout_size": 0}, "^maxout_size must be at least 1, not 0"),
        ({"kind": "lstm"}, "^kind must be one of rnn, .* minimal_gru, not 'lstm'"),
    ],
)
def test_gated_networks_refuse_nonsense_of_their_own(builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        builder(9, 9, **arguments)


@pytest.mark.parametrize("builder", [seq2seq_lstm, seq2seq_luong])
def test_stacked_networks_refuse_less_than_a_layer(builder):
    with pytest.raises(ValueError, match=r"^num_layers must be at least 1, not 0"):
        builder(9, 9, num_layers=0)


@pytest.mark.parametrize("kind", ["rnn", "rnn_relu", "gru", "gru_paper", "minimal_gru"])
@pytest.mark.parametrize("name", ["lstm", "cho", "bahdanau", "luong"])
def test_other_recurrent_layers_fit_in(name, kind, batch):
    source, target = batch
    assert build(name, kind=kind)(source, target, LENGTHS).isfinite().all()


@pytest.mark.parametrize("kind", ["peephole_lstm", "layer_norm_lstm"])
@pytest.mark.parametrize("name", ["lstm", "luong"])
def test_other_lstms_fit_in(name, kind, batch):
    source, target = batch
    model = build(name, kind=kind)
    rows = torch.tensor([2, 0])
    logits, _ = model.decode(target[rows], model.reorder(model.encode(source, LENGTHS), rows))
    torch.testing.assert_close(logits, model(source, target, LENGTHS)[rows])


def greedy(model, source, lengths, steps):
    """What the model writes after token 2."""
    tokens, written = torch.full((len(source), 1), 2), []
    state = model.encode(source, lengths)
    for _ in range(steps):
        logits, state = model.decode(tokens, state)
        tokens = logits.argmax(2)
        written.append(tokens)
    return torch.cat(written, dim=1)


@each(["lstm", "cho", "bahdanau", "luong"])
def test_a_handful_of_sequences_is_learned_by_heart_and_written_back(name):
    builder, own = BUILDERS[name]
    torch.manual_seed(0)
    model = builder(9, 9, embed_dim=16, hidden_size=32, dropout=0.0, **own)
    lengths = torch.tensor([4, 3, 2, 4, 3])
    source = torch.randint(4, 9, (5, 4))
    source[torch.arange(4) == lengths.unsqueeze(1) - 1] = 3
    source[torch.arange(4) >= lengths.unsqueeze(1)] = 0
    target = F.pad(source, (1, 0), value=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(120):
        logits = model(source, target[:, :-1], lengths)
        loss = F.cross_entropy(logits.flatten(0, 1), source.flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    is_token = source > 0
    assert torch.equal(greedy(model, source, lengths, 4)[is_token], source[is_token])
