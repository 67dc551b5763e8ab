"""Binary decisions that stand in for a softmax over all words: negatives, or turns in a tree."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.data.text.huffman import huffman_tree
from zoo.data.text.word_sampling import NoiseDistribution

Output = Literal["negative_sampling", "hierarchical_softmax"]


class WordBatch(NamedTuple):
    """Binary decisions that predict words; each row belongs to one target word.

    Attributes:
        inputs: skip-gram: the center word, int64 ``(batch,)``; CBOW: its context, -1 where there
            are fewer words, int64 ``(batch, 2 * window)``.
        outputs: rows of the output matrix, int64 ``(batch, rows)``: the target word and the
            negatives, or the nodes on the path to the target word.
        signs: 1 for the target word (or a left turn), -1 for a negative (or a right turn), 0 for
            what is not counted; float32 ``(batch, rows)``.
        is_tree: whether the rows are nodes, so that a row's decisions make up a probability.
    """

    inputs: Tensor
    outputs: Tensor
    signs: Tensor
    is_tree: bool


class Decisions:
    """Which rows of the output matrix a target word concerns, and with which signs.

    Args:
        counts: how often each word occurs in what is trained on, ``(words,)``.
        output: the output layer.
        num_negatives: negatives drawn for each target word.
    """

    def __init__(self, counts: Tensor, output: Output, num_negatives: int) -> None:
        self._num_negatives = num_negatives
        self._noise = NoiseDistribution(counts)
        self._tree = huffman_tree(counts) if output == "hierarchical_softmax" else None
        self._signs = torch.tensor([1.0] + [-1.0] * num_negatives)

    @property
    def is_tree(self) -> bool:
        """Whether the rows are nodes of a tree."""
        return self._tree is not None

    def draw(self, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of the output matrix and their signs for target words ``(batch,)``.

        Returns:
            Both ``(batch, rows)``; the tree needs no draws.
        """
        if self._tree is not None:
            return self._tree.nodes[targets], self._tree.signs[targets]
        negatives = self._noise.draw(len(targets), self._num_negatives, generator=generator)
        outputs = torch.cat([targets.unsqueeze(1), negatives], 1)  # (batch, 1 + num_negatives)
        return outputs, self._signs.expand(len(targets), -1)
