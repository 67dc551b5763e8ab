import math

import pytest
import torch
from torch import nn

from zoo.layers.attention import recorded_attention
from zoo.models.transformer.bert import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    bert_base,
    bert_classifier,
    bert_large,
    char_bert,
)

LENGTHS = torch.tensor([7, 4, 1])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


SIZES = {"sequence_length": 9, "num_layers": 2, "embed_dim": 16, "num_heads": 4, "mlp_dim": 24}


def encoder(**options):
    return BertModel(13, **{**SIZES, **options})


KINDS = {
    "masked_words": lambda **options: BertForMaskedLM(13, **{**SIZES, **options}),
    "classifier": lambda **options: BertForSequenceClassification(13, 3, **{**SIZES, **options}),
}
each = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def small(kind, **options):
    """A network whose every parameter matters from the start."""
    model = kind(**options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def tokens():
    return torch.randint(13, (3, 7))


def parameters(build, *arguments, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in build(*arguments, **options).parameters())


def test_parameter_counts():
    assert parameters(BertModel) == 109_482_240
    assert parameters(bert_base) == 109_514_298
    large = {"num_layers": 24, "embed_dim": 1024, "num_heads": 16, "mlp_dim": 4096}
    assert parameters(BertModel, **large) == 335_141_888
    assert parameters(bert_large) == 335_174_458
    assert parameters(char_bert) == 827_462
    with torch.device("meta"):  # Heads, of which no parameter tells.
        for build, num_heads in ((bert_base, 12), (bert_large, 16)):
            assert build().bert.encoder.layer[0].attention["self"].num_heads == num_heads


@each
def test_lengths_of_another_batch_are_refused(kind):
    for lengths in ([7], [7, 4, 8], [7, 4, -1]):
        with pytest.raises(ValueError, match="lengths must be 3 whole numbers from 0 to 7, not"):
            small(kind)(tokens(), torch.tensor(lengths))


def test_a_pooler_is_there_where_it_is_used_and_only_there():
    assert KINDS["masked_words"]().bert.pooler is None
    assert KINDS["classifier"]().bert.pooler is not None


@each
def test_padding_changes_nothing(kind):
    model, x = small(kind), tokens()
    output = model(x, LENGTHS)
    longer = torch.cat([x, torch.randint(13, (3, 2))], 1)
    for row, length in enumerate(LENGTHS):
        longer[row, length:] = torch.randint(13, (9 - length,))
    padded = model(longer, LENGTHS)
    for row, length in enumerate(LENGTHS):
        kept = slice(length if output.ndim == 3 else None)
        alone = model(x[row : row + 1, :length])[0]
        torch.testing.assert_close(output[row][kept], alone)
        torch.testing.assert_close(padded[row][kept], alone)


@each
def test_every_token_counts_from_both_sides(kind):
    model, x = small(kind), tokens()
    output = model(x)
    for time in range(7):
        other = x.clone()
        other[:, time] = (other[:, time] + 1) % 13
        assert not torch.isclose(model(other), output).all(-1).any()


@each
def test_written_attention_equals_fused(kind):
    model, x = small(kind), tokens()
    with recorded_attention(model):
        written = model(x, LENGTHS)
    torch.testing.assert_close(model(x, LENGTHS), written)


@each
def test_an_empty_sequence_is_finite_in_value_and_gradient(kind):
    model = small(kind)
    model(tokens(), torch.tensor([7, 0, 3])).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each
def test_attention_maps_look_where_there_are_tokens(kind):
    maps = small(kind).attention_maps(tokens(), LENGTHS)
    assert list(maps) == ["layer.0", "layer.1"]
    for weights in maps.values():
        assert weights.shape == (3, 4, 7, 7)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 7).double())
        for row, length in enumerate(LENGTHS):
            assert (weights[row, ..., :length] > 0).all()
            assert (weights[row, ..., length:] == 0).all()


@each
@pytest.mark.parametrize("place", ["dropout", "attention_dropout"])
def test_each_dropout_acts_in_training_only(kind, place):
    model, x = small(kind, **{"dropout": 0.0, "attention_dropout": 0.0, place: 0.5}), tokens()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.allclose(model(x), model(x))


def test_token_types_are_added_and_0_if_not_given():
    model, x = small(KINDS["masked_words"]), tokens()
    types = torch.zeros_like(x)
    assert torch.equal(model(x, token_types=types), model(x))
    types[:, 4:] = 1
    assert not torch.isclose(model(x, token_types=types), model(x)).all(-1).any()


def test_head_shares_the_embedding():
    model = char_bert()
    embedding, head = model.bert.embeddings.word_embeddings, model.cls["predictions"]
    assert head.decoder.weight is embedding.weight
    assert head.bias is head.decoder.bias
    assert model.sequence_length == 64


def test_initial_weights_have_the_stated_deviation():
    model = bert_classifier(500)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            assert module.weight.abs().max().item() <= 0.04
        if isinstance(module, nn.Linear):
            assert (module.bias == 0).all()
    # A normal distribution cut at two deviations has 0.8796 of its deviation left.
    std = model.bert.embeddings.word_embeddings.weight.std().item()
    assert std == pytest.approx(0.8796 * 0.02, rel=0.02)


def test_untrained_network_is_about_undecided():
    logits = char_bert(70).eval()(torch.randint(70, (4, 64)))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(70, (256,)))
    assert loss.item() == pytest.approx(math.log(70), abs=0.1)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match=r"tokens must be at most 9 .*sequence_length.* not 10"):
        encoder()(torch.zeros(1, 10, dtype=torch.int64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads must divide embed_dim 16, not be 5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"attention_dropout": -1}, r"attention_dropout must be in \[0, 1\), not -1"),
        ({"sequence_length": 0}, "sequence_length must be at least 1, not 0"),
        ({"num_token_types": 0}, "num_token_types must be at least 1, not 0"),
    ],
)
def test_bad_argument_is_refused_with_its_value(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_no_class_at_all_is_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        BertForSequenceClassification(13, 0, **SIZES)
