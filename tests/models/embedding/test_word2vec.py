import pytest
import torch
from torch import nn

from zoo.models.embedding.word2vec import CBOW, SkipGram, cbow, skip_gram


def count(model):
    return sum(p.numel() for p in model.parameters())


def trained(model):
    """The output matrix begins at zero, where every score is zero."""
    nn.init.normal_(model.output.weight)
    return model


@pytest.mark.parametrize("build", [skip_gram, cbow])
def test_there_are_two_matrices_and_nothing_else(build):
    assert count(build(10_000)) == 2 * 10_000 * 100 == 2_000_000
    assert count(build(10_000, out_features=9_999)) == 1_999_900
    assert [n for n, _ in build(9, 4).named_parameters()] == ["embedding.weight", "output.weight"]


@pytest.mark.parametrize("build", [skip_gram, cbow])
def test_it_begins_as_word2vec_c_does(build):
    torch.manual_seed(0)
    model = build(5_000, 20)
    weight = model.embedding.weight.detach()
    assert weight.abs().max() <= 0.5 / 20
    assert weight.std().item() == pytest.approx(1 / 20 / 12**0.5, rel=0.02)
    assert not model.output.weight.any()


def test_scores_of_skip_gram_are_products_of_the_two_matrices():
    torch.manual_seed(0)
    model = trained(skip_gram(7, 4))
    words, rows = torch.tensor([3, 0, 3]), torch.tensor([[1, 2], [6, 6], [0, 3]])
    every = model.embedding.weight @ model.output.weight.T  # (words, rows)
    torch.testing.assert_close(model(words, rows), every[words.unsqueeze(1), rows])


def test_cbow_scores_from_the_mean_of_what_is_around_in_any_order():
    torch.manual_seed(0)
    model = trained(cbow(7, 4))
    rows = torch.tensor([[1, 2, 5]])
    scores = model(torch.tensor([[3, 0, 6, -1]]), rows)
    mean = model.embedding.weight[[3, 0, 6]].mean(0)
    torch.testing.assert_close(scores[0], model.output.weight[[1, 2, 5]] @ mean)
    torch.testing.assert_close(model(torch.tensor([[-1, 6, -1, 3, 0]]), rows), scores)


def test_padding_of_cbow_gets_no_gradient():
    model = trained(cbow(5, 3))
    model(torch.tensor([[4, -1], [4, 2]]), torch.tensor([[1], [1]])).sum().backward()
    touched = model.embedding.weight.grad.ne(0).any(1)
    assert touched.tolist() == [False, False, True, False, True]


def test_cbow_of_one_word_is_skip_gram():
    torch.manual_seed(0)
    one, many = trained(SkipGram(6, 4)), CBOW(6, 4)
    many.load_state_dict(one.state_dict())
    words, rows = torch.tensor([2, 5]), torch.tensor([[0, 1], [5, 5]])
    torch.testing.assert_close(many(words.unsqueeze(1), rows), one(words, rows))


def test_first_backward_reaches_the_output_matrix_only():
    torch.manual_seed(0)
    model = skip_gram(6, 4)
    (model(torch.tensor([2]), torch.tensor([[1]])) - 1).square().sum().backward()
    assert not model.embedding.weight.grad.any()
    assert model.output.weight.grad[1].all()


@pytest.mark.parametrize(
    "arguments", [{"vocab_size": 0}, {"embed_dim": 0}, {"out_features": 0}], ids=str
)
def test_an_impossible_size_is_refused_by_name(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, not 0"):
        skip_gram(**{"vocab_size": 5, **arguments})


def test_words_for_the_other_network_are_refused():
    rows = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^inputs must be one word each, \(batch,\), not \(2, 4"):
        skip_gram(5)(torch.zeros(2, 4, dtype=torch.int64), rows)
    with pytest.raises(ValueError, match=r"^inputs must be several words each.*not \(2,\)"):
        cbow(5)(torch.zeros(2, dtype=torch.int64), rows)
