import pytest
import torch

from zoo.models.recurrent.vector_to_sequence import vector_to_sequence

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
FEEDING = pytest.mark.parametrize("feeding", ["input", "state"])
FEEDBACK = pytest.mark.parametrize("feedback", [False, True])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**arguments):
    return vector_to_sequence(3, 2, sequence_length=5, hidden_size=6, **arguments)


def test_parameter_count_is_the_docstrings():
    assert sum(p.numel() for p in vector_to_sequence(4).parameters()) == 68_737


@FEEDING
@FEEDBACK
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_vector_reaches_every_step_of_a_sequence_of_the_stated_length(kind, feeding, feedback):
    model = small(kind=kind, feeding=feeding, feedback=feedback, num_layers=2)
    vector = torch.randn(4, 3, requires_grad=True)
    output = model(vector)
    assert output.shape == (4, 5, 2)
    for step in range(5):
        (gradient,) = torch.autograd.grad(output[:, step].sum(), vector, retain_graph=True)
        assert gradient.abs().sum() > 0


@FEEDING
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_teacher_who_says_what_the_network_says_changes_nothing(kind, feeding):
    model = small(kind=kind, feeding=feeding, feedback=True, num_layers=2).double()
    vector = torch.randn(4, 3, dtype=torch.double)
    free = model(vector)
    torch.testing.assert_close(model(vector, targets=free), free)


def test_taught_step_follows_from_the_targets_before_it_alone():
    model = small(feedback=True)
    vector, targets = torch.randn(4, 3), torch.randn(4, 5, 2)
    changed = targets.clone()
    changed[:, 2] += 1
    before, after = model(vector, targets=targets), model(vector, targets=changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_output_that_is_fed_back_makes_a_difference():
    with_feedback, without = small(feedback=True), small()
    with torch.no_grad():
        for name, parameter in without.named_parameters():
            other = dict(with_feedback.named_parameters())[name]
            parameter.copy_(other[:, : parameter.size(1)] if parameter.ndim == 2 else other)
    vector = torch.randn(4, 3)
    torch.testing.assert_close(with_feedback(vector)[:, 0], without(vector)[:, 0])
    assert not torch.allclose(with_feedback(vector)[:, 1], without(vector)[:, 1])


@FEEDING
@FEEDBACK
def test_handful_of_sequences_is_learned_by_heart(feeding, feedback):
    model = vector_to_sequence(
        3, sequence_length=6, feeding=feeding, feedback=feedback, hidden_size=32
    )
    vectors, targets = torch.randn(4, 3), torch.rand(4, 6, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss = (model(vectors) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 2e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features must be at least 1, not 0"),
        ({"out_features": 0}, "out_features must be at least 1, not 0"),
        ({"sequence_length": 0}, "sequence_length must be at least 1, not 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"feeding": "both"}, "feeding must be input or state, not 'both'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        vector_to_sequence(**{"in_features": 3, **arguments})


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"vectors \(batch, 3\), not \(4, 5, 3\)"):
        small()(torch.randn(4, 5, 3))
    with pytest.raises(ValueError, match="targets must be None for a network without feedback"):
        small()(torch.randn(4, 3), targets=torch.randn(4, 5, 2))


def test_targets_of_another_shape_are_refused():
    model = small(feedback=True)
    inputs = torch.randn(4, model.in_features)
    time, width = model.sequence_length, model.out_features
    assert model(inputs, None, torch.randn(4, time, width)).shape == (4, time, width)
    for shape in ((4, time + 1, width), (4, time), (3, time, width)):
        with pytest.raises(ValueError, match=rf"targets must be \(4, {time}, {width}\), not"):
            model(inputs, None, torch.randn(shape))
