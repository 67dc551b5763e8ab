"""Word embeddings: vectors learned from which words stand together (skip-gram, CBOW)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.metrics.perplexity import Perplexity
from zoo.tasks.prediction import Values
from zoo.tasks.task import Shown, Task, Text, Vectors
from zoo.tasks.vocabulary import Vocabulary, special_tokens

SHOWN = 10
"""Words whose neighbours are shown where none are named."""


class WordEmbeddings(Task):
    r"""Negative sampling or hierarchical softmax, in nats per predicted word.

    Both are one sum of logistic losses over rows o of the output matrix, with signs of +1 and -1,
    which the data have chosen:

    .. math:: L = -\sum_o \log \sigma(\mathrm{sign}_o \, s_o)

    Negative sampling (Mikolov et al. 2013, https://arxiv.org/abs/1310.4546, equation 4) has +1 for
    the true word and -1 for k drawn ones, so the loss begins at (1 + k) log 2. Hierarchical softmax
    (equation 3) has the turns left and right on the path to the true word, so the loss is
    :math:`-\log p(w)`, and there is a ``perplexity`` besides the ``loss``.

    Args:
        model: ``scores = model(inputs, outputs)``, with the words' vectors in
            ``model.embedding.weight`` (see `zoo/models/embedding/word2vec.py`).
        vocabulary: of the text, from the data. Without it no words are shown.
        words: those whose nearest neighbours are shown; None for the most frequent.
        num_neighbours: how many of each.

    Shape:
        - inputs: whatever the model takes, ``(batch, *)``
        - outputs, signs: ``(batch, rows)``; a sign of 0 is not counted

    Raises:
        ValueError: if a word is not in the vocabulary, or ``num_neighbours`` is below 1.
    """

    predicts = Values
    given = ("vocabulary",)

    def __init__(
        self,
        model: nn.Module,
        *,
        vocabulary: Vocabulary | None = None,
        words: tuple[str, ...] | None = None,
        num_neighbours: int = 5,
    ) -> None:
        super().__init__(model)
        if num_neighbours < 1:
            raise ValueError(f"num_neighbours must be at least 1, not {num_neighbours}")
        self.num_neighbours = num_neighbours
        self.vocabulary = vocabulary
        self.metrics = {"loss": Perplexity()}
        self._is_tree = False
        self._names: list[str] = [] if vocabulary is None else vocabulary.tokens()
        self._numbers = {name: number for number, name in enumerate(self._names)}
        special = self._special()
        first = [n for i, n in enumerate(self._names) if i not in special][:SHOWN]
        self.words = tuple(first) if words is None else words
        if vocabulary is not None:
            self._rows(self.words, "words")

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        inputs, outputs, signs, *_ = batch
        return decision_loss(self.model(inputs, outputs), signs), len(inputs)

    def evaluate(self, batch: Any) -> None:
        inputs, outputs, signs, self._is_tree = batch
        self.metrics["loss"].update(decision_loss(self.model(inputs, outputs), signs), len(inputs))

    def compute(self) -> dict[str, float]:
        values = super().compute()
        if not self._is_tree:
            del values["perplexity"]  # the loss of negative sampling is not that of a distribution
        return values

    def predict(self, batch: Any) -> Values:
        """Probabilities of the decisions, each that of +1: ``(batch, rows)``."""
        return Values(self.model(batch[0], batch[1]).float().sigmoid())

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return tuple(batch[:2])

    def show(self) -> dict[str, Shown]:
        """``neighbours``: a line for each of ``words``, with the cosines; and all the ``words``."""
        if self.vocabulary is None:
            return {}
        shown: dict[str, Shown] = {"words": Vectors(self._vectors(), self._names)}
        lines = []
        for word in self.words:
            near = ", ".join(f"{name} {cosine:.2f}" for name, cosine in self.neighbours(word))
            lines.append(f"{word}: {near}")
        if lines:
            shown["neighbours"] = Text("\n".join(lines))
        return shown

    def neighbours(self, word: str, count: int | None = None) -> list[tuple[str, float]]:
        """The words whose vectors point most nearly where that of a word does.

        Args:
            word: of the vocabulary.
            count: how many; ``num_neighbours`` if None.

        Returns:
            Words and their cosines, from near to far.

        Raises:
            ValueError: the word is not in the vocabulary.
        """
        rows = self._rows([word], "word")
        return self._nearest(self._vectors()[rows[0]], rows, count)

    def analogy(self, a: str, b: str, c: str, count: int | None = None) -> list[tuple[str, float]]:
        r"""The words d for which "a is to b as c is to d" fits best (3CosAdd).

        .. math:: \arg\max_d \cos(v_d,\; \hat v_b - \hat v_a + \hat v_c)

        Mikolov, Yih and Zweig 2013, "Linguistic regularities in continuous space word
        representations", https://aclanthology.org/N13-1090: of unit vectors, and the three words
        themselves are not an answer.

        Raises:
            ValueError: one of the words is not in the vocabulary.
        """
        rows = self._rows([a, b, c], "words")
        unit = F.normalize(self._vectors()[rows], dim=1)  # (3, embed_dim)
        return self._nearest(unit[1] - unit[0] + unit[2], rows, count)

    def _nearest(
        self, vector: Tensor, without: Sequence[int], count: int | None
    ) -> list[tuple[str, float]]:
        cosines = F.normalize(self._vectors(), dim=1) @ F.normalize(vector, dim=0)  # (words,)
        excluded = [*without, *self._special()]
        cosines[torch.tensor(excluded, device=cosines.device)] = -torch.inf
        count = self.num_neighbours if count is None else count
        count = min(count, len(cosines) - len(set(excluded)))
        found = cosines.topk(count)
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [(self._names[row], cosine) for row, cosine in pairs]

    def _vectors(self) -> Tensor:
        return self.model.get_parameter("embedding.weight").detach()

    def _special(self) -> set[int]:
        """Tokens that are not words, and have no vector worth the name."""
        return set() if self.vocabulary is None else set(special_tokens(self.vocabulary))

    def _rows(self, words: Sequence[str], name: str) -> list[int]:
        if unknown := [word for word in words if word not in self._numbers]:
            raise ValueError(f"{name} must be in the vocabulary, which lacks {', '.join(unknown)}")
        return [self._numbers[word] for word in words]


def decision_loss(scores: Tensor, signs: Tensor) -> Tensor:
    r"""The mean over rows of :math:`-\sum_o \log \sigma(\mathrm{sign}_o s_o)`, in nats.

    Args:
        scores: ``(batch, rows)``.
        signs: 1, -1, or 0 for what is not counted; ``(batch, rows)``.
    """
    signs = signs.to(scores.dtype)
    return (F.softplus(-signs * scores) * signs.abs()).sum(1).mean()
