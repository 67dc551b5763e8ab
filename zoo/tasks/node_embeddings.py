"""Node embeddings: vectors learned from which nodes of a graph are near one another on walks."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.figures.points import nodes_image
from zoo.metrics.silhouette import silhouette
from zoo.tasks.task import Image, Shown
from zoo.tasks.vocabulary import Vocabulary
from zoo.tasks.word_embeddings import WordEmbeddings


class NodeEmbeddings(WordEmbeddings):
    """Word embeddings whose words are nodes, so the loss is theirs.

    Where the nodes have classes, which training never sees, there is a ``silhouette`` besides the
    ``loss``: by how much nodes are nearer to their own class than to the next one.

    Args:
        model: see :class:`~zoo.tasks.word_embeddings.WordEmbeddings`.
        vocabulary: the names of the nodes, from the data.
        classes: of each node, from 0; None if they have none.
        words: the nodes whose nearest neighbours are shown; None for the first ones.
        num_neighbours: how many of each.

    Raises:
        ValueError: as there, or if the classes are fewer than two or not one for each node.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        vocabulary: Vocabulary | None = None,
        classes: tuple[int, ...] | None = None,
        words: tuple[str, ...] | None = None,
        num_neighbours: int = 5,
    ) -> None:
        super().__init__(model, vocabulary=vocabulary, words=words, num_neighbours=num_neighbours)
        if classes is not None and (len(set(classes)) < 2 or min(classes) < 0):
            raise ValueError(
                f"classes must be two or more, numbered from 0, not {sorted(set(classes))}"
            )
        nodes = len(self._vectors())
        if classes is not None and len(classes) != nodes:
            raise ValueError(f"classes must be {nodes}, one for each node, not {len(classes)}")
        self.classes = None if classes is None else torch.tensor(classes)

    def to(self, device: torch.device | str) -> "NodeEmbeddings":
        super().to(device)
        self.classes = None if self.classes is None else self.classes.to(device)
        return self

    def compute(self) -> dict[str, float]:
        values = super().compute()
        if self.classes is not None:
            values["silhouette"] = float(silhouette(self._vectors(), self.classes))
        return values

    def directions(self) -> dict[str, Literal["min", "max"]]:
        known = super().directions()
        return known if self.classes is None else known | {"silhouette": "max"}

    def show(self) -> dict[str, Shown]:
        """What words have, and ``nodes``: in the plane of the two principal components."""
        shown = super().show()
        if self.classes is not None:
            vectors: Tensor = self._vectors()
            nothing = torch.empty(2, 0, dtype=torch.int64)
            draw: Any = partial(nodes_image, vectors, self.classes, nothing, is_classified=False)
            shown["nodes"] = Image(draw)
        return shown
