"""Exported by `torch.export` with a batch of any size, a network computes what it computes.

Lengths included, in any order: in a graph there is no packing of sequences.
"""

import pytest
import torch
from torch.export import Dim, export

from zoo.models.recurrent.bahdanau import seq2seq_attention
from zoo.models.recurrent.cho import seq2seq_gru
from zoo.models.recurrent.language_model import RecurrentLanguageModel
from zoo.models.recurrent.luong import seq2seq_luong
from zoo.models.recurrent.seq2seq import seq2seq_lstm
from zoo.models.recurrent.sequence_heads import rnn_classifier, rnn_regressor, rnn_tagger
from zoo.models.recurrent.tcn import tcn_classifier
from zoo.models.recurrent.tcn_language_model import char_tcn
from zoo.models.recurrent.vector_to_sequence import vector_to_sequence


def tokens(batch):
    return (torch.randint(9, (batch, 4)),)


def steps(batch):
    return torch.randn(batch, 4, 2), torch.arange(batch) * 3 % 4 + 1


def translation(batch):
    return *tokens(batch), *tokens(batch), torch.arange(batch) * 3 % 4 + 1


SIZES = {"embed_dim": 4, "hidden_size": 6}
CASES = {
    "lstm": (lambda: RecurrentLanguageModel(9, **SIZES), tokens),
    "gru": (lambda: RecurrentLanguageModel(9, kind="gru", **SIZES), tokens),
    "gru_written": (
        lambda: RecurrentLanguageModel(9, kind="gru", backend="written", **SIZES),
        tokens,
    ),
    "classifier": (
        lambda: rnn_classifier(3, in_features=2, hidden_size=6, num_layers=2, bidirectional=True),
        steps,
    ),
    "classifier_max": (
        lambda: rnn_classifier(3, in_features=2, hidden_size=6, kind="gru", pooling="max"),
        steps,
    ),
    "regressor_mean": (
        lambda: rnn_regressor(2, hidden_size=6, kind="gru_paper", pooling="mean"),
        steps,
    ),
    "tagger": (lambda: rnn_tagger(3, in_features=2, hidden_size=6), steps),
    "tcn_classifier": (lambda: tcn_classifier(3, in_features=2), steps),
    "char_tcn": (lambda: char_tcn(9), tokens),
    "vector_to_sequence": (
        lambda: vector_to_sequence(3, sequence_length=4, feedback=True, hidden_size=6),
        lambda batch: (torch.randn(batch, 3),),
    ),
    "seq2seq_lstm": (lambda: seq2seq_lstm(9, 9, **SIZES), translation),
    "seq2seq_gru": (lambda: seq2seq_gru(9, 9, **SIZES), translation),
    "seq2seq_attention": (lambda: seq2seq_attention(9, 9, **SIZES), translation),
    "seq2seq_luong": (lambda: seq2seq_luong(9, 9, **SIZES), translation),
}


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("build, inputs", CASES.values(), ids=CASES.keys())
def test_exported_network_equals_the_network_at_another_batch_size(build, inputs):
    torch.manual_seed(0)
    model, first, other = build().eval(), inputs(3), inputs(5)
    batch = Dim("batch")
    exported = export(model, first, dynamic_shapes=tuple({0: batch} for _ in first)).module()
    torch.testing.assert_close(first_of(exported(*other)), first_of(model(*other)))
