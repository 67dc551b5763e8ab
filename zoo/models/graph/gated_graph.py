r"""Gated graph neural networks (Li, Tarlow, Brockschmidt and Zemel, 2016).

"Gated graph sequence neural networks", https://arxiv.org/abs/1511.05493

Nodes have states, and in each of a few steps a gated recurrent unit updates every state by the
messages that arrive (equations 2 to 6). What is known of a node, its annotation, is how its state
starts, filled up with zeros (equation 1):

.. math::
    h_v^{(1)} = [x_v, 0], \qquad
    a_v^{(t)} = \sum_{(u, v) \in E} e_{uv}\, W h_u^{(t-1)}, \qquad
    h_v^{(t)} = \mathrm{GRU}(a_v^{(t)}, h_v^{(t-1)})

Differences from the paper: edges have weights :math:`e_{uv}` but neither types nor directions, each
with matrices of its own in the paper; each step has its own :math:`W` and messages have no bias, as
in `torch_geometric`, whose checkpoints load here. Features of many dimensions are first mapped to
an annotation that fits into the state.

| graph | features | classes | `GatedGraphNetwork` parameters |
|---|---|---|---|
| Cora | 1,433 | 7 | 54,727 |
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.message_passing import Aggregation, Edges
from zoo.layers.sparse import LastSeen, dropout, features_of, linear


class GatedGraphConv(nn.Module):
    r"""Some steps of messages and a gated recurrent unit that takes them in.

    Weights start uniform in :math:`\pm 1 / \sqrt{\text{out\_channels}}`.

    Args:
        out_channels: width of a node's state.
        num_layers: number of steps.
        aggr: how a node's messages are put together, ``add``, ``mean`` or ``max``.
        bias: whether the recurrent unit has biases.

    Shape:
        - input: x ``(nodes, in_channels)``, which may be narrower than the state; edge_index
          ``(2, edges)`` or the :class:`~zoo.layers.message_passing.Edges` made of it; edge_weight
          ``(edges,)``, 1 where there is none
        - output: ``(nodes, out_channels)``

    Raises:
        ValueError: if a size is smaller than 1, ``aggr`` is unknown or x is wider than the state.
    """

    def __init__(
        self, out_channels: int, num_layers: int, *, aggr: str = "add", bias: bool = True
    ) -> None:
        super().__init__()
        check_at_least_one(out_channels=out_channels, num_layers=num_layers)
        ways: dict[str, Aggregation] = {"add": "sum", "mean": "mean", "max": "max"}
        if aggr not in ways:
            raise ValueError(f"aggr must be add, mean or max, not {aggr!r}")
        self.out_channels, self.aggregation = out_channels, ways[aggr]
        self.weight = nn.Parameter(torch.empty(num_layers, out_channels, out_channels))
        self.rnn = nn.GRUCell(out_channels, out_channels, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = self.out_channels**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.rnn.reset_parameters()

    def forward(
        self, x: Tensor, edge_index: Tensor | Edges, edge_weight: Tensor | None = None
    ) -> Tensor:
        missing = self.out_channels - x.size(1)
        if missing < 0:
            raise ValueError(
                f"x has {x.size(1)} channels: out_channels must be at least as many, not "
                f"{self.out_channels}"
            )
        edges = Edges(edge_index, x.size(0)) if isinstance(edge_index, Tensor) else edge_index
        weight = None if edge_weight is None else edge_weight.to(x.dtype)
        h = F.pad(x, (0, missing))  # (nodes, out_channels)
        for step in self.weight:
            h = self.rnn(self._received(h @ step, edges, weight), h)
        return h

    def _received(self, message: Tensor, edges: Edges, weight: Tensor | None) -> Tensor:
        if self.aggregation == "sum":
            return edges.propagate(message, weight)
        sent = edges.source.gather(message)  # (edges, out_channels)
        sent = sent if weight is None else weight.unsqueeze(1) * sent
        return edges.target.aggregate(sent, self.aggregation)


class GatedGraphNetwork(nn.Module):
    r"""An annotation, :class:`GatedGraphConv` and a class for each node.

    .. math:: y_v = W [h_v^{(T)}, x_v] + b

    with annotations :math:`x_v` that are a linear map of the features, rectified.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of a node's state.
        num_layers: steps of messages.
        dropout: probability of silencing each feature, and each input of the last map, during
            training.
        cached: keep what depends on the graph alone, the order of its edges and where the entries
            of sparse features lie, until a call gets another tensor (or the same one, changed in
            place): for training on one whole graph. No copy or state dict has any of it.

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
        hidden_channels: int = 32,
        num_layers: int = 2,
        dropout: float = 0.5,
        cached: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, num_classes=num_classes)
        check_probability(dropout=dropout)
        self.annotation = nn.Linear(in_features, hidden_channels)
        self.conv = GatedGraphConv(hidden_channels, num_layers)
        self.classifier = nn.Linear(2 * hidden_channels, num_classes)
        self.dropout, self.cached = dropout, cached
        self._edges, self._features = LastSeen(), LastSeen()

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        h = features_of(x, self._features, keep=self.cached)
        edges = self._edges(Edges, edge_index, x.size(0), keep=self.cached)
        h = dropout(h, self.dropout, self.training)
        annotation = linear(h, self.annotation.weight, self.annotation.bias).relu()
        states = self.conv(annotation, edges, edge_weight)
        found = torch.cat([states, annotation], dim=1)  # (nodes, 2 * hidden_channels)
        logits: Tensor = self.classifier(dropout(found, self.dropout, self.training))
        return logits  # (nodes, num_classes)
