import itertools
import math
from typing import NamedTuple

import pytest
import torch

from zoo.data.text.huffman import huffman_tree
from zoo.data.text.skip_gram_loader import SkipGramLoader
from zoo.data.text.words import WordVocabulary
from zoo.models.embedding.word2vec import cbow, skip_gram
from zoo.tasks.word_embeddings import WordEmbeddings, decision_loss

NAMES = ["red", "green", "blue", "one", "two", "three", "sun", "moon"]


class Batch(NamedTuple):
    inputs: torch.Tensor
    outputs: torch.Tensor
    signs: torch.Tensor
    is_tree: bool = False


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def drawn(build, num_words=6, dim=3, rows=None):
    """A small network in double precision with an output matrix that is not zero."""
    model = build(num_words, dim, out_features=rows).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def negative_sampling_batch(rows=5, k=3, num_words=6):
    signs = torch.tensor([1.0] + [-1.0] * k).expand(rows, -1)
    return Batch(torch.randint(num_words, (rows,)), torch.randint(num_words, (rows, 1 + k)), signs)


def tree_batch(num_words=6):
    tree = huffman_tree(torch.arange(1, num_words + 1) ** 2)
    words = torch.randint(num_words, (5,))
    return Batch(torch.randint(num_words, (5,)), tree.nodes[words], tree.signs[words], True)


def test_negative_sampling_is_equation_4_of_the_paper():
    model, batch = drawn(skip_gram), negative_sampling_batch()
    v, u = model.embedding.weight, model.output.weight
    total = 0.0
    for word, (true, *negatives) in zip(batch.inputs, batch.outputs, strict=True):
        total -= torch.sigmoid(u[true] @ v[word]).log()
        total -= sum(torch.sigmoid(-u[negative] @ v[word]).log() for negative in negatives)
    loss, count = WordEmbeddings(model).loss(batch)
    torch.testing.assert_close(loss, total / 5)
    assert count == 5


def test_gradients_of_negative_sampling_are_the_closed_form():
    # d/du_o = (sigma(s_o) - t_o) v and d/dv = sum_o (sigma(s_o) - t_o) u_o, with t = 1 for true.
    model, batch = drawn(skip_gram), negative_sampling_batch()
    v, u = model.embedding.weight.detach(), model.output.weight.detach()
    of_v, of_u = torch.zeros_like(v), torch.zeros_like(u)
    for word, rows in zip(batch.inputs, batch.outputs, strict=True):
        for place, row in enumerate(rows):
            error = torch.sigmoid(u[row] @ v[word]) - float(place == 0)
            of_u[row] += error * v[word] / 5
            of_v[word] += error * u[row] / 5
    WordEmbeddings(model).loss(batch)[0].backward()
    torch.testing.assert_close(model.embedding.weight.grad, of_v)
    torch.testing.assert_close(model.output.weight.grad, of_u)


@pytest.mark.parametrize("batch", [negative_sampling_batch, tree_batch])
@pytest.mark.parametrize("build", [skip_gram, cbow])
def test_gradients_equal_finite_differences(build, batch):
    batch = batch()
    model = drawn(build, rows=5 if batch.is_tree else None)
    inputs = batch.inputs
    if build is cbow:
        inputs = torch.stack([inputs, torch.randint(6, (5,)), torch.full((5,), -1)], 1)

    def loss(*weights):
        named = dict(zip(["embedding.weight", "output.weight"], weights, strict=True))
        scores = torch.func.functional_call(model, named, (inputs, batch.outputs))
        return decision_loss(scores, batch.signs)

    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(loss, weights)


def test_hierarchical_softmax_is_minus_the_log_of_a_distribution_over_all_words():
    num_words = 6
    model = drawn(skip_gram, rows=num_words - 1)
    tree = huffman_tree(torch.arange(1, num_words + 1) ** 2)
    task = WordEmbeddings(model)
    word = torch.tensor([2])
    losses = torch.stack(
        [
            task.loss(Batch(word, tree.nodes[[told]], tree.signs[[told]], True))[0]
            for told in range(num_words)
        ]
    )
    assert losses.neg().exp().sum().item() == pytest.approx(1)
    task.evaluate(Batch(word.expand(num_words), *tree, True))
    assert task.compute()["perplexity"] == pytest.approx(losses.mean().exp().item())


def test_loss_begins_at_one_bit_a_decision():
    for k in (1, 5, 15):
        loss, _ = WordEmbeddings(skip_gram(6, 4)).loss(negative_sampling_batch(k=k))
        assert loss.item() == pytest.approx((1 + k) * math.log(2), rel=1e-6)
    batch = tree_batch()
    loss, _ = WordEmbeddings(skip_gram(6, 4, out_features=5)).loss(batch)
    lengths = batch.signs.ne(0).sum(1).double()
    assert loss.item() == pytest.approx(lengths.mean().item() * math.log(2), rel=1e-6)


def test_negative_sampling_is_best_where_scores_are_shifted_mutual_information():
    # Levy and Goldberg 2014, "Neural word embedding as implicit matrix factorization".
    num_words, k = 4, 3
    joint = torch.rand(num_words, num_words, dtype=torch.float64) + 0.1
    joint = joint + joint.T
    joint /= joint.sum()
    marginal = joint.sum(0)
    best = (joint / (marginal.unsqueeze(1) * marginal)).log() - math.log(k)
    scores = best.clone().requires_grad_()
    # The expected loss, with every pair and every negative in proportion to its probability.
    loss = 0.0
    for word, told in itertools.product(range(num_words), repeat=2):
        positive = decision_loss(scores[word, told].view(1, 1), torch.ones(1, 1))
        negative = decision_loss(scores[word, told].view(1, 1), -torch.ones(1, 1))
        loss += joint[word, told] * positive + k * marginal[word] * marginal[told] * negative
    loss.backward()
    torch.testing.assert_close(scores.grad, torch.zeros_like(best), atol=1e-12, rtol=0)


def test_two_uneven_batches_weighted_by_their_counts_equal_one():
    model = drawn(skip_gram)
    task, whole = WordEmbeddings(model), negative_sampling_batch(rows=7)
    parts = [Batch(*(t[s] for t in whole[:3])) for s in (slice(0, 2), slice(2, 7))]
    weighted = sum(loss * count for loss, count in map(task.loss, parts)) / 7
    torch.testing.assert_close(weighted, task.loss(whole)[0])
    for part in parts:
        task.evaluate(part)
    assert task.compute() == {"loss": pytest.approx(weighted.item())}


@pytest.mark.parametrize("kind", ["skip_gram", "cbow"])
@pytest.mark.parametrize("output", ["negative_sampling", "hierarchical_softmax"])
def test_words_of_like_company_become_neighbours(kind, output):
    # Sentences "<a colour> <sun> <a colour>" and "<a number> <moon> <a number>".
    vocabulary = WordVocabulary(NAMES)
    generator = torch.Generator().manual_seed(0)
    words = []
    for _ in range(800):
        group = int(torch.randint(2, (), generator=generator))
        first, last = torch.randint(3, (2,), generator=generator).tolist()
        words += [NAMES[3 * group + first], NAMES[6 + group], NAMES[3 * group + last]]
    tokens = torch.tensor(vocabulary.encode(" ".join(words)))
    counts = torch.bincount(tokens, minlength=len(vocabulary))
    loader = SkipGramLoader(
        tokens, counts, kind=kind, output=output, batch_size=200, window=1, shuffle=True
    )
    rows = len(vocabulary) - (output == "hierarchical_softmax")
    model = {"skip_gram": skip_gram, "cbow": cbow}[kind](len(vocabulary), 8, out_features=rows)
    task = WordEmbeddings(model, vocabulary=vocabulary, words=("red", "two"), num_neighbours=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for epoch in range(5):
        for batch in loader.batches(epoch):
            loss, _ = task.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for group in (NAMES[:3], NAMES[3:6]):
        for word in group:
            near = {name for name, _ in task.neighbours(word)}
            assert near == set(group) - {word}, (word, near)
    lines = task.texts()["neighbours"].splitlines()
    assert [line.split(":")[0] for line in lines] == ["red", "two"]
    assert all("<unk>" not in line for line in lines)


def placed(vectors):
    """A task whose words have the given vectors."""
    vocabulary = WordVocabulary(NAMES)
    model = skip_gram(len(vocabulary), 2)
    with torch.no_grad():
        model.embedding.weight[1:] = torch.tensor(vectors)
    return WordEmbeddings(model, vocabulary=vocabulary, num_neighbours=2)


def test_neighbours_are_near_in_angle_not_in_distance():
    vectors = [[1.0, 0], [9, 1], [0, 1], [0, 5], [-1, 0], [-1, 1], [1, 1], [0, -1]]
    task = placed(vectors)
    found = task.neighbours("red")
    assert [name for name, _ in found] == ["green", "sun"]
    assert found[1][1] == pytest.approx(0.5**0.5)
    assert len(task.neighbours("red", 100)) == 7  # all but itself and <unk>
    assert task.texts()["neighbours"].splitlines()[0] == "red: green 0.99, sun 0.71"
    assert len(task.texts()["neighbours"].splitlines()) == len(NAMES)  # <unk> is no word


def test_an_analogy_is_the_difference_of_unit_vectors_added():
    # Nothing but the direction counts: "green" is "red" turned, twice as long.
    vectors = [[1.0, 0], [2, 2], [0, 3], [-5, 5], [-1, 0], [0, -1], [1, -1], [-1, -1]]
    task = placed(vectors)
    unit = torch.nn.functional.normalize(torch.tensor(vectors), dim=1)
    target = unit[1] - unit[0] + unit[2]
    cosines = torch.nn.functional.cosine_similarity(unit, target.unsqueeze(0))
    cosines[:3] = -2  # the question itself is no answer
    found = task.analogy("red", "green", "blue", 1)
    assert found == [(NAMES[int(cosines.argmax())], pytest.approx(cosines.max().item()))]


def test_embeddings_have_a_label_for_each_row():
    task = placed([[float(i), 1.0] for i in range(8)])
    ((name, (matrix, labels)),) = task.embeddings().items()
    assert name == "words" and labels == ["<unk>", *NAMES]
    assert torch.equal(matrix, task.model.embedding.weight) and not matrix.requires_grad
    assert WordEmbeddings(skip_gram(9, 2)).embeddings() == {}
    assert WordEmbeddings(skip_gram(9, 2)).texts() == {}


def test_predictions_are_probabilities_of_the_decisions():
    model, batch = drawn(skip_gram), negative_sampling_batch()
    task = WordEmbeddings(model)
    torch.testing.assert_close(
        task.predict(batch).double(), model(batch.inputs, batch.outputs).sigmoid()
    )
    torch.testing.assert_close(model(*task.example_inputs(batch)), model(*batch[:2]))


def test_words_that_are_not_there_are_refused():
    vocabulary = WordVocabulary(NAMES)
    model = skip_gram(len(vocabulary), 2)
    with pytest.raises(ValueError, match=r"^words must be in the vocabulary, which lacks grey, x$"):
        WordEmbeddings(model, vocabulary=vocabulary, words=("red", "grey", "x"))
    with pytest.raises(ValueError, match=r"^num_neighbours must be at least 1, not 0"):
        WordEmbeddings(model, num_neighbours=0)
    task = WordEmbeddings(model, vocabulary=vocabulary)
    with pytest.raises(ValueError, match=r"^word must be in the vocabulary, which lacks grey$"):
        task.neighbours("grey")
