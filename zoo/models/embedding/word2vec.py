r"""word2vec: skip-gram and continuous bag of words (Mikolov et al., 2013).

"Efficient estimation of word representations in vector space" (Mikolov, Chen, Corrado and Dean),
https://arxiv.org/abs/1301.3781, and "Distributed representations of words and phrases and their
compositionality" (with Sutskever), https://arxiv.org/abs/1310.4546

A word's vector is learned by telling which words stand around it (skip-gram), or which word stands
between its neighbours (CBOW); words that keep the same company get similar vectors. A softmax over
the vocabulary would be too dear, so a few decisions stand in for it, each a logistic regression on
one row of the output matrix: true word or one of k drawn at random (negative sampling), or left or
right at each node on the way to a word in a Huffman tree (hierarchical softmax).

The networks here are the two matrices and score the rows that they are asked for. Which rows these
are, negatives (`zoo/data/text/skip_gram.py`) or nodes of the tree (`zoo/data/text/huffman.py`), the
data say; the losses are in `zoo/tasks/word_embeddings.py`.

| builder | output | parameters | 10,000 words, 100 wide |
|---|---|---|---|
| `skip_gram`, `cbow` | negative sampling | 2 V d | 2,000,000 |
| `skip_gram`, `cbow` | hierarchical softmax | (2 V - 1) d | 1,999,900 |

Differences from the papers: batches and any optimizer of torch instead of one word at a time in
many unsynchronised threads. Gradients are dense, so a step costs time in proportion to the
vocabulary, which is little up to some 50,000 words. CBOW's mean over n words passes each of them
one n-th of the gradient, as calculus has it; word2vec.c and gensim (by default) pass each word the
whole of it, which is a rate n times as high for the words around.

The matrices of a trained gensim `Word2Vec` are `embedding.weight` (`wv.vectors`, word2vec.c's
`syn0`) and `output.weight` (`syn1neg`; with hierarchical softmax, for gensim's own tree, the rows
of `syn1` but the last, which no node uses).
"""

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset


class Word2Vec(nn.Module):
    r"""Scores of rows of the output matrix, given what stands on the input side.

    .. math:: s_o = u_o^\top h

    with :math:`u_o` a row of ``output`` and :math:`h` made of rows of ``embedding``. As in
    word2vec.c, the embedding starts uniform in :math:`\pm 1 / 2d` and the output matrix at zero:
    every score is zero, every decision undecided, and the first backward reaches the output matrix
    only.

    Args:
        vocab_size: number V of different words.
        embed_dim: width d of their vectors.
        out_features: rows of the output matrix: one for each word (None), or for each of the
            ``vocab_size - 1`` inner nodes of the tree.

    Shape:
        - inputs: int64, see the networks
        - outputs: rows of the output matrix, int64 ``(batch, rows)``
        - output: scores ``(batch, rows)``

    Raises:
        ValueError: if an argument or the shape of the inputs is wrong.
    """

    @deferred_init
    def __init__(
        self, vocab_size: int, embed_dim: int = 100, *, out_features: int | None = None
    ) -> None:
        super().__init__()
        rows = vocab_size if out_features is None else out_features
        check_at_least_one(vocab_size=vocab_size, embed_dim=embed_dim, out_features=rows)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.output = nn.Embedding(rows, embed_dim)

    def init_weights(self) -> None:
        reset(self)
        limit = 0.5 / self.embedding.embedding_dim
        nn.init.uniform_(self.embedding.weight, -limit, limit)
        nn.init.zeros_(self.output.weight)

    def hidden(self, inputs: Tensor) -> Tensor:
        """The vector of each input, ``(batch, embed_dim)``."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        rows = self.output(outputs)  # (batch, rows, embed_dim)
        return torch.einsum("brd,bd->br", rows, self.hidden(inputs))  # (batch, rows)


class SkipGram(Word2Vec):
    r"""From a word to those around it: :math:`h = v_w`, the word's own vector.

    Args:
        vocab_size: see :class:`Word2Vec`.
        embed_dim: see :class:`Word2Vec`.
        out_features: see :class:`Word2Vec`.

    Shape:
        - inputs: the word in the middle, int64 ``(batch,)``
        - outputs: int64 ``(batch, rows)``
        - output: scores ``(batch, rows)``

    Raises:
        ValueError: if an argument or the shape of the inputs is wrong.
    """

    def hidden(self, inputs: Tensor) -> Tensor:
        if inputs.ndim != 1:
            raise ValueError(f"inputs must be one word each, (batch,), not {tuple(inputs.shape)}")
        return self.embedding(inputs)  # (batch, embed_dim)


class CBOW(Word2Vec):
    r"""From the words around to the one in the middle, their order left out of account.

    .. math:: h = \frac{1}{n} \sum_{i=1}^{n} v_{c_i}

    Args:
        vocab_size: see :class:`Word2Vec`.
        embed_dim: see :class:`Word2Vec`.
        out_features: see :class:`Word2Vec`.

    Shape:
        - inputs: the words around, -1 where there are fewer, int64 ``(batch, words)``
        - outputs: int64 ``(batch, rows)``
        - output: scores ``(batch, rows)``

    Raises:
        ValueError: if an argument or the shape of the inputs is wrong.
    """

    def hidden(self, inputs: Tensor) -> Tensor:
        if inputs.ndim != 2:
            raise ValueError(
                f"inputs must be several words each, (batch, words), not {tuple(inputs.shape)}"
            )
        is_word = inputs.ge(0).unsqueeze(2).to(self.embedding.weight.dtype)  # (batch, words, 1)
        vectors = self.embedding(inputs.clamp(min=0)) * is_word  # (batch, words, embed_dim)
        return vectors.sum(1) / is_word.sum(1).clamp(min=1)  # (batch, embed_dim)


def skip_gram(
    vocab_size: int, embed_dim: int = 100, *, out_features: int | None = None
) -> SkipGram:
    """Skip-gram, 100 wide as in word2vec.c; see :class:`SkipGram`."""
    return SkipGram(vocab_size, embed_dim, out_features=out_features)


def cbow(vocab_size: int, embed_dim: int = 100, *, out_features: int | None = None) -> CBOW:
    """Continuous bag of words, 100 wide as in word2vec.c; see :class:`CBOW`."""
    return CBOW(vocab_size, embed_dim, out_features=out_features)
