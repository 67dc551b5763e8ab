r"""The Huffman tree of a vocabulary: the path of binary decisions that leads to each word.

Huffman 1952, "A method for the construction of minimum-redundancy codes",
https://doi.org/10.1109/JRPROC.1952.273898; for hierarchical softmax as in Mikolov et al. 2013,
https://arxiv.org/abs/1310.4546. The two rarest words become the children of a node that counts as
both together, and so on until one node is left, the root: frequent words have short paths, and no
tree has shorter ones on average. (It is not a search tree: nothing in it is sorted.)
"""

from typing import NamedTuple

import torch
from torch import Tensor


class HuffmanTree(NamedTuple):
    r"""For each word the nodes from the root down and the turns taken there.

    With :math:`\sigma(s_n)` the probability of turning left at node n, a word's is
    :math:`p(w) = \prod_j \sigma(\mathrm{sign}_j s_{n_j})`, and those of all words add up to 1
    whatever the scores.

    Attributes:
        nodes: inner nodes by number, the root's the highest; int64 ``(words, depth)``, 0 beyond the
            end of a path.
        signs: 1 for left, -1 for right, 0 beyond the end of a path; float32 ``(words, depth)``.
    """

    nodes: Tensor
    signs: Tensor


def huffman_tree(counts: Tensor) -> HuffmanTree:
    """Builds the tree in O(V log V) for V words; it has V - 1 inner nodes.

    Args:
        counts: how often each word occurs, ``(words,)``.

    Raises:
        ValueError: if there are fewer than two words, or a count is negative.
    """
    if counts.ndim != 1 or len(counts) < 2 or bool((counts < 0).any()):
        raise ValueError(f"counts must be two or more non-negative numbers, not {counts}")
    parent, sign = _parents(counts)
    return _paths(parent, sign, len(counts))


def _parents(counts: Tensor) -> tuple[Tensor, Tensor]:
    """The parent of every leaf, then of every inner node but the root, and left or right.

    Inner nodes are created in the order of their counts, so the rarest node is always at the
    head of one of two queues: the sorted leaves and the inner nodes so far.
    """
    num_words = len(counts)
    order = counts.argsort(stable=True).tolist()
    weights = counts.tolist()
    parent, sign = [0] * (2 * num_words - 2), [0.0] * (2 * num_words - 2)
    leaf, inner = 0, num_words  # heads of the queues; inner node n is at num_words + n
    for node in range(num_words, 2 * num_words - 1):
        total = 0
        for turn in (1.0, -1.0):
            # Of equal counts the leaf first, which keeps the longest path short.
            has_inner = inner < node
            if leaf < num_words and not (has_inner and weights[inner] < weights[order[leaf]]):
                child, leaf = order[leaf], leaf + 1
            else:
                child, inner = inner, inner + 1
            parent[child], sign[child] = node, turn
            total += weights[child]
        weights.append(total)
    return torch.tensor(parent), torch.tensor(sign)


def _paths(parent: Tensor, sign: Tensor, num_words: int) -> HuffmanTree:
    """Walks from all leaves to the root at once, and reverses the paths."""
    root = len(parent)
    place, nodes, signs = torch.arange(num_words), [], []
    while bool((place != root).any()):
        below = place.clamp(max=root - 1)
        is_below = place != root
        nodes.append(torch.where(is_below, parent[below] - num_words, 0))
        signs.append(torch.where(is_below, sign[below], 0.0))
        place = torch.where(is_below, parent[below], root)
    upwards = torch.stack(nodes, 1), torch.stack(signs, 1)  # (words, depth) each
    depth = upwards[1].shape[1]
    length = upwards[1].ne(0).sum(1, keepdim=True)  # (words, 1)
    step = length - 1 - torch.arange(depth)  # (words, depth); negative beyond the end
    nodes_down, signs_down = (
        torch.where(step >= 0, part.gather(1, step.clamp(min=0)), 0) for part in upwards
    )
    return HuffmanTree(nodes_down, signs_down)
