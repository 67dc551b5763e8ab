r"""Entity embeddings of categorical variables (Guo and Berkhahn, 2016).

https://arxiv.org/abs/1604.06737

Each category is a vector that is learned, as words are: categories that act alike come to lie close
together. The vectors of all columns and the numbers, side by side, go through a fully connected
network. Without it (no hidden layers) the embeddings are one-hot columns times a matrix.

Differences from the paper: the outputs are logits or numbers as they are, where the paper has one
sigmoid for a sale that is scaled to [0, 1]; numbers enter as they come, where its code has a weight
for its only one; and a category that training has not seen is the zero vector.

| columns | outputs | parameters |
|---|---|---|
| 2 of 10 categories, 3 numbers | 5 | 525,203 |
| the seven of the paper (1,115 stores, 7 days of the week, 2, 3 years, 12 months, 31 days, 12 \
states), vectors of 10, 6, 1, 2, 6, 10, 6 | 1 | 554,696 |
"""

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset

LARGEST = 10
"""The widest vector of the paper's table of results."""


class EntityEmbeddings(nn.Module):
    r"""Vectors of categories and numbers, then fully connected layers.

    .. math:: h_0 = (x, E^1_{c_1}, \dots, E^m_{c_m}), \qquad h_l = \max(0, W_l h_{l-1} + b_l),
        \qquad y = W_{L+1} h_L + b_{L+1}

    Embeddings and weights start as :math:`\mathcal U(\pm 0.05)`, as in the paper's code; biases at
    zero.

    Args:
        cardinalities: codes of each column of categories, of which 0 is a category unknown in
            training.
        num_classes: width of the output; 1 for a number.
        num_numbers: numbers before the codes.
        embed_dims: width of each column's vectors, as a rule less than its categories; None: one
            less than these, but no more than 10.
        hidden_sizes: width of each hidden layer.
        dropout: probability with which each hidden unit is silenced during training; the paper
            has none.

    Shape:
        - input: ``(batch, num_numbers + columns)``, the codes last, as whole numbers
        - output: ``(batch, num_classes)``

    Raises:
        ValueError: if a size is smaller than 1, ``embed_dims`` are not as many as columns, or the
            input has another width.
    """

    @deferred_init
    def __init__(
        self,
        cardinalities: tuple[int, ...],
        num_classes: int,
        *,
        num_numbers: int = 0,
        embed_dims: tuple[int, ...] | None = None,
        hidden_sizes: tuple[int, ...] = (1000, 500),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least_one(cardinalities=cardinalities, num_classes=num_classes)
        check_at_least_one(hidden_sizes=hidden_sizes)
        check_probability(dropout=dropout)
        if embed_dims is None:
            embed_dims = tuple(max(1, min(LARGEST, codes - 2)) for codes in cardinalities)
        check_at_least_one(embed_dims=embed_dims)
        if not cardinalities or len(embed_dims) != len(cardinalities):
            raise ValueError(
                f"embed_dims must be as many as cardinalities ({len(cardinalities)}, at least 1), "
                f"not {len(embed_dims)}"
            )
        self.num_numbers = num_numbers
        self.embeddings = nn.ModuleList(
            nn.Embedding(codes, dim, padding_idx=0)
            for codes, dim in zip(cardinalities, embed_dims, strict=True)
        )
        layers: list[nn.Module] = []
        width = num_numbers + sum(embed_dims)
        for size in hidden_sizes:
            layers += [nn.Linear(width, size), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = size
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)

    def init_weights(self) -> None:
        reset(self)
        for layer in (*self.embeddings, *self.layers, self.classifier):
            if isinstance(layer, nn.Embedding | nn.Linear):
                nn.init.uniform_(layer.weight, -0.05, 0.05)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Embedding):
                nn.init.zeros_(layer.weight[0])

    def forward(self, x: Tensor) -> Tensor:
        width = self.num_numbers + len(self.embeddings)
        if x.ndim != 2 or x.size(1) != width:
            raise ValueError(
                f"the input must be (batch, {width}): {self.num_numbers} numbers, then "
                f"{len(self.embeddings)} codes, not {tuple(x.shape)}"
            )
        codes = x[:, self.num_numbers :].long()  # (batch, columns)
        vectors = [
            embedding(column)
            for embedding, column in zip(self.embeddings, codes.unbind(1), strict=True)
        ]
        hidden = torch.cat([x[:, : self.num_numbers], *vectors], 1)  # (batch, numbers + dims)
        return self.classifier(self.layers(hidden))  # (batch, num_classes)
