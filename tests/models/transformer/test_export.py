"""Exported by `torch.export` with a batch of any size, a network computes what it computes."""

import pytest
import torch
from torch.export import Dim, export

from zoo.models.transformer.bert import bert_classifier, char_bert
from zoo.models.transformer.gpt import gpt_char
from zoo.models.transformer.llama import llama_char
from zoo.models.transformer.transformer import transformer_multi30k

SMALL = {"embed_dim": 16, "num_heads": 2}


def tokens(*shape):
    return torch.randint(9, shape)


def lengths(batch):
    return torch.arange(batch) % 5 + 1


CASES = {
    "gpt": (lambda: gpt_char(9, sequence_length=6, **SMALL), lambda b: (tokens(b, 6),)),
    "llama": (
        lambda: llama_char(9, sequence_length=6, num_kv_heads=1, mlp_dim=8, **SMALL),
        lambda b: (tokens(b, 6),),
    ),
    "bert": (
        lambda: char_bert(9, sequence_length=6, mlp_dim=8, **SMALL),
        lambda b: (tokens(b, 6), lengths(b)),
    ),
    "bert_classifier": (
        lambda: bert_classifier(9, 3, sequence_length=6, mlp_dim=8, **SMALL),
        lambda b: (tokens(b, 6),),
    ),
    "transformer": (
        lambda: transformer_multi30k(9, 9, mlp_dim=8, **SMALL),
        lambda b: (tokens(b, 6), tokens(b, 4), lengths(b)),
    ),
}


@pytest.mark.parametrize("build, inputs", CASES.values(), ids=CASES.keys())
def test_exported_network_equals_the_network_at_another_batch_size(build, inputs):
    torch.manual_seed(0)
    model, first, other = build().eval(), inputs(3), inputs(5)
    batch = Dim("batch")
    exported = export(model, first, dynamic_shapes=tuple({0: batch} for _ in first)).module()
    torch.testing.assert_close(exported(*other), model(*other))
