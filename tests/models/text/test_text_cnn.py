import pytest
import torch
from torch import nn

from zoo.models.text.text_cnn import TextCNN, text_cnn

LENGTHS = torch.tensor([4, 7, 1, 6])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**options):
    return TextCNN(9, 3, embed_dim=6, num_filters=4, **options).double()


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameter_counts_are_those_of_the_papers_setting():
    model = text_cnn()
    assert count(model.embedding) == 18_765 * 300
    assert count(model.convs) == (3 + 4 + 5) * 300 * 100 + 3 * 100
    assert count(model.output) == 300 * 2 + 2
    assert count(model) == 5_990_402


def windows_one_by_one(model, sentence):
    """The strongest answers to one sentence ``(time,)``, from nothing but scalar products."""
    found = []
    for conv in model.convs:
        size = conv.kernel_size[0]
        zeros = torch.zeros(size - 1, model.embedding.embedding_dim, dtype=torch.double)
        words = torch.cat([zeros, model.embedding.weight[sentence], zeros])
        for weight, bias in zip(conv.weight, conv.bias, strict=True):  # (embed, size) of a filter
            answers = [
                torch.dot(words[i : i + size].flatten(), weight.T.flatten()) + bias
                for i in range(len(words) - size + 1)
            ]
            found.append(torch.stack(answers).max().clamp_min(0))
    return torch.stack(found)


def test_each_filter_answers_as_window_after_window_does_gradients_included():
    model = small().eval()
    tokens = torch.randint(9, (4, 7))
    output = model(tokens, LENGTHS)
    expected = torch.stack(
        [
            model.output.weight @ windows_one_by_one(model, row[:length]) + model.output.bias
            for row, length in zip(tokens, LENGTHS.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(output, expected)
    weights = list(model.parameters())
    gradients = (torch.autograd.grad(y.square().sum(), weights) for y in (output, expected))
    torch.testing.assert_close(*gradients)


def test_padding_changes_nothing_about_a_sentence_nor_has_it_a_gradient():
    model = small().eval()
    for conv in model.convs:  # so that an empty window would be stronger than most
        nn.init.constant_(conv.bias, 1.0)
    tokens = torch.randint(8, (4, 7))
    output = model(tokens, LENGTHS)
    ended = torch.arange(7) >= LENGTHS.unsqueeze(1)
    longer = nn.functional.pad(tokens.masked_fill(ended, 8), (0, 5), value=8)
    changed = model(longer, LENGTHS)
    torch.testing.assert_close(changed, output)
    (gradient,) = torch.autograd.grad(changed.square().sum(), model.embedding.weight)
    assert not gradient[8].any() and gradient[:8].any()
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(model(tokens[row : row + 1, :length])[0], output[row])


def test_it_matters_which_phrases_there_are_and_not_in_which_order():
    model = small(kernel_sizes=(2,)).eval()
    sentences = [[0, 1, 2, 0, 0, 3, 4, 0], [0, 3, 4, 0, 0, 1, 2, 0], [0, 2, 1, 0, 0, 3, 4, 0]]
    first, swapped, other = model(torch.tensor(sentences))
    torch.testing.assert_close(first, swapped)
    assert not torch.allclose(first, other)


def test_dropout_acts_in_training_only():
    model = small()
    tokens = torch.randint(9, (2, 7))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_handful_of_padded_sentences_is_learned_by_heart():
    model = TextCNN(9, 4, embed_dim=16, num_filters=16)
    tokens, lengths = torch.randint(9, (8, 7)), torch.tensor([3, 7, 5, 4, 7, 6, 3, 5])
    targets = torch.arange(8) % 4
    optimizer = torch.optim.Adadelta(model.parameters(), rho=0.95)
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(tokens, lengths), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert nn.functional.cross_entropy(model.eval()(tokens, lengths), targets) < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"embed_dim": 0}, "embed_dim must be at least 1, not 0"),
        ({"kernel_sizes": ()}, r"kernel_sizes must name at least one size, not \(\)"),
        ({"kernel_sizes": (3, 0)}, r"kernel_sizes must be at least 1, not \(3, 0\)"),
        ({"num_filters": 0}, "num_filters must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        TextCNN(**{"vocab_size": 9} | arguments)


@pytest.mark.parametrize("lengths", [[6, 3], [6, 3, 7], [6, 3, 0], [6.0, 3.0, 1.0]])
def test_lengths_of_another_batch_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths must be 3 whole numbers from 1 to 6, not"):
        small()(torch.randint(9, (3, 6)), torch.tensor(lengths))
