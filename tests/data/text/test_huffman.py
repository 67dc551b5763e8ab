import heapq
import itertools

import pytest
import torch

from zoo.data.text.huffman import huffman_tree


def cost_by_heap(counts):
    """The least sum of counts times depths: that of all merges, by the other algorithm."""
    heap, cost = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, merged)
        cost += merged
    return cost


def some_counts(num_words, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 400, (num_words,), generator=generator)


def codes(tree):
    return ["".join("LR"[s < 0] for s in row if s != 0) for row in tree.signs.tolist()]


@pytest.mark.parametrize("num_words", [2, 3, 5, 64, 500])
def test_no_code_is_the_beginning_of_another_and_all_room_is_used(num_words):
    found = codes(huffman_tree(some_counts(num_words)))
    assert sum(2.0 ** -len(code) for code in found) == 1  # Kraft's inequality, with equality
    ordered = sorted(found)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered))


@pytest.mark.parametrize("num_words", [2, 3, 5, 64, 500])
def test_mean_length_is_the_least_possible(num_words):
    for seed in range(5):
        counts = some_counts(num_words, seed)
        lengths = huffman_tree(counts).signs.ne(0).sum(1)
        assert (lengths * counts).sum().item() == cost_by_heap(counts.tolist())


def test_equal_counts_give_equal_depths():
    assert huffman_tree(torch.ones(16)).signs.shape == (16, 4)


def test_depth_grows_with_the_vocabulary_where_counts_double():
    lengths = huffman_tree(2 ** torch.arange(8)).signs.ne(0).sum(1)
    assert lengths.tolist() == [7, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("num_words", [2, 7, 100])
def test_paths_go_from_the_root_through_every_inner_node(num_words):
    tree = huffman_tree(some_counts(num_words))
    is_on_path = tree.signs != 0
    assert tree.nodes.dtype == torch.int64 and tree.signs.dtype == torch.float32
    assert (tree.nodes[:, 0] == num_words - 2).all()
    assert tree.nodes[is_on_path].unique().tolist() == list(range(num_words - 1))
    assert not tree.nodes[~is_on_path].any()
    # The padding is at the end, and a path goes down: children are older than their parents.
    assert (is_on_path[:, 1:] <= is_on_path[:, :-1]).all()
    goes_down = tree.nodes[:, 1:] < tree.nodes[:, :-1]
    assert goes_down[is_on_path[:, 1:]].all()


def test_probabilities_of_all_words_add_up_to_one_whatever_the_scores():
    tree = huffman_tree(some_counts(300))
    scores = torch.randn(299, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turns = (tree.signs * scores[tree.nodes]).sigmoid()
    p = turns.where(tree.signs != 0, 1).prod(1)  # (words,)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("counts", [[3], [], [2, -1], [[1, 2], [3, 4]]], ids=str)
def test_what_is_no_vocabulary_is_refused(counts):
    with pytest.raises(ValueError, match=r"^counts must be two or more non-negative numbers"):
        huffman_tree(torch.tensor(counts))
