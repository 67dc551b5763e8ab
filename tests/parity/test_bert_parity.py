import pytest
import torch
from torch import nn

from zoo.layers.attention import padding_mask
from zoo.models.transformer.bert import BertForMaskedLM, BertForSequenceClassification, BertModel

transformers = pytest.importorskip(
    "transformers", reason="parity with Hugging Face's BERT needs transformers"
)
pytestmark = pytest.mark.parity

LENGTHS = torch.tensor([9, 5, 1])
SIZES = {"vocab_size": 23, "sequence_length": 12, "embed_dim": 16, "num_heads": 4, "mlp_dim": 24}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module):
    """Biases start at 0 and normalisations at 1 and 0, where a mistake would not show."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def config(**options):
    return transformers.BertConfig(
        vocab_size=23,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **options,
    )


OPTIONS = {"num_layers": 2, "dropout": 0.0, "attention_dropout": 0.0}


def bert(**options):
    return BertModel(**SIZES, **OPTIONS, **options)


PAIRS = {
    "encoder": (
        bert,
        transformers.BertModel,
        lambda output: (output.last_hidden_state, output.pooler_output),
    ),
    "masked_words": (
        lambda: BertForMaskedLM(**SIZES, **OPTIONS),
        transformers.BertForMaskedLM,
        lambda output: output.logits,
    ),
    "classifier": (
        lambda: BertForSequenceClassification(num_classes=3, **SIZES, **OPTIONS),
        transformers.BertForSequenceClassification,
        lambda output: output.logits,
    ),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """Ours, theirs, and what of their output is ours."""
    ours, theirs, output = PAIRS[request.param]
    return ours().double().eval(), theirs(config(num_labels=3)).double().eval(), output


def same(ours, theirs, output_of, padded, with_types):
    """Compares outputs and the gradients of all parameters, at the tokens that are not padding."""
    tokens, types = torch.randint(1, 23, (3, 9)), torch.randint(2, (3, 9))
    visible = padding_mask(LENGTHS, 9) if padded else torch.ones(3, 9, dtype=torch.bool)
    types = types if with_types else None
    lengths = LENGTHS if padded else None
    expected = output_of(
        theirs(tokens, attention_mask=visible.long() if padded else None, token_type_ids=types)
    )
    results = []
    for model, outputs in ((ours, ours(tokens, lengths, types)), (theirs, expected)):
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        kept = [out[visible] if out.ndim == 3 else out for out in outputs]
        loss = sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in kept)
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        results.append((kept, dict(zip(names, gradients, strict=True))))
    torch.testing.assert_close(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("with_types", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_hugging_faces_loads_strictly_with_equal_outputs_and_gradients(pair, padded, with_types):
    ours, theirs, output = pair
    randomised(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    same(ours, theirs, output, padded, with_types)


def test_ours_loads_strictly_into_hugging_faces(pair):
    ours, theirs, output = pair
    randomised(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    same(ours, theirs, output, padded=True, with_types=True)


def test_parameters_have_the_same_names_and_sharing(pair):
    ours, theirs, _ = pair
    shapes = [{n: p.shape for n, p in model.named_parameters()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_attention_maps_are_hugging_faces():
    ours, theirs = (
        bert().double().eval(),
        transformers.BertModel(config(attn_implementation="eager")),
    )
    randomised(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    tokens, visible = torch.randint(1, 23, (3, 9)), padding_mask(LENGTHS, 9)
    expected = theirs(tokens, attention_mask=visible.long(), output_attentions=True).attentions
    maps = ours.attention_maps(tokens, LENGTHS)
    assert list(maps) == ["layer.0", "layer.1"]
    torch.testing.assert_close(tuple(maps.values()), expected)
