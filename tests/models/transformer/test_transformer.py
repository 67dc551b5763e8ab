import copy
import math

import pytest
import torch
from torch import nn

from zoo.layers.attention import recorded_attention
from zoo.models.transformer.transformer import (
    EncoderDecoder,
    Transformer,
    sinusoids,
    transformer_base,
    transformer_big,
    transformer_multi30k,
)

LENGTHS = torch.tensor([7, 4, 2])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(source=11, target=9, **options):
    """A network of 2 + 2 layers whose every parameter matters from the start."""
    sizes = {"embed_dim": 16, "num_heads": 4, "num_encoder_layers": 2, "num_decoder_layers": 2}
    model = Transformer(source, target, mlp_dim=24, **sizes, **options)
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    return model.double().eval()


def sentences():
    return torch.randint(11, (3, 7)), torch.randint(9, (3, 6))


OPTIONS = {
    "paper": {},
    "norm_first": {"norm_first": True},
    "final_norm": {"final_norm": True},
    "tied": {"tie_output": True},
    "shared": {"share_embeddings": True, "source": 9},
}
each = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def parameters(build, *arguments, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in build(*arguments, **options).parameters())


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_parameter_counts():
    assert parameters(transformer_base) == 63_082_496
    assert parameters(transformer_big) == 214_245_376
    assert parameters(EncoderDecoder, final_norm=True) == 44_140_544
    assert parameters(EncoderDecoder, final_norm=True) == parameters(nn.Transformer)
    with torch.device("meta"):  # Heads, of which no parameter tells.
        for build, num_heads in ((transformer_base, 8), (transformer_big, 16)):
            assert build().stacks.encoder.layers[0].self_attn.num_heads == num_heads
    # The public recipe learns 100 positions for either side, and a bias of the output.
    assert parameters(transformer_multi30k) + 2 * 100 * 256 + 5893 == 9_038_341


def test_positions_are_the_papers_formula_and_offsets_are_rotations():
    table = sinusoids(50, 12).double()
    for time in (0, 1, 49):
        for i in range(6):
            angle = time / 10000 ** (2 * i / 12)
            assert table[time, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[time, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    products = table @ table.T  # depend on the distance alone
    torch.testing.assert_close(products[3, 10], products[33, 40], atol=1e-5, rtol=0)


def test_embedding_is_scaled_and_has_its_position_added():
    model = small()
    tokens = torch.randint(11, (2, 5))
    expected = model.source_embedding.weight[tokens] * 4 + sinusoids(5, 16)
    torch.testing.assert_close(model._embed(tokens, model.source_embedding), expected)


def test_positions_go_on_beyond_any_table_and_are_not_stored():
    model = small()
    expected = torch.cat([model.positions, sinusoids(700, 16)[512:].double()])
    source = torch.randint(11, (1, 700))
    assert model(source, source[:, :3] % 9).isfinite().all()
    torch.testing.assert_close(model.positions[:700], expected)
    assert not [name for name in model.state_dict() if "position" in name]


@each
def test_later_target_tokens_change_nothing_before_them(options):
    model = small(**options)
    source, target = sentences()
    source = source % 9
    logits = model(source, target)
    for time in range(target.size(1)):
        other = target.clone()
        other[:, time:] = (other[:, time:] + 1) % 9
        changed = model(source, other)
        assert torch.equal(changed[:, :time], logits[:, :time])
        assert not torch.isclose(changed[:, time], logits[:, time]).all(-1).any()


@each
@pytest.mark.parametrize("steps", [(1, 1, 1, 1, 1, 1), (3, 1, 2), (6,)])
def test_decoding_step_by_step_equals_one_pass(options, steps):
    model = small(**options)
    source, target = sentences()
    source = source % 9
    with torch.no_grad():
        state, outputs = model.encode(source, LENGTHS), []
        for tokens in target.split(steps, dim=1):
            logits, state = model.decode(tokens, state)
            outputs.append(logits)
        torch.testing.assert_close(torch.cat(outputs, 1), model(source, target, LENGTHS))


def test_decoding_goes_on_beyond_the_first_room_of_the_cache():
    model = small()
    source, target = torch.randint(11, (2, 5)), torch.randint(9, (2, 75))
    with torch.no_grad():
        state = model.encode(source)
        steps = [model.decode(target[:, t : t + 1], state)[0] for t in range(75)]
        torch.testing.assert_close(torch.cat(steps, 1), model(source, target))


def test_reordered_state_goes_on_from_other_rows_and_leaves_the_first_alone():
    model = small()
    source, target = sentences()
    rows = torch.tensor([2, 0, 0, 1, 2])
    following = torch.randint(9, (5, 2))
    with torch.no_grad():
        _, state = model.decode(target[:, :4], model.encode(source, LENGTHS))
        reordered = model.reorder(state, rows)
        logits, _ = model.decode(following, reordered)
        whole = torch.cat([target[rows, :4], following], 1)
        expected = model(source[rows], whole, LENGTHS[rows])
        torch.testing.assert_close(logits, expected[:, 4:])
        logits, _ = model.decode(target[:, 4:], state)
        torch.testing.assert_close(logits, model(source, target, LENGTHS)[:, 4:])


@each
def test_padding_changes_nothing(options):
    model = small(**options)
    source, target = sentences()
    source = source % 9
    logits = model(source, target, LENGTHS)
    longer = torch.cat([source, torch.randint(9, (3, 5))], 1)
    for row, length in enumerate(LENGTHS):
        longer[row, length:] = torch.randint(9, (12 - length,))
        alone = model(source[row : row + 1, :length], target[row : row + 1])
        torch.testing.assert_close(logits[row : row + 1], alone)
    torch.testing.assert_close(model(longer, target, LENGTHS), logits)


def test_a_pair_alone_equals_the_pair_in_its_batch():
    model = small()
    source, target = sentences()
    together = model(source, target, LENGTHS)
    alone = [model(source[i : i + 1], target[i : i + 1], LENGTHS[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), together)


def test_empty_source_is_finite_in_value_and_gradient():
    model = small()
    source, target = sentences()
    model(source, target, torch.tensor([7, 0, 3])).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each
def test_written_attention_equals_fused(options):
    model = small(**options)
    source, target = sentences()
    source = source % 9
    with recorded_attention(model):
        written = model(source, target, LENGTHS)
    torch.testing.assert_close(model(source, target, LENGTHS), written)


def test_attention_maps_look_at_the_source_only_where_it_is():
    model = small()
    source, target = sentences()
    maps = model.attention_maps(source, target, LENGTHS)
    assert list(maps) == ["decoder.layers.0", "decoder.layers.1"]
    for weights in maps.values():
        assert weights.shape == (3, 4, 6, 7)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 6).double())
        for row, length in enumerate(LENGTHS):
            assert (weights[row, ..., :length] > 0).all()
            assert (weights[row, ..., length:] == 0).all()


def test_every_parameter_gets_a_gradient():
    for options in OPTIONS.values():
        model = small(**options, dropout=0.1).train()
        source, target = sentences()
        model(source % 9, target, LENGTHS).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().sum() > 0, name


def test_matrices_are_shared_as_asked_for():
    shared = small(9, 9, share_embeddings=True)
    assert shared.source_embedding.weight is shared.target_embedding.weight
    assert shared.output.weight is shared.target_embedding.weight
    tied = small(tie_output=True)
    assert tied.output.weight is tied.target_embedding.weight
    assert tied.source_embedding.weight is not tied.target_embedding.weight
    apart = small()
    assert apart.output.weight is not apart.target_embedding.weight
    copied = copy.deepcopy(shared)
    assert copied.output.weight is copied.source_embedding.weight


@pytest.mark.parametrize("place", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_acts_in_training_only(place):
    model = small(**{"dropout": 0.0, place: 0.5})
    source, target = sentences()
    assert torch.equal(model(source, target), model(source, target))
    model.train()
    assert not torch.allclose(model(source, target), model(source, target))


def test_initial_weights_have_the_stated_deviations():
    model = transformer_multi30k(500, 600)
    attention = model.stacks.encoder.layers[0].self_attn
    for weight in (*attention.in_proj_weight.chunk(3), attention.out_proj.weight):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.02)
        assert weight.abs().max().item() <= math.sqrt(6 / 512)
    assert model.source_embedding.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert all((bias == 0).all() for bias in biases)


def test_a_few_random_pairs_are_learned_by_heart():
    model = Transformer(
        11,
        9,
        embed_dim=32,
        num_heads=4,
        num_encoder_layers=1,
        num_decoder_layers=1,
        mlp_dim=64,
        dropout=0.0,
    )
    source, target = sentences()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        logits = model(source, target[:, :-1], LENGTHS)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 15, "num_heads": 3}, "embed_dim must be even, .* not 15"),
        ({"num_heads": 3}, "num_heads must divide embed_dim 512, not be 3"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"activation_dropout": -0.1}, r"activation_dropout must be in \[0, 1\), not -0.1"),
        ({"num_decoder_layers": 0}, "num_decoder_layers must be at least 1, not 0"),
        (
            {"share_embeddings": True},
            "share_embeddings needs one vocabulary .* of 5 and .* 6 tokens",
        ),
    ],
)
def test_bad_argument_is_refused_with_its_value(options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        Transformer(5, 6, **options)
