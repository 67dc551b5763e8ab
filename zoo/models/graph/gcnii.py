r"""GCNII, a graph convolutional network that may be deep (Chen, Wei, Huang, Ding and Li, 2020).

"Simple and deep graph convolutional networks", https://arxiv.org/abs/2007.02133

Plain graph convolutions smooth all nodes to one value as layers are added. Here each layer returns
to the first layer's output by a share :math:`\alpha`, and its map is ever closer to the identity
(equation 5):

.. math::
    H^{(\ell)} = \mathrm{relu}\Big( \big( (1 - \alpha) \hat A H^{(\ell - 1)} + \alpha H^{(0)} \big)
    \big( (1 - \beta_\ell) I + \beta_\ell W^{(\ell)} \big) \Big), \qquad
    \beta_\ell = \log\Big( \frac{\theta}{\ell} + 1 \Big)

with :math:`\hat A = D^{-1/2} (A + I) D^{-1/2}` (the paper's :math:`\lambda` is called
:math:`\theta` here, as in its code). Linear maps lead to :math:`H^{(0)}` and from the last layer.

Differences from the paper's code: the weights of the convolutions start as Glorot and Bengio (2010)
say, as in `torch_geometric`, whose checkpoints of a layer load here, and not uniform in
:math:`\pm 1/\sqrt{\text{channels}}`.

| graph | features | classes | layers | `GCNII` parameters |
|---|---|---|---|---|
| Cora | 1,433 | 7 | 64 | 354,375 |
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers.adjacency import normalized_adjacency
from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.sparse import LastSeen, SparseMatrix, dropout, features_of, linear


class GCN2Conv(nn.Module):
    r"""One convolution with an initial residual and a map close to the identity.

    .. math:: X' = \big( (1 - \alpha) \hat A X + \alpha X^{(0)} \big)
        \big( (1 - \beta) I + \beta W_1 \big)

    (equation 5, without the non-linearity), or, where the two parts have weights of their own
    (GCNII*, equation 6):

    .. math:: X' = (1 - \alpha) \hat A X \big( (1 - \beta) I + \beta W_1 \big)
        + \alpha X^{(0)} \big( (1 - \beta) I + \beta W_2 \big)

    Args:
        channels: features of a node.
        alpha: share of the initial residual.
        theta: :math:`\theta` in :math:`\beta = \log(\theta / \ell + 1)`; None: :math:`\beta = 1`.
        layer: the number :math:`\ell` of this layer, from 1; goes with ``theta``.
        shared_weights: whether both parts have the same weights.
        add_self_loops: whether nodes have self-loops.

    Shape:
        - input: x and x_0 ``(nodes, channels)``; edge_index ``(2, edges)`` and edge_weight
          ``(edges,)``, or instead of both what
          :func:`~zoo.layers.adjacency.normalized_adjacency` makes of them
        - output: ``(nodes, channels)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    weight2: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        alpha: float,
        *,
        theta: float | None = None,
        layer: int | None = None,
        shared_weights: bool = True,
        add_self_loops: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(channels=channels)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], not {alpha}")
        self.alpha, self.beta, self.add_self_loops = alpha, 1.0, add_self_loops
        if theta is not None and layer is not None:
            check_at_least_one(layer=layer)
            if theta <= 0:
                raise ValueError(f"theta must be above 0, not {theta}")
            self.beta = math.log(theta / layer + 1)
        elif theta is not None or layer is not None:
            raise ValueError(f"theta and layer go together, not theta={theta} and layer={layer}")
        self.weight1 = nn.Parameter(torch.empty(channels, channels))
        self.weight2 = None if shared_weights else nn.Parameter(torch.empty(channels, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight1)
        if self.weight2 is not None:
            nn.init.xavier_uniform_(self.weight2)

    def forward(
        self,
        x: Tensor,
        x_0: Tensor,
        edge_index: Tensor | SparseMatrix,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        if isinstance(edge_index, Tensor):
            graph = x.size(0), edge_weight, x.dtype, self.add_self_loops
            edge_index = normalized_adjacency(edge_index, *graph)
        smooth, residual = (1 - self.alpha) * (edge_index @ x), self.alpha * x_0
        if self.weight2 is None:
            return self._nearly_identity(smooth + residual, self.weight1)
        return self._nearly_identity(smooth, self.weight1) + self._nearly_identity(
            residual, self.weight2
        )

    def _nearly_identity(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.addmm(x, x, weight, beta=1 - self.beta, alpha=self.beta)


class GCNII(nn.Module):
    r"""A linear map, many :class:`GCN2Conv` with ReLU behind and dropout before each, and another.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of all layers between.
        num_layers: number of convolutions.
        alpha: share of the initial residual.
        theta: strength of the layers' maps.
        shared_weights: False: GCNII*, whose initial residual has weights of its own.
        dropout: probability of silencing each input of each layer during training.
        cached: keep what depends on the graph alone, the normalised adjacency matrix and where the
            entries of sparse features lie, until a call gets another tensor (or the same one,
            changed in place): for training on one whole graph. No copy or state dict has any of it.

    Shape:
        - input: x ``(nodes, in_features)``, dense or of CSR layout; edge_index ``(2, edges)``;
          edge_weight ``(edges,)``, 1 where there is none
        - output: logits ``(nodes, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_channels: int = 64,
        num_layers: int = 64,
        alpha: float = 0.1,
        theta: float = 0.5,
        shared_weights: bool = True,
        dropout: float = 0.6,
        cached: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, num_classes=num_classes, num_layers=num_layers)
        check_probability(dropout=dropout)
        self.lins = nn.ModuleList(
            [nn.Linear(in_features, hidden_channels), nn.Linear(hidden_channels, num_classes)]
        )
        self.convs = nn.ModuleList(
            GCN2Conv(
                hidden_channels, alpha, theta=theta, layer=layer, shared_weights=shared_weights
            )
            for layer in range(1, num_layers + 1)
        )
        self.dropout, self.cached = dropout, cached
        self._adjacency, self._features = LastSeen(), LastSeen()

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        first: Any
        last: Any
        first, last = self.lins
        h, adjacency = self._prepared(x, edge_index, edge_weight)
        h = x_0 = linear(
            self._dropped(h), first.weight, first.bias
        ).relu()  # (nodes, hidden_channels)
        for conv in self.convs:
            h = conv(self._dropped(h), x_0, adjacency).relu()
        logits: Tensor = last(self._dropped(h))
        return logits  # (nodes, num_classes)

    def _dropped(self, h: Any) -> Any:
        return dropout(h, self.dropout, self.training)

    def _prepared(
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None
    ) -> tuple[Any, SparseMatrix]:
        """Features and adjacency matrix as the layers take them."""
        h: Any = features_of(x, self._features, keep=self.cached)
        graph = x.size(0), edge_weight, next(self.parameters()).dtype
        return h, self._adjacency(normalized_adjacency, edge_index, *graph, keep=self.cached)
