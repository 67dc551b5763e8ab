r"""Classifiers of graphs that see no edges: what a graph network must beat (Errica et al., 2020).

"A fair comparison of graph neural networks for graph classification",
https://arxiv.org/abs/1912.09893, section 3

A graph is taken for the multiset of its nodes' features. The molecular fingerprint counts them,

.. math:: y = W_2\, \mathrm{relu}\Big(W_1 \sum_{v \in G} x_v + b_1\Big) + b_2,

which is what the paper takes for molecules, whose features are kinds of atoms. The deep multiset
(Zaheer et al., 2017, https://arxiv.org/abs/1703.06114) first maps each node,

.. math:: y = W_3\, \mathrm{relu}\Big(W_2 \sum_{v \in G} \mathrm{relu}(W_1 x_v + b_1) + b_2\Big)
    + b_3.

Where these are as good as a graph network, the task does not need the edges, or the network does
not use them. On PROTEINS the paper has 75.8 % for the deep multiset, more than for any network with
edges; the nodes had more features there than the three kinds that this zoo takes by default.

Differences from the paper: its code puts another ReLU behind the logits of the fingerprint, for
which nothing speaks.

| data | `MolecularFingerprint` parameters | `DeepMultiset` parameters |
|---|---|---|
| MUTAG: 7 features, 2 classes | 322 | 1,378 |
| PROTEINS: 3 features, 2 classes | 194 | 1,250 |
| NCI1: 37 features, 2 classes | 1,282 | 2,338 |
"""

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.message_passing import Ends


class MolecularFingerprint(nn.Module):
    """The sum of the nodes' features, through a hidden layer.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: units of the hidden layer.
        dropout: probability of dropping one of them in training.

    Shape:
        - x: ``(nodes, in_features)``
        - edge_index: ignored
        - batch: which graph each node belongs to, int64 ``(nodes,)``
        - output: logits ``(num_graphs, num_classes)``

    Raises:
        ValueError: a size is below 1, or dropout is no probability below 1.
    """

    @deferred_init
    def __init__(
        self, in_features: int, num_classes: int, *, hidden_channels: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features, num_classes=num_classes, hidden_channels=hidden_channels
        )
        check_probability(dropout=dropout)
        self.mlp = _mlp(in_features, hidden_channels, num_classes, dropout)

    def init_weights(self) -> None:
        reset(self)

    def forward(
        self, x: Tensor, edge_index: Tensor | None, batch: Tensor, num_graphs: int
    ) -> Tensor:
        counts = Ends(batch, num_graphs).sum(x)  # (graphs, in_features)
        logits: Tensor = self.mlp(counts)  # (graphs, num_classes)
        return logits


class DeepMultiset(nn.Module):
    """A hidden layer of each node, summed over the nodes, through another hidden layer.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: units of each hidden layer.
        dropout: probability of dropping a unit of the second one in training.

    Shape:
        - x: ``(nodes, in_features)``
        - edge_index: ignored
        - batch: which graph each node belongs to, int64 ``(nodes,)``
        - output: logits ``(num_graphs, num_classes)``

    Raises:
        ValueError: a size is below 1, or dropout is no probability below 1.
    """

    @deferred_init
    def __init__(
        self, in_features: int, num_classes: int, *, hidden_channels: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features, num_classes=num_classes, hidden_channels=hidden_channels
        )
        check_probability(dropout=dropout)
        self.node = nn.Linear(in_features, hidden_channels)
        self.mlp = _mlp(hidden_channels, hidden_channels, num_classes, dropout)

    def init_weights(self) -> None:
        reset(self)

    def forward(
        self, x: Tensor, edge_index: Tensor | None, batch: Tensor, num_graphs: int
    ) -> Tensor:
        hidden = torch.relu(self.node(x))  # (nodes, hidden_channels)
        total = Ends(batch, num_graphs).sum(hidden)  # (graphs, hidden_channels)
        logits: Tensor = self.mlp(total)  # (graphs, num_classes)
        return logits


def _mlp(in_features: int, width: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, num_classes),
    )
