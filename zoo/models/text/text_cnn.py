r"""Convolutional network for sentences (Kim, 2014), known as TextCNN.

"Convolutional neural networks for sentence classification", https://arxiv.org/abs/1408.5882; the
author's code: https://github.com/yoonkim/CNN_sentence

Filters slide over the word vectors of a sentence, each looking for a phrase of three, four or five
words; of every filter only its strongest answer is kept, wherever in the sentence it was. A linear
layer decides from these.

This is the paper's CNN-rand, whose word vectors start at random and are learned. Its other variants
start from vectors that others have trained.

Where a sentence ends: the paper pads "where necessary", the code puts zeros on both sides. Here a
filter of h words sees h - 1 zeros on either side, so that it answers at every window that holds a
word, in a sentence of one word too. What stands behind a shorter sentence of a batch changes
nothing.

Differences from the paper:

- The norm of a row of ``output`` is not kept below s = 3 after each update. The paper multiplies
  by p = 0.5 in evaluation, where torch divides in training, so that its 3 would be 1.5 here.
- Weights start by torch's default, word vectors uniformly in [-0.25, 0.25] as in the code.

| builder | words | parameters |
|---|---|---|
| `text_cnn` | 18,765, those of the sentence polarity data in the paper | 5,990,402 |
"""

from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.attention import padding_mask
from zoo.layers.checks import check_at_least_one, check_lengths, check_probability
from zoo.layers.initialization import deferred_init, reset


class TextCNN(nn.Module):
    r"""The strongest answer of each filter anywhere in the sentence, then a linear decision.

    .. math::
        c_i = \mathrm{ReLU}(w \cdot x_{i : i + h - 1} + b), \quad
        \hat c = \max_i c_i, \quad y = V (\hat c_1, \dots, \hat c_m) + d

    Args:
        vocab_size: number of different words.
        num_classes: width of the output.
        embed_dim: width of a word's vector.
        kernel_sizes: words h that a filter covers.
        num_filters: filters of each size.
        dropout: probability of dropping a filter's answer during training.

    Shape:
        - input: tokens ``(batch, time)`` of type int64; lengths ``(batch,)`` of type int64, None if
          all sentences fill their row
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, or the lengths are not those of the input.
    """

    @deferred_init
    def __init__(
        self,
        vocab_size: int,
        num_classes: int = 2,
        *,
        embed_dim: int = 300,
        kernel_sizes: tuple[int, ...] = (3, 4, 5),
        num_filters: int = 100,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not kernel_sizes:
            raise ValueError("kernel_sizes must name at least one size, not ()")
        check_at_least_one(
            vocab_size=vocab_size,
            num_classes=num_classes,
            embed_dim=embed_dim,
            kernel_sizes=kernel_sizes,
            num_filters=num_filters,
        )
        check_probability(dropout=dropout)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.convs = nn.ModuleList(
            nn.Conv1d(embed_dim, num_filters, size, padding=size - 1) for size in kernel_sizes
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(num_filters * len(kernel_sizes), num_classes)

    def init_weights(self) -> None:
        reset(self)
        nn.init.uniform_(self.embedding.weight, -0.25, 0.25)

    def forward_features(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The strongest answer of each filter: ``(batch, filters)``, those of a size together."""
        batch, time = tokens.shape
        if lengths is None:
            lengths = torch.full((batch,), time)
        check_lengths(lengths, batch=batch, time=time)
        lengths = lengths.to(tokens.device)
        ended = ~padding_mask(lengths, time)  # (batch, time)
        words = self.embedding(tokens).masked_fill(ended.unsqueeze(2), 0)  # (batch, time, embed)
        words = words.transpose(1, 2)  # (batch, embed, time)
        strongest = []
        for conv in self.convs:
            answers = conv(words)  # (batch, filters, windows)
            reach = answers.size(2) - time  # words of a window besides its last
            empty = ~padding_mask(lengths + reach, answers.size(2))  # (batch, windows)
            answers = answers.masked_fill(empty.unsqueeze(1), -torch.inf)
            strongest.append(F.relu(answers.amax(2)))  # (batch, filters)
        return torch.cat(strongest, 1)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.output(self.dropout(self.forward_features(tokens, lengths)))


class TextCNNOptions(TypedDict, total=False):
    """What the builder hands on to :class:`TextCNN`."""

    embed_dim: int
    kernel_sizes: tuple[int, ...]
    num_filters: int
    dropout: float


def text_cnn(
    vocab_size: int = 18_765, num_classes: int = 2, **options: Unpack[TextCNNOptions]
) -> TextCNN:
    """The network for the words of the sentence polarity data: positive or negative."""
    return TextCNN(vocab_size, num_classes, **options)
