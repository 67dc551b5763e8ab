"""Batches of nodes and those near them on random walks, for skip-gram."""

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.data.graphs.walks import Walker, pairs
from zoo.data.loading.order import BatchOrder, share
from zoo.data.module import Part
from zoo.data.sampling import seeded_generator
from zoo.data.text.decisions import Decisions, Output, WordBatch


class WalkLoader:
    """Batches of pairs of nodes from walks; a sample is a walk.

    From every node that has an edge, ``walks_per_node`` walks start in each epoch. Training draws
    new ones each time, evaluation has always the same. Their order is a function of (seed, epoch);
    the walks and the negatives of a batch are one of (seed, epoch, batch), whatever the parts.

    Args:
        walker: of the graph.
        counts: how often walks visit each node, ``(nodes,)``, see :func:`node_counts`.
        walks_per_node: see :class:`~zoo.data.graphs.node_walks.NodeWalks`, as for all that follows.
        walk_length: number of nodes of a walk.
        window: largest distance of two nodes of a pair.
        output: the output layer.
        num_negatives: negatives drawn for each pair.
        batch_size: walks in a batch.
        shuffle: whether epochs differ.
        seed: of the draws; evaluation does without it.
        device: where the batches are put. They are made on the CPU, since how many pairs they have
            is known only there.
        part: ``(rank, world)``: give the pairs of these walks, ``None`` if there are none.
    """

    def __init__(
        self,
        walker: Walker,
        counts: Tensor,
        *,
        walks_per_node: int,
        walk_length: int,
        window: int,
        output: Output = "negative_sampling",
        num_negatives: int = 5,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        part: Part = (0, 1),
    ) -> None:
        self._walker = walker
        self._decisions = Decisions(counts, output, num_negatives)
        self._starts = walker.degrees.nonzero().squeeze(1)  # the other nodes have no pairs
        self._length = walk_length
        self._window = window
        self._shuffle = shuffle
        self._seed: int | str = seed if shuffle else "evaluation"
        self._device = torch.device(device)
        self.num_samples = len(self._starts) * walks_per_node
        self._order = BatchOrder(
            self.num_samples, batch_size, shuffle=shuffle, seed=seed, part=part
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """The walks, by number: the k-th walks of all nodes follow one another."""
        return self._order.indices(epoch, batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[WordBatch | None]:
        epoch = epoch if self._shuffle else 0
        for number, samples in enumerate(self._order.batches(epoch, start), start):
            generator = seeded_generator("walks", self._seed, epoch, number)
            yield self._batch(self._starts[samples % len(self._starts)], generator)

    def _batch(self, starts: Tensor, generator: torch.Generator) -> WordBatch | None:
        """This part's pairs of a batch; everything is drawn for the whole batch, then sliced."""
        own = share(len(starts), self._order.part)
        if own.start == own.stop:
            return None
        walks = self._walker.walk(starts, self._length, generator)
        inputs, targets, sizes = pairs(walks, self._window)
        outputs, signs = self._decisions.draw(targets, generator)
        own = slice(int(sizes[: own.start].sum()), int(sizes[: own.stop].sum()))
        return WordBatch(
            inputs[own].to(self._device, non_blocking=True),
            outputs[own].to(self._device, non_blocking=True),
            signs[own].to(self._device, non_blocking=True),
            self._decisions.is_tree,
        )


def node_counts(walker: Walker, walks_per_node: int, walk_length: int) -> Tensor:
    """How often walks visit each node, int64 ``(nodes,)``; a node without edges never.

    They are counted on walks of their own, the same for every seed and epoch: the Huffman tree must
    not change while its nodes are learned.
    """
    starts = walker.degrees.nonzero().squeeze(1)
    counts = torch.zeros_like(walker.degrees)
    generator = seeded_generator("node counts")
    for _ in range(walks_per_node):
        visited = walker.walk(starts, walk_length, generator)
        counts += visited[visited >= 0].bincount(minlength=len(counts))
    return counts
